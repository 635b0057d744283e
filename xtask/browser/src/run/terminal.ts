// `mmu-trace top` in a terminal of 80 columns, as text.

import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Checks } from './checks';
import type { Order } from './order';
import { run, sleep } from './process';

const COLUMNS = 80;
const ROWS = 24;

export async function terminal(order: Order, checks: Checks): Promise<void> {
  for (const { name, path } of order.captures) {
    const screen = await shown(order, path);
    writeFileSync(join(order.out, `top-${name}.txt`), screen);
    checks.add(`terminal top-${name}`, wrong(screen));
  }
}

// The screen after a few seconds of the capture.
async function shown(order: Order, capture: string): Promise<string> {
  // A server of its own: whatever tmux runs on this machine is left alone.
  const socket = join(order.out, 'tmux');
  const tmux = (...args: string[]) => run(order.tmux, ['-f', '/dev/null', '-S', socket, ...args]);
  const size = ['-x', String(COLUMNS), '-y', String(ROWS)];
  await tmux('new-session', '-d', ...size, order.mmuTrace, 'top', '--replay', capture);
  try {
    await sleep(4000);
    return (await tmux('capture-pane', '-p')).stdout;
  } finally {
    await tmux('kill-server');
    rmSync(socket, { force: true });
  }
}

function wrong(screen: string): string[] {
  const lines = screen.trimEnd().split('\n');
  const wide = lines.filter((line) => line.trimEnd().length > COLUMNS);
  const header = lines.findIndex((line) => /^\s*VM\b.*refaults/.test(line));
  return [
    ...(lines.length > ROWS ? [`has ${lines.length} lines`] : []),
    ...wide.map((line) => `is wider than ${COLUMNS} columns: ${line}`),
    ...(header < 0 ? ['shows no table'] : []),
    ...(header >= 0 && !lines.slice(header + 1).some((line) => /\d/.test(line)) ? ['shows a table without figures'] : []),
  ];
}
