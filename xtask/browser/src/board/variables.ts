// The variables of a dashboard, all at "All" or else at their first value, and their place in queries.

import type { Dashboard, Variable } from './dashboard';
import type { Prometheus, Window } from './prometheus';

export type Values = Record<string, string[]>;

const REFERENCE = /\$(\w+)|\$\{(\w+)(?::(\w+))?\}|\[\[(\w+)\]\]/g;
const LABEL_VALUES = /^label_values\((?:(.+),\s*)?(\w+)\)$/;

export async function resolve(dashboard: Dashboard, prometheus: Prometheus, window: Window): Promise<Values> {
  const values: Values = {};
  // One after the other: a later one may refer to an earlier one.
  for (const variable of dashboard.templating.list) {
    values[variable.name] = await choose(variable, values, prometheus, window);
  }
  return values;
}

async function choose(variable: Variable, values: Values, prometheus: Prometheus, window: Window): Promise<string[]> {
  const query = typeof variable.query === 'string' ? variable.query : variable.query.query;
  if (variable.type === 'datasource') {
    return [query];
  }
  if (variable.includeAll && variable.allValue) {
    return [variable.allValue];
  }
  const options = variable.type === 'query' ? await ask(query, values, prometheus, window) : query.split(',');
  if (options.length === 0) {
    throw new Error(`the variable ${variable.name} has no value: ${query}`);
  }
  return variable.includeAll ? options : options.slice(0, 1);
}

async function ask(query: string, values: Values, prometheus: Prometheus, window: Window): Promise<string[]> {
  const [matched, selector, label] = LABEL_VALUES.exec(query.trim()) ?? [];
  if (!matched || !label) {
    throw new Error(`only label_values is understood of a variable, not ${query}`);
  }
  return prometheus.labelValues(label, selector && interpolate(selector, values), window);
}

// Puts `values` into `text`; a name that nobody defined stays, and Prometheus refuses the query.
export function interpolate(text: string, values: Values): string {
  return text.replace(REFERENCE, (whole, plain, braced, format, bracketed) => {
    const chosen = values[plain ?? braced ?? bracketed];
    if (!chosen) {
      return whole;
    }
    return chosen.length === 1 && format !== 'csv' ? chosen[0]! : joined(chosen, format);
  });
}

function joined(chosen: string[], format: string | undefined): string {
  return format === 'csv' ? chosen.join(',') : `(${chosen.map(escaped).join('|')})`;
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\\\$&');
}
