// The files of the page that draws dashboards, served below Prometheus' own address: so the page may
// query it, which browsers refuse to pages from elsewhere.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Page, Route } from 'playwright-core';

const BOARD = '/board/';
const HTML = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>board</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="main.css">
<script defer src="main.js"></script>
<body></body>
</html>`;

// Where Grafana's library looks for files that its application brings, and the packages that have them.
const PACKAGES: [folder: string, origin: string][] = [
  ['public/build/img/icons/', '@grafana/ui/dist/public/img/icons/'],
  ['public/fonts/inter/Inter-Regular.woff2', '@fontsource/inter/files/inter-latin-400-normal.woff2'],
  ['public/fonts/inter/Inter-Medium.woff2', '@fontsource/inter/files/inter-latin-500-normal.woff2'],
  ['public/fonts/inter/Inter-Italic.woff2', '@fontsource/inter/files/inter-latin-400-italic.woff2'],
  ['public/fonts/inter/Inter-MediumItalic.woff2', '@fontsource/inter/files/inter-latin-500-italic.woff2'],
  ['public/fonts/roboto/', '@fontsource/roboto-mono/files/roboto-mono-latin-400-normal.woff2'],
];

// Opens the page; `home` is the folder of its bundle and of node_modules.
export async function visit(page: Page, prometheus: string, home: string): Promise<void> {
  await page.route(`${prometheus}${BOARD}**`, (route) => serve(route, home));
  await page.goto(prometheus + BOARD);
}

async function serve(route: Route, home: string): Promise<void> {
  const path = new URL(route.request().url()).pathname.slice(BOARD.length);
  if (path === '') {
    return route.fulfill({ contentType: 'text/html', body: HTML });
  }
  const file = join(home, located(path));
  return existsSync(file) ? route.fulfill({ path: file }) : route.fulfill({ status: 404 });
}

function located(path: string): string {
  for (const [folder, origin] of PACKAGES) {
    if (path.startsWith(folder)) {
      return join('node_modules', origin.endsWith('/') ? origin + path.slice(folder.length) : origin);
    }
  }
  return join('dist', path);
}
