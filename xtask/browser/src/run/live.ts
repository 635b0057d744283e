// A Prometheus that scrapes replays of captures, each as the host that it was recorded on.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Prometheus, type Window } from '../board/prometheus';
import type { Order } from './order';
import { freePort, sleep, start, until } from './process';

// Captures hold a snapshot every two seconds: rates over four of these see at least one.
export const SCRAPE_SECONDS = 1;
// Enough of the replays to see; the lab's own captures are shorter.
const PLAYED_SECONDS = 24;

export interface Live {
  prometheus: string;
  // What to look at.
  window: Window;
  // The page of one replay.
  landing: string;
}

export async function play(order: Order): Promise<Live> {
  const targets = await Promise.all(order.captures.map(async ({ name }) => ({ name, address: `127.0.0.1:${await freePort()}` })));
  const prometheus = await startPrometheus(order, targets);
  const from = Date.now() / 1000;
  order.captures.forEach(({ name, path }, at) => {
    const args = ['replay', path, '--vm-histograms', '--speed', '1', '--listen', targets[at]!.address];
    start(order.mmuTrace, args, join(order.out, `replay-${name}.log`));
  });
  await sleep(PLAYED_SECONDS * 1000);
  const window = { from, to: Date.now() / 1000 };
  await demand(prometheus, window, targets.length);
  return { prometheus, window, landing: `http://${targets[0]!.address}/` };
}

async function startPrometheus(order: Order, targets: { name: string; address: string }[]): Promise<string> {
  const address = `127.0.0.1:${await freePort()}`;
  const home = mkdtempSync(join(tmpdir(), 'mmu-trace-browser-'));
  process.on('exit', () => rmSync(home, { recursive: true, force: true }));
  const config = join(home, 'prometheus.yml');
  writeFileSync(config, configuration(targets, order.rules));
  const args = [`--config.file=${config}`, `--storage.tsdb.path=${join(home, 'data')}`, `--web.listen-address=${address}`];
  start(order.prometheus, args, join(order.out, 'prometheus.log'));
  const url = `http://${address}`;
  // It takes seconds to begin. The replays begin after it, so that nothing of them is missed.
  await until('the first scrape of Prometheus', 60, () => count(url, 'up').then((up) => up === targets.length));
  return url;
}

function configuration(targets: { name: string; address: string }[], rules: string[]): string {
  const every = `${SCRAPE_SECONDS * 1000}ms`;
  const hosts = targets.map(({ name, address }) => ({ targets: [address], labels: { instance: name } }));
  // JSON is YAML.
  return JSON.stringify({
    global: { scrape_interval: every, scrape_timeout: every, evaluation_interval: every },
    rule_files: rules,
    scrape_configs: [{ job_name: 'mmu-trace', static_configs: hosts }],
  });
}

async function demand(prometheus: string, window: Window, targets: number): Promise<void> {
  const up = await count(prometheus, 'up == 1', window);
  if (up !== targets) {
    throw new Error(`Prometheus reaches ${up} of ${targets} replays; their logs say why`);
  }
}

// How many series answer; 0 while Prometheus starts.
async function count(url: string, query: string, window?: Window): Promise<number> {
  const now = Date.now() / 1000;
  const series = await new Prometheus(url).instant(query, window ?? { from: now, to: now }).catch(() => []);
  return series.length;
}
