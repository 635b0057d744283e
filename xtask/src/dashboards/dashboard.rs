//! A dashboard: rows of panels that flow over the grid, variables, and links to the other dashboards.

use serde_json::{Value, json};

use super::{
    panel::{Panel, datasource},
    promql::{Expr, Selector},
};
use mmu_trace::metrics::table;

/// Columns of Grafana's grid.
pub(super) const COLUMNS: u32 = 24;

/// Every dashboard's file name, which makes its uid, and what links to it say.
pub(super) const PAGES: &[(&str, &str)] =
    &[("fleet", "Fleet"), ("host", "Host"), ("vm", "VM"), ("self", "The tracer itself")];

/// Whom a query is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The chosen hosts.
    Host,
    /// The chosen VM on them.
    Vm,
    /// All there are: recording rules and alerts.
    All,
}

impl Scope {
    /// A counter or gauge.
    pub(super) fn of(self, series: &table::Series) -> Selector {
        self.narrow(Selector::of(series))
    }

    /// The buckets of a histogram.
    pub(super) fn buckets(self, series: &table::Series) -> Selector {
        self.narrow(Selector::buckets(series))
    }

    /// Any series.
    pub(super) fn narrow(self, selector: Selector) -> Selector {
        match self {
            Self::Host => selector.like("job", "$job").like("instance", "$instance"),
            Self::Vm => selector.like("job", "$job").like("instance", "$instance").is("domain", "$domain"),
            Self::All => selector,
        }
    }
}

/// A heading and what stands below it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Panel>,
}

/// One dashboard.
#[derive(Clone, Debug)]
pub(super) struct Dashboard {
    /// One of [`PAGES`].
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// Whether it is about one VM, to be chosen.
    pub(super) has_domain: bool,
    pub(super) rows: Vec<Row>,
}

impl Dashboard {
    /// Every panel.
    pub(super) fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    /// What Grafana imports.
    pub(super) fn json(&self) -> Value {
        let title = PAGES.iter().find(|(name, _)| *name == self.name).map_or(self.name, |(_, title)| title);
        json!({
            "uid": uid(self.name),
            "title": format!("mmu-trace: {title}"),
            "description": self.description,
            "tags": ["mmu-trace", "kvm", "ksm"],
            "schemaVersion": 39,
            "version": 1,
            "editable": true,
            "timezone": "browser",
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "annotations": {"list": []},
            "templating": {"list": self.variables()},
            "links": self.links(),
            "panels": self.flow(),
        })
    }

    /// Panels from left to right; one that does not fit begins the next line.
    fn flow(&self) -> Vec<Value> {
        let mut flow = Flow::default();
        for row in &self.rows {
            flow.heading(row.title);
            row.panels.iter().for_each(|panel| flow.panel(panel));
        }
        flow.placed
    }

    fn links(&self) -> Vec<Value> {
        let others = PAGES.iter().filter(|(name, _)| *name != self.name);
        let link = |(name, title): &(&str, &str)| {
            json!({
                "type": "link", "title": title, "url": format!("/d/{}", uid(name)), "icon": "dashboard",
                "tooltip": "", "tags": [], "asDropdown": false, "targetBlank": false,
                "includeVars": true, "keepTime": true,
            })
        };
        others.map(link).collect()
    }

    fn variables(&self) -> Vec<Value> {
        let info = Selector::of(&table::BUILD_INFO);
        let mut variables = vec![
            json!({
                "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
                "current": {},
            }),
            variable("job", "Job", Choice::Any, &info.value()),
            variable("instance", "Host", Choice::Any, &info.like("job", "$job").value()),
        ];
        if self.has_domain {
            let vms = Scope::Host.of(&table::VM_INFO).value();
            variables.push(variable("domain", "VM", Choice::One, &vms));
        }
        variables
    }
}

/// How many values of a variable may be chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    One,
    Any,
}

/// A variable with the values that the label of its name has in `series`.
fn variable(name: &str, label: &str, choice: Choice, series: &Expr) -> Value {
    assert!(series.has_label(name), "{} has no label {name}", series.text());
    let query = format!("label_values({}, {name})", series.text());
    let is_any = choice == Choice::Any;
    let all = json!({"text": ["All"], "value": ["$__all"]});
    json!({
        "name": name,
        "label": label,
        "type": "query",
        "datasource": datasource(),
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": is_any,
        "includeAll": is_any,
        "allValue": if is_any { json!(".*") } else { Value::Null },
        "current": if is_any { all } else { json!({}) },
    })
}

/// How links and Grafana know a dashboard.
pub(super) fn uid(name: &str) -> String {
    format!("mmu-trace-{name}")
}

/// Where the next panel goes.
#[derive(Default)]
struct Flow {
    placed: Vec<Value>,
    x: u32,
    y: u32,
    /// Of the highest panel of this line.
    height: u32,
}

impl Flow {
    fn heading(&mut self, title: &str) {
        self.next_line();
        let id = self.placed.len() + 1;
        let position = json!({"x": 0, "y": self.y, "w": COLUMNS, "h": 1});
        let row = json!({
            "id": id, "type": "row", "title": title, "collapsed": false, "panels": [], "gridPos": position,
        });
        self.placed.push(row);
        self.y += 1;
    }

    fn panel(&mut self, panel: &Panel) {
        if self.x + panel.width > COLUMNS {
            self.next_line();
        }
        self.placed.push(panel.json(self.placed.len() + 1, (self.x, self.y)));
        self.x += panel.width;
        self.height = self.height.max(panel.height);
    }

    fn next_line(&mut self) {
        self.y += self.height;
        (self.x, self.height) = (0, 0);
    }
}
