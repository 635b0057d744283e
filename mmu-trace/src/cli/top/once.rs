//! One snapshot as a plain table, for scripts.

use super::{
    column::Column,
    state::{Event, Figures, View},
};
use crate::{
    model::Snapshot,
    report::{Align, Table},
};

/// The means since tracing began: one line about the kernel and the data, then a table. Every cell but the
/// name is one word, so columns are best counted from the right.
pub(super) fn table(snapshot: &Snapshot) -> String {
    let mut view = View::new((0, 0));
    view.update(Event::Snapshot(Box::new(snapshot.clone())));
    let Some(Figures { summary, known, delta }) = &view.figures else { return String::new() };
    let align = |column: &Column| if *column == Column::Vm { Align::Text } else { Align::Number };
    let heads = Column::ALL.iter().map(|column| (head(*column, known.is_direct), align(column)));
    let mut table = Table::new(heads);
    for vm in view.rows() {
        table.row(Column::ALL.iter().map(|column| column.cell(vm, delta, known).plain()));
    }
    let rows = table.render_within("", usize::MAX);
    let rows = if rows.is_empty() { "No VM.\n".to_owned() } else { rows };
    format!("{}, {:.1} s, {}\n{rows}", summary.facts, delta.seconds, summary.verdict)
}

/// The head as one word.
fn head(column: Column, is_direct: bool) -> &'static str {
    match column {
        Column::Vcpu => "vCPU%",
        Column::Noop => "no-op%",
        _ => column.head(is_direct),
    }
}
