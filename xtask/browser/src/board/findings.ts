// What is wrong with the panels as they stand on the page.

import type { Loaded } from './board';
import type { Panel } from './dashboard';

export interface Finding {
  panel: string;
  wrong: string[];
}

// A figure that no unit was applied to: 1e-05, 0.30000000000000004, NaN.
const RAW = /\d[eE][-+]\d|\d\.\d{7,}|\bNaN\b|Infinity|undefined/;

export function inspect(panels: Loaded[]): Finding[] {
  return panels
    .filter(({ panel }) => panel.type !== 'row')
    .map(({ panel, frames }) => {
      const section = document.querySelector<HTMLElement>(`[data-panel="${panel.id}"]`);
      const wrong = section ? [...look(panel, section), ...empty(panel, frames.length)] : ['is not on the page'];
      return { panel: panel.title, wrong };
    });
}

function look(panel: Panel, section: HTMLElement): string[] {
  const errors = [...section.querySelectorAll('[role=alert]')].map((alert) => alert.textContent ?? '');
  if (errors.length > 0) {
    return errors;
  }
  const raw = RAW.exec(section.innerText);
  return [
    ...(raw ? [`shows a raw figure: ${raw[0]}`] : []),
    ...(overflows(section) ? ['is larger than its place'] : []),
    ...(isEmpty(section) ? [] : (LOOKS[panel.type]?.(section) ?? [])),
  ];
}

const LOOKS: Record<string, (section: HTMLElement) => string[]> = {
  bargauge: cutOff,
  stat: cutOff,
  table: (section) => (section.querySelector('[role=gridcell]') ? [] : ['has no cell']),
  timeseries: lines,
};

// No series, although the panel does not say what that means.
function empty(panel: Panel, series: number): string[] {
  const { noValue } = panel.fieldConfig?.defaults ?? {};
  return series > 0 || noValue ? [] : ['has no data, and no text for that (noValue)'];
}

function isEmpty(section: HTMLElement): boolean {
  return section.querySelector('.no-data') !== null;
}

// A plot without lines has one colour but for its grid, which is grey; lines are colourful.
function lines(section: HTMLElement): string[] {
  const canvas = section.querySelector('canvas');
  const context = canvas?.getContext('2d');
  if (!canvas || !context) {
    return ['has no canvas'];
  }
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  let colourful = 0;
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue, alpha] = [data[at]!, data[at + 1]!, data[at + 2]!, data[at + 3]!];
    const spread = Math.max(red, green, blue) - Math.min(red, green, blue);
    colourful += alpha > 0 && spread > 40 ? 1 : 0;
  }
  return colourful >= 20 ? [] : [`has no line: ${colourful} coloured pixels`];
}

// Values and names that do not fit. Those that end in an ellipsis count too.
function cutOff(section: HTMLElement): string[] {
  return [...section.querySelectorAll<HTMLElement>('span, div')]
    .filter((element) => element.childElementCount === 0 && element.innerText)
    .filter((element) => element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0)
    .map((element) => `is cut off: ${element.innerText}`);
}

function overflows(section: HTMLElement): boolean {
  const frame = section.getBoundingClientRect();
  return [...section.querySelectorAll('canvas, span')].some((element) => {
    const { left, right, top, width } = element.getBoundingClientRect();
    const isScrolled = element.closest('[role=grid], table, [class*=scroll]') !== null;
    return width > 0 && !isScrolled && (left < frame.left - 1 || right > frame.right + 1 || top < frame.top - 1);
  });
}
