// Why a panel has nothing to draw.

import type { Panel } from './dashboard';
import type { Source } from './data';
import { variables } from './intervals';
import { interpolate } from './variables';

const SELECTOR = /\b(mmu_trace[\w:]*)(?:\{([^}]*)\})?/g;
const MATCHER = /\w+(?:=~|!~|!=|=)"[^"]*"/g;

// A reason that is no fault of the panel: nobody recorded what it asks for, or it is over. `undefined` if
// there is none.
export async function reason(panel: Panel, source: Source): Promise<string | undefined> {
  const asked = new Set((panel.targets ?? []).flatMap(({ expr }) => selectors(expr, source)));
  const missing = await filter([...asked], (selector) => isMissing(selector, source));
  if (missing.length > 0) {
    // Without any recorded series it is the rules that are missing.
    const hasRules = source.names.some(isRecorded);
    return missing.every((name) => hasRules || !isRecorded(name)) ? `there is no ${missing.join(', no ')}` : undefined;
  }
  return (await wasThere(panel, source)) ? 'it is over' : undefined;
}

// The series that a query asks for, narrowed by what is chosen on the page. What else the query demands of
// them may be wrong, and is no reason.
function selectors(expr: string, { values }: Source): string[] {
  return [...expr.matchAll(SELECTOR)].map(([, name, matchers]) => {
    const chosen = (matchers?.match(MATCHER) ?? []).filter((matcher) => matcher.includes('$'));
    const narrow = chosen.map((matcher) => interpolate(matcher, values)).filter((matcher) => !matcher.endsWith('=~".*"'));
    return narrow.length > 0 ? `${name}{${narrow.join(',')}}` : name!;
  });
}

async function isMissing(selector: string, { prometheus, window }: Source): Promise<boolean> {
  return (await prometheus.labelValues('__name__', selector, window)).length === 0;
}

async function filter<T>(all: T[], is: (one: T) => Promise<boolean>): Promise<T[]> {
  const verdicts = await Promise.all(all.map(is));
  return all.filter((_, at) => verdicts[at]);
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
