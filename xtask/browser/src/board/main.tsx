// The page: draws one dashboard from a Prometheus, then says what is wrong with it.

import './page.css';

import { createTheme, type GrafanaTheme2, ThemeContext } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { GlobalStyles } from '@grafana/ui';
import type { ReactNode } from 'react';
import { createRoot } from 'react-dom/client';
import { Board, type Loaded, rectangle } from './board';
import { type Dashboard, type Panel, unfolded } from './dashboard';
import { load, type Source } from './data';
import { type Finding, inspect } from './findings';
import { Prometheus, type Window } from './prometheus';
import { reason } from './silence';
import { resolve } from './variables';

export interface Order {
  dashboard: Dashboard;
  prometheus: string;
  window: Window;
  scrape: number;
  mode: 'dark' | 'light';
  width: number;
}

// Draws, and says what came of it as soon as the window is as high as the page: Chromium leaves out the
// cells of tables outside of it.
async function draw(order: Order): Promise<number> {
  await initPluginTranslations('mmu-trace');
  const theme = createTheme({ colors: { mode: order.mode } });
  const root = createRoot(document.body.appendChild(document.createElement('div')));
  root.render(<Styled theme={theme} />);
  await fonts();
  const prometheus = new Prometheus(order.prometheus);
  const values = await resolve(order.dashboard, prometheus, order.window);
  const names = await prometheus.labelValues('__name__', undefined, order.window);
  const source = { prometheus, window: order.window, scrape: order.scrape, values, names };
  panels = await Promise.all(
    unfolded(order.dashboard.panels).map((panel) => loaded(panel, source, order.width, theme)),
  );
  root.render(
    <Styled theme={theme}>
      <Board title={order.dashboard.title} panels={panels} window={order.window} theme={theme} width={order.width} />
    </Styled>,
  );
  await settled();
  return document.documentElement.scrollHeight;
}

let panels: Loaded[] = [];

async function look(): Promise<Finding[]> {
  await settled();
  return inspect(panels);
}

function Styled({ theme, children }: { theme: GrafanaTheme2; children?: ReactNode }) {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      {children}
    </ThemeContext.Provider>
  );
}

// Plots measure text before they draw it: the fonts have to be there first.
async function fonts() {
  await settled(50);
  const loaded = await Promise.all(['400 14px Inter', '500 14px Inter'].map((font) => document.fonts.load(font)));
  if (loaded.some(({ length }) => length === 0)) {
    throw new Error('the page has no font called Inter');
  }
}

async function loaded(panel: Panel, source: Source, width: number, theme: GrafanaTheme2): Promise<Loaded> {
  try {
    const frames = await load(panel, source, rectangle(panel.gridPos, width).width, theme);
    const filled = frames.filter(({ length }) => length > 0);
    return { panel, frames: filled, silence: filled.length > 0 ? undefined : await reason(panel, source) };
  } catch (error) {
    return { panel, frames: [], error: String(error) };
  }
}

// Plots measure themselves, then draw: a page that has not changed for a while is done.
async function settled(quiet = 500) {
  await new Promise<void>((done) => {
    let timer = setTimeout(done, quiet);
    new MutationObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(done, quiet);
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
}

declare global {
  interface Window {
    draw: typeof draw;
    look: typeof look;
  }
}
globalThis.window.draw = draw;
globalThis.window.look = look;
