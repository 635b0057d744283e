// Grafana's rules for steps and for its variables of time, in seconds.

import type { Values } from './variables';
import type { Window } from './prometheus';

// The step of a query that is to give at most `points`, never finer than the scrapes are.
export function step(window: Window, points: number, scrape: number): number {
  return Math.max((window.to - window.from) / points, scrape);
}

export function variables(window: Window, step: number, scrape: number): Values {
  const range = Math.round(window.to - window.from);
  const rate = Math.max(step + scrape, 4 * scrape);
  return {
    __interval: [duration(step)],
    __interval_ms: [String(Math.round(step * 1000))],
    __rate_interval: [duration(rate)],
    __range: [`${range}s`],
    __range_s: [String(range)],
    __range_ms: [String(range * 1000)],
  };
}

function duration(seconds: number): string {
  return `${Math.round(seconds * 1000)}ms`;
}
