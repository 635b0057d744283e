// From a panel's queries to the frames that it draws.

import {
  cacheFieldDisplayNames,
  type DataFrame,
  type DataTransformerConfig,
  fieldMatchers,
  type GrafanaTheme2,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';
import type { Panel, Target } from './dashboard';
import { applied } from './fields';
import { ofSeries, ofTable } from './frames';
import { step as stepOf, variables } from './intervals';
import type { Prometheus, Window } from './prometheus';
import { interpolate, type Values } from './variables';

export interface Source {
  prometheus: Prometheus;
  window: Window;
  // The seconds between two scrapes.
  scrape: number;
  values: Values;
  // Of all series.
  names: string[];
}

// Some stand there under two names.
standardTransformersRegistry.setInit(() =>
  [...new Set(Object.values(standardTransformers))].map((transformation) => ({
    ...transformation,
    transformation: async () => transformation,
    editor: () => null,
    imageDark: '',
    imageLight: '',
  })),
);

// The frames of `panel`, which is `width` pixels wide.
export async function load(panel: Panel, source: Source, width: number, theme: GrafanaTheme2): Promise<DataFrame[]> {
  const targets = (panel.targets ?? []).filter(({ hide }) => !hide);
  const points = panel.maxDataPoints ?? width;
  const step = stepOf(source.window, points, source.scrape);
  const values = { ...source.values, ...variables(source.window, step, source.scrape) };
  const tables = targets.filter(({ format }) => format === 'table').length;
  const answers = await Promise.all(targets.map((target) => query(target, source, values, step, tables > 1)));
  const transformed = await transform(panel.transformations ?? [], answers.flat(), values);
  refuseUnknown('override of fields', (panel.fieldConfig?.overrides ?? []).map(({ matcher }) => matcher.id), fieldMatchers);
  const frames = applied(panel, transformed, theme, (text) => interpolate(text, values));
  cacheFieldDisplayNames(frames);
  return frames;
}

async function query(target: Target, source: Source, values: Values, step: number, isOneOfMany: boolean) {
  const { prometheus, window } = source;
  const expr = interpolate(target.expr, values);
  const series = target.instant ? await prometheus.instant(expr, window) : await prometheus.range(expr, window, step);
  if (target.format === 'table') {
    return [ofTable(target, series, isOneOfMany ? `Value #${target.refId}` : 'Value')];
  }
  return ofSeries(target, series, step);
}

async function transform(steps: DataTransformerConfig[], frames: DataFrame[], values: Values) {
  refuseUnknown('transformation', steps.map(({ id }) => id), standardTransformersRegistry);
  const context = { interpolate: (text: string) => interpolate(text, values) };
  return lastValueFrom(transformDataFrame(steps, frames, context));
}

// Grafana's libraries pass over what they do not know.
function refuseUnknown(what: string, ids: string[], known: { getIfExists(id: string): unknown }) {
  for (const id of ids) {
    if (!known.getIfExists(id)) {
      throw new Error(`no ${what} is called ${id}`);
    }
  }
}
