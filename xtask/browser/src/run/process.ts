// Programs that run beside this one and end with it.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import { createServer } from 'node:net';
import { promisify } from 'node:util';

const running = new Set<ChildProcess>();
process.on('exit', () => running.forEach((child) => child.kill()));
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => process.exit(130));
}

export const run = promisify(execFile);

// Starts `program`; what it says goes to the file `log`.
export function start(program: string, args: string[], log: string): ChildProcess {
  const file = openSync(log, 'w');
  const child = spawn(program, args, { stdio: ['ignore', file, file] });
  running.add(child);
  child.on('error', (error) => {
    throw new Error(`cannot run ${program}`, { cause: error });
  });
  child.on('exit', () => running.delete(child));
  return child;
}

// A port that was free a moment ago.
export function freePort(): Promise<number> {
  return new Promise((found, failed) => {
    const server = createServer().on('error', failed);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => (address && typeof address === 'object' ? found(address.port) : failed(new Error('no port'))));
    });
  });
}

export const sleep = promisify(setTimeout);

// Asks until `is` holds, or `seconds` are over.
export async function until(what: string, seconds: number, is: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await is())) {
    if (Date.now() > end) {
      throw new Error(`${what} did not come in ${seconds} s`);
    }
    await sleep(200);
  }
}
