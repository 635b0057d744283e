// What is wrong with the panels as they stand on the page.

import type { Loaded } from './board';
import type { Panel } from './dashboard';

export interface Finding {
  panel: string;
  wrong: string[];
  // What is not wrong, yet to be known.
  notes: string[];
}

// A figure that no unit was applied to: 1e-05, 0.30000000000000004, NaN.
const RAW = /\d[eE][-+]\d|\d\.\d{7,}|\bNaN\b|Infinity|undefined/;
// Pixels; what is smaller cannot be read.
const SMALLEST_TEXT = 8;

export function inspect(panels: Loaded[]): Finding[] {
  return panels.filter(({ panel }) => panel.type !== 'row').map(inspectPanel);
}

function inspectPanel({ panel, frames, silence }: Loaded): Finding {
  const section = document.querySelector<HTMLElement>(`[data-panel="${panel.id}"]`);
  if (!section) {
    return { panel: panel.title, wrong: ['is not on the page'], notes: [] };
  }
  const alert = section.querySelector('[role=alert]');
  if (alert) {
    return { panel: panel.title, wrong: [alert.textContent ?? ''], notes: [] };
  }
  const wrong = frames.length > 0 ? drawn(panel, section) : silent(panel, silence);
  const { noValue } = panel.fieldConfig?.defaults ?? {};
  const said = noValue && silence ? [`says "${noValue}": ${silence}`] : [];
  return { panel: panel.title, wrong, notes: [...said, ...small(section), ...cutTable(section)] };
}

function silent(panel: Panel, silence: string | undefined): string[] {
  const hasText = Boolean(panel.fieldConfig?.defaults.noValue);
  return [
    ...(hasText ? [] : ['has no data, and no text for that (noValue)']),
    ...(silence ? [] : ['has no data, although Prometheus has all the series that it asks for']),
  ];
}

function drawn(panel: Panel, section: HTMLElement): string[] {
  const raw = RAW.exec(section.innerText);
  return [
    ...(raw ? [`shows a raw figure: ${raw[0]}`] : []),
    ...(overflows(section) ? ['is larger than its place'] : []),
    ...(LOOKS[panel.type]?.(section, panel) ?? []),
  ];
}

const LOOKS: Record<string, (section: HTMLElement, panel: Panel) => string[]> = {
  bargauge: cutOff,
  stat: cutOff,
  table: cells,
  timeseries: lines,
};

// Grafana writes the panel's text for no data into every empty cell: it has to fit there.
function cells(section: HTMLElement, panel: Panel): string[] {
  const texts = visibleCells(section).map((cell) => cell.innerText.trim());
  const { noValue } = panel.fieldConfig?.defaults ?? {};
  const isCut = visibleCells(section).some((cell) => cell.innerText.trim() === noValue && isCutOff(cell));
  return [
    ...(texts.some((text) => text) ? [] : ['shows no cell']),
    ...(isCut ? [`has empty cells that say "${noValue}", cut off`] : []),
  ];
}

function cutTable(section: HTMLElement): string[] {
  const grid = section.querySelector('[role=grid]');
  const isWide = grid !== null && grid.scrollWidth > grid.clientWidth + 1;
  const cut = visibleCells(section).filter(isCutOff).map((cell) => cell.innerText.trim());
  return [
    ...(isWide ? ['has columns out of sight'] : []),
    ...(cut.length > 0 ? [`cuts ${cut.length} cells off: ${cut[0]}`] : []),
  ];
}

function visibleCells(section: HTMLElement): HTMLElement[] {
  const cells = [...section.querySelectorAll<HTMLElement>('[role=gridcell]')];
  return cells.filter((cell) => cell.checkVisibility({ contentVisibilityAuto: true }));
}

// Axes and grid are grey, and lines are colourful. What is nearly transparent has no colour to speak of.
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
    colourful += alpha > 128 && spread > 40 ? 1 : 0;
  }
  return colourful >= 20 ? [] : [`has no line: ${colourful} coloured pixels`];
}

// Values and names that do not fit. Those that end in an ellipsis count too.
function cutOff(section: HTMLElement): string[] {
  const texts = leaves(section);
  if (texts.length === 0) {
    return ['shows no text'];
  }
  return texts
    .filter(isCutOff)
    .map((element) => `is cut off: ${element.innerText}`);
}

function isCutOff(element: HTMLElement): boolean {
  const text = document.createRange();
  text.selectNodeContents(element);
  return element.clientWidth > 0 && text.getBoundingClientRect().width > element.clientWidth + 1;
}

function small(section: HTMLElement): string[] {
  const sizes = leaves(section).map((element) => parseFloat(getComputedStyle(element).fontSize));
  const smallest = Math.min(...sizes);
  return smallest < SMALLEST_TEXT ? [`has text of ${smallest.toFixed(1)} pixels`] : [];
}

// The elements below the title that hold nothing but text.
function leaves(section: HTMLElement): HTMLElement[] {
  const header = '[data-testid="header-container"]';
  return [...section.querySelectorAll<HTMLElement>('span, div')].filter(
    (element) => element.childElementCount === 0 && element.innerText && !element.closest(header),
  );
}

function overflows(section: HTMLElement): boolean {
  const frame = section.getBoundingClientRect();
  return [...section.querySelectorAll('canvas, span')].some((element) => {
    const { left, right, top, width } = element.getBoundingClientRect();
    const isScrolled = element.closest('[role=grid], table, [class*=scroll]') !== null;
    return width > 0 && !isScrolled && (left < frame.left - 1 || right > frame.right + 1 || top < frame.top - 1);
  });
}
