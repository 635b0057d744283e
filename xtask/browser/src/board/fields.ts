// Units, thresholds, mappings and the other options of fields.
//
// Grafana keeps the list of options in its application, and what a panel means by them in its plugins;
// neither is in its libraries, so the list stands here, with the defaults of the plugins.

import {
  applyFieldOverrides,
  type DataFrame,
  displayNameOverrideProcessor,
  type FieldConfigPropertyItem,
  type FieldConfigSource,
  FieldColorModeId,
  identityOverrideProcessor,
  numberOverrideProcessor,
  Registry,
  stringOverrideProcessor,
  ThresholdsMode,
  thresholdsOverrideProcessor,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
  type GrafanaTheme2,
} from '@grafana/data';
import type { Panel } from './dashboard';

type Process = FieldConfigPropertyItem['process'];

const STANDARD: Record<string, Process> = {
  unit: unitOverrideProcessor,
  min: numberOverrideProcessor,
  max: numberOverrideProcessor,
  fieldMinMax: identityOverrideProcessor,
  decimals: numberOverrideProcessor,
  displayName: displayNameOverrideProcessor,
  noValue: stringOverrideProcessor,
  color: identityOverrideProcessor,
  thresholds: thresholdsOverrideProcessor,
  mappings: valueMappingsOverrideProcessor,
  links: identityOverrideProcessor,
};

const THRESHOLDS = {
  mode: ThresholdsMode.Absolute,
  steps: [
    { color: 'green', value: -Infinity },
    { color: 'red', value: 80 },
  ],
};

// What Grafana's plugins take for what a panel does not say.
function standard(type: string): FieldConfigSource['defaults'] {
  const color = { mode: type === 'timeseries' ? FieldColorModeId.PaletteClassic : FieldColorModeId.Thresholds };
  const custom =
    type === 'timeseries' ? { drawStyle: 'line', lineWidth: 1, fillOpacity: 0, pointSize: 5, showPoints: 'auto' } : {};
  return { color, thresholds: THRESHOLDS, custom };
}

export function applied(panel: Panel, frames: DataFrame[], theme: GrafanaTheme2, replace: (text: string) => string) {
  const own = panel.fieldConfig ?? { defaults: {}, overrides: [] };
  const base = standard(panel.type);
  const defaults = { ...base, ...own.defaults, custom: { ...base.custom, ...own.defaults.custom } };
  return applyFieldOverrides({
    data: frames,
    fieldConfig: structuredClone({ defaults, overrides: own.overrides }),
    fieldConfigRegistry: registry({ defaults, overrides: own.overrides }),
    replaceVariables: (text) => replace(text),
    theme,
    timeZone: 'utc',
  });
}

function registry(config: FieldConfigSource): Registry<FieldConfigPropertyItem> {
  const items = Object.entries(STANDARD).map(([path, process]) => item(path, path, false, process));
  const custom = customIds(config).map((id) => item(id, id.replace('custom.', ''), true, identityOverrideProcessor));
  return new Registry<FieldConfigPropertyItem>(() => [...items, ...custom]);
}

// The options of plugins: whatever this panel uses.
function customIds(config: FieldConfigSource): string[] {
  const defaults = Object.keys(config.defaults.custom ?? {}).map((name) => `custom.${name}`);
  const overridden = config.overrides.flatMap(({ properties }) => properties.map(({ id }) => id));
  return [...new Set([...defaults, ...overridden.filter((id) => id.startsWith('custom.'))])];
}

function item(id: string, path: string, isCustom: boolean, process: Process): FieldConfigPropertyItem {
  const nothing = () => null;
  return { id, path, name: id, isCustom, process, shouldApply: () => true, editor: nothing, override: nothing };
}
