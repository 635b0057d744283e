//! The page a person sees who opens the daemon's address.

use crate::{
    model::{HookState, Snapshot},
    report::{self, escape},
};

const STYLE: &str = "body{font:15px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
    pre{overflow-x:auto;background:#f4f4f4;padding:1em}td,th{text-align:left;padding:0 1em 0 0}";

/// The landing page: version, host, links, VMs and hooks, then the report as text.
pub(super) fn landing(snapshot: &Snapshot) -> String {
    let host = &snapshot.host;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>mmu-trace</title>\
         <style>{STYLE}</style></head><body>\n<h1>mmu-trace {version}</h1>\n\
         <p>Kernel {kernel}, {arch}. <a href=\"/metrics\">/metrics</a> <a href=\"/healthz\">/healthz</a></p>\n\
         <h2>VMs</h2>\n{vms}\n<h2>Hooks</h2>\n{hooks}\n<h2>Since the start</h2>\n<pre>{report}</pre>\n\
         </body></html>\n",
        version = env!("CARGO_PKG_VERSION"),
        kernel = escape(&host.kernel),
        arch = escape(&host.arch),
        vms = vms(snapshot),
        hooks = hooks(snapshot),
        report = escape(&report::text(snapshot)),
    )
}

fn vms(snapshot: &Snapshot) -> String {
    let alive = snapshot.vms.iter().filter(|vm| vm.alive).map(|vm| &vm.identity);
    let rows = alive.map(|id| {
        let pid = if id.pid == 0 { "unknown".to_owned() } else { id.pid.to_string() };
        vec![id.name.clone(), pid, id.vmm.clone(), id.uuid.clone().unwrap_or_default()]
    });
    table(&["name", "pid", "VMM", "uuid"], rows, "None is running.")
}

fn hooks(snapshot: &Snapshot) -> String {
    let rows = snapshot.quality.hooks.iter().map(|hook| {
        let state = match hook.state {
            HookState::Attached => "attached",
            HookState::Absent => "absent",
            HookState::Failed => "failed",
        };
        let reason = hook.reason.clone().unwrap_or_default();
        vec![
            hook.hook.clone(),
            hook.symbol.clone(),
            hook.backend.label().to_owned(),
            state.to_owned(),
            reason,
        ]
    });
    table(&["hook", "symbol", "backend", "state", "reason"], rows, "None.")
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>, none: &str) -> String {
    let cells =
        |row: Vec<String>| row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect::<String>();
    let body: String = rows.map(|row| format!("<tr>{}</tr>\n", cells(row))).collect();
    if body.is_empty() {
        return format!("<p>{none}</p>");
    }
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    format!("<table><tr>{heads}</tr>\n{body}</table>")
}
