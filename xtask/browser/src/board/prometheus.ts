// The HTTP API of Prometheus.

export type Labels = Record<string, string>;
export type Sample = [seconds: number, value: string];

export interface Series {
  metric: Labels;
  values: Sample[];
}

// In seconds.
export interface Window {
  from: number;
  to: number;
}

export class Prometheus {
  constructor(private readonly url: string) {}

  // The samples at the end of `window`.
  async instant(query: string, window: Window): Promise<Series[]> {
    const data = await this.get('query', { query, time: String(window.to) });
    if (data.resultType === 'scalar') {
      return [{ metric: {}, values: [data.result] }];
    }
    return data.result.map(({ metric, value }: { metric: Labels; value: Sample }) => ({ metric, values: [value] }));
  }

  async range(query: string, window: Window, step: number): Promise<Series[]> {
    const { from, to } = window;
    const data = await this.get('query_range', { query, start: String(from), end: String(to), step: String(step) });
    return data.result;
  }

  async labelValues(label: string, match: string | undefined, window: Window): Promise<string[]> {
    const range = { start: String(window.from), end: String(window.to) };
    return this.get(`label/${label}/values`, match ? { 'match[]': match, ...range } : range);
  }

  private async get(path: string, parameters: Labels): Promise<any> {
    const answer = await fetch(`${this.url}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const body = await answer.json();
    if (body.status !== 'success') {
      throw new Error(`Prometheus refuses ${JSON.stringify(parameters)}: ${body.error}`);
    }
    return body.data;
  }
}
