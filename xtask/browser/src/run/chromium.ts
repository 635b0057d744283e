// Debian's Chromium, and what a page complains about.

import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';

const ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch(executablePath: string): Promise<Browser> {
  return chromium.launch({ executablePath, args: ARGUMENTS });
}

// A page, all that it asked for so far, and what it complained about.
export interface Watched {
  page: Page;
  complaints: string[];
  requests: string[];
}

export async function open(browser: Browser, options: BrowserContextOptions): Promise<Watched> {
  const page = await browser.newPage(options);
  const complaints: string[] = [];
  const requests: string[] = [];
  page.on('request', (request) => requests.push(request.url()));
  page.on('console', (message) => {
    if (['error', 'warning', 'assert'].includes(message.type())) {
      complaints.push(`console ${message.type()}: ${firstLine(message.text())}`);
    }
  });
  page.on('pageerror', (error) => complaints.push(`uncaught: ${firstLine(error.message)}`));
  page.on('requestfailed', (request) => complaints.push(`not loaded: ${request.url()}`));
  page.on('response', (response) => {
    if (response.status() >= 400) {
      complaints.push(`${response.status()} for ${response.url()}`);
    }
  });
  return { page, complaints, requests };
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}
