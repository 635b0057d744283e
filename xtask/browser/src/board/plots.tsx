// What stands inside of a panel, by its type.

import {
  type DataFrame,
  dateTime,
  type FieldDisplay,
  FieldType,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  type GrafanaTheme2,
  type TimeRange,
  VizOrientation,
} from '@grafana/data';
import { BarGaugeDisplayMode, BarGaugeNamePlacement, BarGaugeValueMode, LegendDisplayMode } from '@grafana/schema';
import {
  BarGauge,
  BigValue,
  BigValueColorMode,
  BigValueGraphMode,
  BigValueTextMode,
  TimeSeries,
  VizRepeater,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import type { Panel } from './dashboard';
import type { Window } from './prometheus';

export interface PlotProps {
  panel: Panel;
  frames: DataFrame[];
  window: Window;
  theme: GrafanaTheme2;
  width: number;
  height: number;
}

const PLOTS: Record<string, (props: PlotProps) => React.ReactNode> = {
  bargauge: BarGauges,
  stat: Stats,
  table: Table,
  timeseries: Lines,
};

export function Plot(props: PlotProps) {
  const Kind = PLOTS[props.panel.type];
  if (!Kind) {
    throw new Error(`panels of type ${props.panel.type} cannot be drawn here: Grafana's library has no component for them`);
  }
  return <Kind {...props} />;
}

function Lines({ panel, frames, window, width, height }: PlotProps) {
  if (frames.length === 0) {
    return <NoData panel={panel} />;
  }
  const legend = { showLegend: true, displayMode: LegendDisplayMode.List, placement: 'bottom', calcs: [], ...panel.options?.legend };
  return (
    <TimeSeries frames={finite(frames)} width={width} height={height} timeRange={range(window)} timeZone="utc" legend={legend} />
  );
}

function Table({ panel, frames, window, width, height }: PlotProps) {
  const frame = frames[0];
  if (!frame || frame.fields.length === 0) {
    return <NoData panel={panel} />;
  }
  const { showHeader = true, cellHeight = 'sm', sortBy = [] } = panel.options ?? {};
  return (
    <TableNG
      data={frame}
      width={width}
      height={height}
      noHeader={!showHeader}
      cellHeight={cellHeight}
      sortBy={sortBy}
      timeRange={range(window)}
      fieldConfig={panel.fieldConfig}
    />
  );
}

function Stats({ panel, frames, theme, width, height }: PlotProps) {
  const options = panel.options ?? {};
  const { graphMode = BigValueGraphMode.Area } = options;
  return (
    <VizRepeater
      getValues={() => values(panel, frames, theme, graphMode !== BigValueGraphMode.None)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      source={frames}
      renderCounter={1}
      width={width}
      height={height}
      itemSpacing={3}
      autoGrid
      orientation={options.orientation ?? VizOrientation.Auto}
      renderValue={({ value, alignmentFactors, width, height, count }) => (
        <BigValue
          value={value.display}
          sparkline={value.sparkline}
          colorMode={options.colorMode ?? BigValueColorMode.Value}
          graphMode={graphMode}
          justifyMode={options.justifyMode}
          textMode={options.textMode ?? BigValueTextMode.Auto}
          text={options.text}
          disableWideLayout={options.wideLayout === false}
          count={count}
          alignmentFactors={alignmentFactors}
          width={width}
          height={height}
          theme={theme}
        />
      )}
    />
  );
}

function BarGauges({ panel, frames, theme, width, height }: PlotProps) {
  const options = panel.options ?? {};
  return (
    <VizRepeater
      getValues={() => values(panel, frames, theme, false)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      source={frames}
      renderCounter={1}
      width={width}
      height={height}
      itemSpacing={10}
      minVizHeight={options.minVizHeight ?? 16}
      maxVizHeight={options.maxVizHeight ?? 300}
      orientation={options.orientation ?? VizOrientation.Auto}
      renderValue={({ value, alignmentFactors, width, height, orientation }) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex ?? 0) ?? undefined}
          orientation={orientation}
          displayMode={options.displayMode ?? BarGaugeDisplayMode.Gradient}
          valueDisplayMode={options.valueMode ?? BarGaugeValueMode.Color}
          namePlacement={options.namePlacement ?? BarGaugeNamePlacement.Auto}
          showUnfilled={options.showUnfilled ?? true}
          text={options.text}
          alignmentFactors={alignmentFactors}
          width={width}
          height={height}
          theme={theme}
        />
      )}
    />
  );
}

// What is not a number is a gap in a line.
function finite(frames: DataFrame[]): DataFrame[] {
  return frames.map((frame) => ({
    ...frame,
    fields: frame.fields.map((field) =>
      field.type === FieldType.number
        ? { ...field, values: field.values.map((value) => (Number.isFinite(value) ? value : null)) }
        : field,
    ),
  }));
}

// As Grafana says it.
function NoData({ panel }: { panel: Panel }) {
  return <div className="no-data">{panel.fieldConfig?.defaults.noValue ?? 'No data'}</div>;
}

function values(panel: Panel, frames: DataFrame[], theme: GrafanaTheme2, sparkline: boolean): FieldDisplay[] {
  const { reduceOptions = { calcs: ['lastNotNull'] } } = panel.options ?? {};
  const fieldConfig = panel.fieldConfig ?? { defaults: {}, overrides: [] };
  return getFieldDisplayValues({ data: frames, reduceOptions, fieldConfig, sparkline, theme, replaceVariables: (text) => text });
}

function range(window: Window): TimeRange {
  const [from, to] = [dateTime(window.from * 1000), dateTime(window.to * 1000)];
  return { from, to, raw: { from, to } };
}
