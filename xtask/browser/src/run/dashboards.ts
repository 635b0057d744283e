// Draws every dashboard in both themes.

import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Browser } from 'playwright-core';
import type { Order as Drawing } from '../board/main';
import type { Checks } from './checks';
import { open } from './chromium';
import { type Live, SCRAPE_SECONDS } from './live';
import type { Order } from './order';
import { visit } from './site';

const WIDTH = 1600;

export async function dashboards(browser: Browser, order: Order, live: Live, home: string, checks: Checks): Promise<void> {
  for (const path of order.dashboards) {
    for (const mode of ['dark', 'light'] as const) {
      await dashboard(browser, order, live, home, path, mode, checks);
    }
  }
}

async function dashboard(browser: Browser, order: Order, live: Live, home: string, path: string, mode: Drawing['mode'], checks: Checks) {
  const { page, complaints } = await open(browser, { viewport: { width: WIDTH, height: 1000 }, timezoneId: 'UTC' });
  await visit(page, live.prometheus, home);
  const { prometheus, window } = live;
  const dashboard = JSON.parse(readFileSync(path, 'utf8'));
  const height = await page.evaluate((drawing: Drawing) => globalThis.window.draw(drawing), {
    dashboard, prometheus, window, scrape: SCRAPE_SECONDS, mode, width: WIDTH,
  });
  await page.setViewportSize({ width: WIDTH, height });
  const findings = await page.evaluate(() => globalThis.window.look());
  const name = `${basename(path, '.json')}-${mode}`;
  await page.screenshot({ path: join(order.out, `${name}.png`), fullPage: true });
  await page.close();
  const wrong = findings.flatMap(({ panel, wrong }) => wrong.map((one) => `${panel}: ${one}`));
  checks.add(`dashboard ${name}: ${findings.length} panels`, [...wrong, ...complaints]);
  // In both themes they are the same.
  if (mode === 'dark') {
    checks.note(findings.flatMap(({ panel, notes }) => notes.map((one) => `${panel} ${one}`)));
  }
}
