// Why a panel has nothing to draw.

import type { Panel } from './dashboard';
import type { Source } from './data';
import { variables } from './intervals';
import { interpolate } from './variables';

const NAME = /\bmmu_trace[\w:]*/g;

// A reason that is no fault of the panel: nobody recorded what it asks for, or it is over. `undefined` if
// there is none.
export async function reason(panel: Panel, source: Source): Promise<string | undefined> {
  const asked = new Set((panel.targets ?? []).flatMap(({ expr }) => expr.match(NAME) ?? []));
  const missing = [...asked].filter((name) => !hasSeries(name, source.names));
  if (missing.length > 0) {
    // Without any recorded series it is the rules that are missing.
    const hasRules = source.names.some(isRecorded);
    return missing.every((name) => hasRules || !isRecorded(name)) ? `there is no ${missing.join(', no ')}` : undefined;
  }
  return (await wasThere(panel, source)) ? 'it is over' : undefined;
}

// Whether an instant query has an answer at another time of the window.
async function wasThere(panel: Panel, { prometheus, window, scrape, values }: Source): Promise<boolean> {
  const times = { ...values, ...variables(window, scrape, scrape) };
  const queries = (panel.targets ?? []).filter(({ instant }) => instant).map(({ expr }) => interpolate(expr, times));
  const answers = await Promise.all(queries.map((query) => prometheus.range(query, window, scrape)));
  return answers.some(({ length }) => length > 0);
}

function isRecorded(name: string): boolean {
  return name.includes(':');
}

// Queries that match names by a pattern write only the beginning.
function hasSeries(name: string, names: string[]): boolean {
  return names.some((one) => one.startsWith(name));
}
