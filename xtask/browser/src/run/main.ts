// Looks at what people see in a browser; the last line is the number of checks.

import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Checks } from './checks';
import { launch } from './chromium';
import { dashboards } from './dashboards';
import { play } from './live';
import type { Order } from './order';
import { pages } from './pages';
import { terminal } from './terminal';

const order: Order = JSON.parse(process.argv[2] ?? '');
// The bundle stands in dist/.
const home = dirname(dirname(fileURLToPath(import.meta.url)));
const checks = new Checks();
const browser = await launch(order.chromium);
try {
  await terminal(order, checks);
  const live = await play(order);
  await pages(browser, order, live.landing, checks);
  await dashboards(browser, order, live, home, checks);
} finally {
  await browser.close();
}
console.log(JSON.stringify({ passed: checks.passed, failed: checks.failed }));
// Ends what was started.
process.exit(0);
