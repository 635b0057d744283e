// Answers of Prometheus as Grafana's data frames, the way its data source makes them.

import { type DataFrame, type Field, FieldType, toDataFrame } from '@grafana/data';
import type { Target } from './dashboard';
import type { Labels, Series } from './prometheus';

// One frame for each series.
export function ofSeries(target: Target, series: Series[], step: number): DataFrame[] {
  return series.map(({ metric, values }) => {
    const { __name__: name, ...labels } = metric;
    return toDataFrame({
      refId: target.refId,
      fields: [
        time(values.map(([seconds]) => seconds), target.instant ? undefined : step),
        {
          name: name ?? 'Value',
          type: FieldType.number,
          labels,
          values: values.map(([, value]) => Number(value)),
          config: { displayNameFromDS: legend(target.legendFormat, metric) },
        },
      ],
    });
  });
}

// One frame with a column for each label.
export function ofTable(target: Target, series: Series[], valueName: string): DataFrame {
  const rows = series.flatMap(({ metric, values }) => values.map((value) => ({ metric, value })));
  const names = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const columns = names.map((name) => ({
    name,
    type: FieldType.string,
    values: rows.map(({ metric }) => metric[name] ?? ''),
    config: { filterable: true },
  }));
  const value = { name: valueName, type: FieldType.number, values: rows.map(({ value }) => Number(value[1])), config: {} };
  const fields = rows.length === 0 ? [] : [time(rows.map(({ value }) => value[0])), ...columns, value];
  return toDataFrame({ refId: target.refId, meta: { preferredVisualisationType: 'table' }, fields });
}

function time(seconds: number[], step?: number): Field {
  return {
    name: 'Time',
    type: FieldType.time,
    values: seconds.map((one) => one * 1000),
    // Where samples are missing for longer than that, a line ends.
    config: step === undefined ? {} : { interval: step * 1000 },
  };
}

function legend(format: string | undefined, labels: Labels): string | undefined {
  if (!format || format === '__auto') {
    return undefined;
  }
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');
}
