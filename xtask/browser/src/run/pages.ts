// The HTML report and the page that the metrics server shows: in both themes, on paper and on a phone.

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { type Checks } from './checks';
import { open } from './chromium';
import { faint } from './contrast';
import type { Order } from './order';
import { run } from './process';

const LOOKS: Record<string, BrowserContextOptions> = {
  light: { viewport: { width: 1280, height: 900 }, colorScheme: 'light' },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: 'dark' },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: 'light', isMobile: true, deviceScaleFactor: 2 },
};

export async function pages(browser: Browser, order: Order, landing: string, checks: Checks): Promise<void> {
  await look(browser, order, 'landing', landing, checks);
  for (const { name, path } of order.captures) {
    const file = join(order.out, `report-${name}.html`);
    await run(order.mmuTrace, ['report', path, '--format', 'html', '-o', file]);
    const url = pathToFileURL(file).href;
    await look(browser, order, `report-${name}`, url, checks);
    await print(browser, order, `report-${name}`, url, checks);
  }
}

async function look(browser: Browser, order: Order, name: string, url: string, checks: Checks): Promise<void> {
  for (const [way, options] of Object.entries(LOOKS)) {
    const { page, complaints, requests } = await open(browser, options);
    await page.goto(url);
    await page.screenshot({ path: join(order.out, `${name}-${way}.png`), fullPage: true });
    checks.add(`page ${name}-${way}`, [
      ...complaints,
      ...foreign(requests, url),
      ...(await tooWide(page)),
      ...(await page.evaluate(faint)),
    ]);
    await page.context().close();
  }
}

async function print(browser: Browser, order: Order, name: string, url: string, checks: Checks): Promise<void> {
  // A4 at 96 dots an inch, less its margins; whoever prints may well look at the page in the dark.
  const { page, complaints } = await open(browser, { viewport: { width: 718, height: 1047 }, colorScheme: 'dark' });
  await page.goto(url);
  const margin = '10mm';
  await page.pdf({ path: join(order.out, `${name}.pdf`), format: 'A4', margin: { top: margin, bottom: margin, left: margin, right: margin } });
  await page.emulateMedia({ media: 'print', colorScheme: 'light' });
  await page.screenshot({ path: join(order.out, `${name}-print.png`), fullPage: true });
  checks.add(`page ${name}-print`, [...complaints, ...(await tooWide(page)), ...(await page.evaluate(faint))]);
  await page.context().close();
}

// A page needs nothing but itself.
function foreign(requests: string[], url: string): string[] {
  return requests.filter((one) => one !== url).map((one) => `asks for ${one}`);
}

async function tooWide(page: Page): Promise<string[]> {
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  // Of the device: a page that is not made for phones is laid out as if they were wider.
  const place = page.viewportSize()?.width ?? 0;
  return width > place ? [`is ${width} pixels wide in a window of ${place}`] : [];
}
