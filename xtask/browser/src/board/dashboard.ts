// What is read of a dashboard's JSON, classic schema.

import type { DataTransformerConfig, FieldConfigSource } from '@grafana/data';

export interface Dashboard {
  title: string;
  templating: { list: Variable[] };
  panels: Panel[];
}

export interface Variable {
  name: string;
  type: string;
  query: string | { query: string };
  multi?: boolean;
  includeAll?: boolean;
  allValue?: string | null;
}

export interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  collapsed?: boolean;
  panels?: Panel[];
  repeat?: string;
  gridPos: Place;
  targets?: Target[];
  transformations?: DataTransformerConfig[];
  fieldConfig?: FieldConfigSource;
  // Each type of panel has its own.
  options?: any;
  interval?: string;
  maxDataPoints?: number;
}

// In cells of Grafana's grid: 24 columns, rows without end.
export interface Place {
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface Target {
  refId: string;
  expr: string;
  legendFormat?: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  hide?: boolean;
}

// The panels in the order of the page, those of collapsed rows included: Grafana stores them as they
// would stand if only their row were open.
export function unfolded(panels: Panel[]): Panel[] {
  let shift = 0;
  return panels.flatMap((panel) => {
    const inner = panel.collapsed ? (panel.panels ?? []) : [];
    const moved = [panel, ...inner].map((one) => ({
      ...one,
      gridPos: { ...one.gridPos, y: one.gridPos.y + shift },
    }));
    const top = panel.gridPos.y + panel.gridPos.h;
    shift += Math.max(top, ...inner.map(({ gridPos }) => gridPos.y + gridPos.h)) - top;
    return moved;
  });
}
