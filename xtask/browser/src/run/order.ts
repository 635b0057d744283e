// What is to be looked at: the first argument of the program, as JSON.

export interface Order {
  // Where screenshots go.
  out: string;
  // Programs.
  chromium: string;
  prometheus: string;
  mmuTrace: string;
  tmux: string;
  captures: Capture[];
  // Paths of dashboards.
  dashboards: string[];
  // Paths of Prometheus' recording rules.
  rules: string[];
}

export interface Capture {
  // What stands for the host in dashboards and in names of files.
  name: string;
  path: string;
}
