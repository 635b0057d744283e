//! What stands above the table: the kernel, the mode, and how far the figures can be trusted.

use crate::{
    model::{HookState, Snapshot},
    report::{lacking, printable, shortcomings},
};

/// Most lines it takes.
const MAX_LINES: u16 = 4;

/// The first line, in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Kernel and mode.
    pub(super) facts: String,
    /// Whether the data is complete, or what is missing.
    pub(super) verdict: String,
    /// Whether the verdict is a warning.
    pub(super) is_warning: bool,
}

impl Summary {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let host = &snapshot.host;
        let mode = if host.has_change_pte { "direct" } else { "counterfactual" };
        let facts = printable(&format!("{} {}, {mode}", host.kernel, host.arch));
        if let Some(reason) = untraced(snapshot) {
            return Self { facts, verdict: printable(&reason), is_warning: true };
        }
        let missing = missing(snapshot);
        let (verdict, is_warning) = match (snapshot.quality.is_complete(), missing.as_str()) {
            (true, "") => ("data complete".to_owned(), false),
            (true, missing) => (format!("counters complete: {missing}"), true),
            (false, missing) => (format!("INCOMPLETE: {missing}"), true),
        };
        Self { facts, verdict: printable(&verdict), is_warning }
    }

    /// Before there are any figures.
    pub(super) fn waiting() -> Self {
        let verdict = "the first figures come after one interval".to_owned();
        Self { facts: "mmu-trace top".to_owned(), verdict, is_warning: false }
    }

    /// With the news that there are no newer figures, and why.
    pub(super) fn failed(self, why: &str) -> Self {
        Self { verdict: printable(why), is_warning: true, ..self }
    }

    /// Lines that it takes on a screen of this width.
    pub(super) fn height(&self, width: u16) -> u16 {
        n_lines(&format!("{}, {}", self.facts, self.verdict), width).min(MAX_LINES)
    }
}

/// Lines that `text` takes when it is broken between words.
fn n_lines(text: &str, width: u16) -> u16 {
    let (width, mut lines, mut column) = (usize::from(width.max(1)), 1_u16, 0);
    for word in text.split_whitespace().map(|word| word.chars().count()) {
        if column > 0 && column + 1 + word > width {
            lines = lines.saturating_add(1);
            column = 0;
        }
        column += word + usize::from(column > 0);
        lines = lines.saturating_add(u16::try_from(column.saturating_sub(1) / width).unwrap_or(u16::MAX));
        column = if column > width { column % width } else { column };
    }
    lines
}

/// Why nothing at all is traced, if so.
fn untraced(snapshot: &Snapshot) -> Option<String> {
    let hooks = &snapshot.quality.hooks;
    if hooks.iter().any(|hook| hook.state == HookState::Attached) {
        return None;
    }
    hooks.first().and_then(|hook| hook.reason.clone())
}

fn missing(snapshot: &Snapshot) -> String {
    let unknown: Vec<&str> = lacking(snapshot).map(|(figure, _)| figure.label()).collect();
    let unknown =
        (!unknown.is_empty()).then(|| format!("unknown: {} (see mmu-trace doctor)", unknown.join(", ")));
    shortcomings(snapshot).into_iter().chain(unknown).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf;

    #[test]
    fn without_kvm_the_reason_is_said_once() {
        let snapshot = bpf::waiting_snapshot("kvm is not loaded; the tracer waits for it");
        let summary = Summary::of(&snapshot);
        assert_eq!(summary.verdict, "kvm is not loaded; the tracer waits for it");
        assert!(summary.is_warning);
    }

    #[test]
    fn a_summary_takes_the_lines_it_needs() {
        assert_eq!((n_lines("", 10), n_lines("abc def", 7), n_lines("abc def", 6)), (1, 1, 2));
        assert_eq!(n_lines("abcdefghij", 4), 3);
    }
}
