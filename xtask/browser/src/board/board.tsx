// The dashboard's grid, as wide as Grafana draws it in a window of that width.

import { type DataFrame, type GrafanaTheme2 } from '@grafana/data';
import { PanelChrome } from '@grafana/ui';
import { Component, type ReactNode } from 'react';
import { type Panel, type Place } from './dashboard';
import { Plot } from './plots';
import type { Window } from './prometheus';

const CELL = 30;
const GAP = 8;
const MARGIN = 16;

export interface Loaded {
  panel: Panel;
  frames: DataFrame[];
  error?: string;
  // Why there are no frames.
  silence?: string;
}

export interface BoardProps {
  title: string;
  panels: Loaded[];
  window: Window;
  theme: GrafanaTheme2;
  width: number;
}

export function Board({ title, panels, window, theme, width }: BoardProps) {
  const bottom = Math.max(...panels.map(({ panel }) => rectangle(panel.gridPos, width).bottom));
  return (
    <main style={{ padding: MARGIN }}>
      <h1>{title}</h1>
      <div style={{ position: 'relative', height: bottom }}>
        {panels.map((loaded) => (
          <Framed key={loaded.panel.id} {...loaded} window={window} theme={theme} width={width} />
        ))}
      </div>
    </main>
  );
}

export function rectangle({ x, y, w, h }: Place, width: number) {
  const column = (width - 2 * MARGIN - 23 * GAP) / 24;
  return {
    left: x * (column + GAP),
    top: y * (CELL + GAP),
    width: w * (column + GAP) - GAP,
    height: h * (CELL + GAP) - GAP,
    bottom: (y + h) * (CELL + GAP),
  };
}

function Framed({ panel, frames, error, window, theme, width: boardWidth }: Loaded & Omit<BoardProps, 'panels' | 'title'>) {
  const { left, top, width, height } = rectangle(panel.gridPos, boardWidth);
  const place = { position: 'absolute', left, top, width, height } as const;
  if (panel.type === 'row') {
    return (
      <h2 className="row" style={place}>
        {panel.title}
      </h2>
    );
  }
  return (
    <section data-panel={panel.id} data-type={panel.type} data-title={panel.title} style={place}>
      <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
        {(innerWidth, innerHeight) => (
          <Guard error={error}>
            <Plot panel={panel} frames={frames} window={window} theme={theme} width={innerWidth} height={innerHeight} />
          </Guard>
        )}
      </PanelChrome>
    </section>
  );
}

// Shows the error of one panel in its place.
class Guard extends Component<{ error?: string; children: ReactNode }, { error?: string }> {
  state = { error: this.props.error };

  static getDerivedStateFromError(error: unknown) {
    return { error: String(error) };
  }

  render() {
    return this.state.error ? <p role="alert">{this.state.error}</p> : this.props.children;
  }
}
