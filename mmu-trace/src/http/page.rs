//! The page a person sees who opens the daemon's address.

use crate::{
    model::{HookState, Snapshot},
    report::{self, Mode, escape},
};

const STYLE: &str = include_str!("page.css");

/// The landing page: version, host, links, VMs and hooks, then the report as text. `server` is the name of
/// the machine that serves it; a replayed capture may be another's.
pub(super) fn landing(snapshot: &Snapshot, server: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\">\
         <title>mmu-trace on {server}</title><style>\n{STYLE}</style></head><body>\n\
         <h1>mmu-trace {version}</h1>\n\
         <nav><a href=\"/metrics\">/metrics</a> <a href=\"/healthz\">/healthz</a></nav>\n{facts}\n\
         <h2>VMs</h2>\n{vms}\n<h2>Hooks</h2>\n{hooks}\n<h2>Since the start</h2>\n<pre>{report}</pre>\n\
         </body></html>\n",
        server = escape(server),
        version = env!("CARGO_PKG_VERSION"),
        facts = facts(snapshot, server),
        vms = vms(snapshot),
        hooks = hooks(snapshot),
        report = escape(&report::text(snapshot)),
    )
}

/// Where, what and how well it is measured.
fn facts(snapshot: &Snapshot, server: &str) -> String {
    let host = &snapshot.host;
    let mode = if host.has_change_pte { Mode::Direct } else { Mode::Counterfactual };
    format!(
        "<dl><dt>Served by</dt><dd>{}</dd><dt>Kernel</dt><dd>{} {}</dd><dt>Mode</dt><dd>{}</dd>\
         <dt>Data</dt><dd>{}</dd></dl>",
        escape(server),
        escape(&host.kernel),
        escape(&host.arch),
        mode.label(),
        data(snapshot)
    )
}

/// Whether the figures are complete, and what they lack.
fn data(snapshot: &Snapshot) -> String {
    let (class, verdict) =
        if snapshot.quality.is_complete() { ("good", "complete") } else { ("bad", "incomplete") };
    let lacks = report::shortcomings(snapshot);
    let items: String = lacks.iter().map(|lack| format!("<li>{}</li>", escape(lack))).collect();
    let list = if items.is_empty() { items } else { format!("<ul>{items}</ul>") };
    format!("<span class=\"{class}\">{verdict}</span>{list}")
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
    format!("<div class=\"scroll\"><table><tr>{heads}</tr>\n{body}</table></div>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf;

    #[test]
    fn the_page_says_what_is_lacking() {
        let snapshot = bpf::waiting_snapshot("kvm is <not> loaded");
        let page = landing(&snapshot, "host<1>");
        assert!(page.contains("<dd>host&lt;1&gt;</dd>") && !page.contains("<not>"), "{page}");
        let lacks = report::shortcomings(&snapshot);
        assert!(!lacks.is_empty() && lacks.iter().all(|lack| page.contains(&escape(lack).to_string())));
        assert_eq!(page.contains(">incomplete<"), !snapshot.quality.is_complete());
    }
}
