//! Panels: what is asked, and how the answer is drawn.

mod json;

pub(super) use self::json::datasource;
use super::promql::Expr;

/// In which captures a query must find something; `cargo xtask dashboards --live` holds it to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// In every one.
    Always,
    /// In those of kernels with `change_pte`, and in no other.
    Direct,
    /// In those of kernels without it, because only such recent ones have it.
    Recent,
    /// In some: it tells of moments in which there is nothing.
    Maybe,
    /// In none, for the reason given.
    Never(&'static str),
}

/// One query.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// What is asked.
    pub(super) expr: Expr,
    /// Its name in the panel; labels stand in `{{braces}}`.
    pub(super) legend: String,
    /// Where it must find something.
    pub(super) expect: Expect,
}

/// How the answer is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Large values.
    Stat,
    /// Values beside their names, with bars.
    Bars,
    /// Lines over time.
    Lines,
    /// Areas over time, one on the other: parts of a whole.
    Stack,
    /// A table of the last values; each query is a column.
    Table,
}

/// Where a value changes its colour.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limits {
    /// Nowhere: no value is good or bad by itself.
    None,
    /// Green below both, yellow from the first and red from the second on.
    Above(f64, f64),
    /// Red from this on, green below.
    Bad(f64),
    /// Green from this on, red below.
    Good(f64),
}

/// A column of a table: a label, or the value of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// The label, or `Value #A`.
    pub(super) field: &'static str,
    /// What stands above it.
    pub(super) title: &'static str,
    /// The unit of its values.
    pub(super) unit: &'static str,
    /// When its values change colour.
    pub(super) limits: Limits,
    /// Pixels; 0 for what is left.
    pub(super) width: u32,
}

impl Column {
    /// A label.
    pub(super) const fn label(field: &'static str, title: &'static str, width: u32) -> Self {
        Self { field, title, unit: "string", limits: Limits::None, width }
    }

    /// The value of a query.
    pub(super) const fn value(field: &'static str, title: &'static str, unit: &'static str) -> Self {
        Self { field, title, unit, limits: Limits::None, width: 0 }
    }

    /// With values that change colour.
    pub(super) const fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// With a fixed width.
    pub(super) const fn wide(self, width: u32) -> Self {
        Self { width, ..self }
    }
}

/// One panel.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) kind: Kind,
    pub(super) title: &'static str,
    /// What good and what bad look like.
    pub(super) description: &'static str,
    pub(super) unit: &'static str,
    /// Columns of 24.
    pub(super) width: u32,
    /// Rows of the grid.
    pub(super) height: u32,
    pub(super) targets: Vec<Target>,
    pub(super) limits: Limits,
    /// Values that have a name, with their colours.
    pub(super) names: &'static [(&'static str, &'static str, &'static str)],
    /// What stands there without data.
    pub(super) no_value: &'static str,
    /// Of a table.
    pub(super) columns: Vec<Column>,
    /// Where a click on a VM leads.
    pub(super) link: Option<&'static str>,
    /// Whether values below 0 mean something.
    pub(super) is_signed: bool,
    /// Digits behind the point; Grafana chooses without.
    decimals: Option<u32>,
}

impl Panel {
    /// A panel of its kind's usual size.
    pub(super) fn new(
        kind: Kind,
        title: &'static str,
        unit: &'static str,
        description: &'static str,
    ) -> Self {
        let (width, height) = match kind {
            Kind::Stat => (4, 4),
            Kind::Bars => (8, 6),
            Kind::Lines | Kind::Stack => (12, 8),
            Kind::Table => (24, 8),
        };
        Self {
            kind,
            title,
            description,
            unit,
            width,
            height,
            targets: Vec::new(),
            limits: Limits::None,
            names: &[],
            no_value: "",
            columns: Vec::new(),
            link: None,
            is_signed: false,
            decimals: None,
        }
    }

    /// With one more query, which every capture must answer.
    pub(super) fn ask(self, legend: &str, expr: Expr) -> Self {
        self.ask_if(Expect::Always, legend, expr)
    }

    /// With one more query, which only some captures can answer.
    pub(super) fn ask_if(mut self, expect: Expect, legend: &str, expr: Expr) -> Self {
        self.targets.push(Target { expr, legend: legend.to_owned(), expect });
        self
    }

    /// With the parts of a whole that are not 0; while all are, a line at 0 says so.
    pub(super) fn ask_parts(self, expect: Expect, legend: &str, parts: Expr) -> Self {
        let nothing = parts.clone().sum().equal(0.0);
        self.ask_if(expect, legend, parts.above(0.0)).ask_if(Expect::Maybe, "none", nothing)
    }

    /// With these columns, in this order; other fields are hidden.
    pub(super) fn columns(mut self, columns: &[Column]) -> Self {
        self.columns = columns.to_vec();
        self
    }

    /// With another size.
    pub(super) fn size(mut self, width: u32, height: u32) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    /// With values that change colour.
    pub(super) fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With words and colours for some values.
    pub(super) fn names(mut self, names: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        self.names = names;
        self
    }

    /// With what stands there without data.
    pub(super) fn or_say(mut self, text: &'static str) -> Self {
        self.no_value = text;
        self
    }

    /// With an axis that may go below 0.
    pub(super) fn signed(mut self) -> Self {
        self.is_signed = true;
        self
    }

    /// With counts, which `increase()` makes fractions of.
    pub(super) fn whole(mut self) -> Self {
        self.decimals = Some(0);
        self
    }

    /// With a page that a click on a VM's name opens.
    pub(super) fn link(mut self, url: &'static str) -> Self {
        self.link = Some(url);
        self
    }

    /// Whether only the last value matters.
    pub(super) const fn is_instant(&self) -> bool {
        !matches!(self.kind, Kind::Lines | Kind::Stack)
    }
}
