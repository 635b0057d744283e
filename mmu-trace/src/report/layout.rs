//! Numbers, durations, tables and paragraphs of the text report. No line is wider than [`WIDTH`]
//! unless a single word is.

use mmu_trace_ebpf::kind::Cause;

/// The width of the text report, in characters.
pub(super) const WIDTH: usize = 100;

/// Text columns are not shortened below this.
const MIN_TEXT: usize = 8;

/// Between two columns.
const GAP: &str = "  ";

/// `n` with thousands separators.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `n` in at most seven characters, for tables.
pub(super) fn short_count(n: u64) -> String {
    let scaled = |unit: f64, name: char| format!("{:.2}{name}", n as f64 / unit);
    match n {
        0..1_000_000 => count(n),
        1_000_000..1_000_000_000 => scaled(1e6, 'M'),
        1_000_000_000..1_000_000_000_000 => scaled(1e9, 'G'),
        _ => scaled(1e12, 'T'),
    }
}

/// `part` of `whole` in per cent; only all of it is 100 %, only none of it is 0 %.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match part {
        _ if whole == 0 => "-".to_owned(),
        0 => "0 %".to_owned(),
        _ if part == whole => "100 %".to_owned(),
        _ => format!("{:.1} %", (100.0 * part as f64 / whole as f64).clamp(0.1, 99.9)),
    }
}

/// A duration of `ns` nanoseconds with a unit a person would choose.
#[must_use]
pub fn duration(ns: u64) -> String {
    const HOUR: f64 = 3600.0 * 1e9;
    const MINUTE: f64 = 60.0 * 1e9;
    let value = ns as f64;
    // Each unit ends where the next shorter one would round up to 1000.
    match value {
        v if v < 999.5 => format!("{ns} ns"),
        v if v < 999.95e3 => format!("{:.1} us", v / 1e3),
        v if v < 999.95e6 => format!("{:.1} ms", v / 1e6),
        v if v < 10.0 * MINUTE => format!("{:.1} s", v / 1e9),
        v if v < 2.0 * HOUR => format!("{:.0} min", v / MINUTE),
        v => format!("{:.1} h", v / HOUR),
    }
}

/// The same of seconds.
pub(super) fn seconds(seconds: f64) -> String {
    duration((seconds * 1e9).round().max(0.0) as u64)
}

/// `unknown`, or what `show` makes of the value.
pub(super) fn known<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "unknown".to_owned(), show)
}

/// `1 call`, `2 calls`.
#[must_use]
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A cause, with the caller behind `other` where that is known.
pub(crate) fn cause_with_caller(cause: Cause, caller: Option<&str>) -> String {
    match caller {
        Some(caller) => format!("{} ({caller})", cause.label()),
        None => cause.label().to_owned(),
    }
}

/// Untrusted text as it may reach a terminal: no control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `text` as a paragraph: the first line after `first`, the others after as many blanks.
pub(super) fn paragraph(first: &str, text: &str) -> String {
    let indent = first.chars().count();
    let mut out = first.to_owned();
    let mut column = indent;
    for word in words(text, WIDTH - indent) {
        let width = word.chars().count();
        if column > indent && column + 1 + width > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(&word);
        column += width;
    }
    out.push('\n');
    out
}

/// The words of `text`, those longer than a line cut.
fn words(text: &str, width: usize) -> impl Iterator<Item = String> {
    text.split_whitespace().flat_map(move |word| {
        let chars: Vec<char> = word.chars().collect();
        chars.chunks(width).map(String::from_iter).collect::<Vec<_>>()
    })
}

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text, shortened if the table would become too wide.
    Text,
    /// Numbers, never shortened.
    Number,
}

/// A column's head and alignment.
pub(crate) type Column = (&'static str, Align);

/// Rows under a head line.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of `columns` without rows.
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row; cells are made printable.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// Heads and alignments.
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows.
    pub(super) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The table as lines, each after `indent`; nothing if there is no row.
    pub(crate) fn render(&self, indent: &str) -> String {
        self.render_within(indent, WIDTH)
    }

    /// The same for another width.
    pub(crate) fn render_within(&self, indent: &str, width: usize) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let widths = self.widths(width.saturating_sub(indent.len()));
        let heads: Vec<String> = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        std::iter::once(&heads).chain(&self.rows).map(|row| self.line(indent, &widths, row)).collect()
    }

    fn widths(&self, room: usize) -> Vec<usize> {
        let widest =
            |i: usize| self.rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max();
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (head, _))| head.len().max(widest(i).unwrap_or(0)))
            .collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > room && self.shorten_widest_text(&mut widths) {}
        widths
    }

    /// Takes one character from the widest text column; false if none can give one.
    fn shorten_widest_text(&self, widths: &mut [usize]) -> bool {
        let texts = widths.iter_mut().zip(&self.columns).filter(|(_, (_, align))| *align == Align::Text);
        match texts.map(|(width, _)| width).filter(|width| **width > MIN_TEXT).max() {
            Some(width) => {
                *width -= 1;
                true
            }
            None => false,
        }
    }

    fn line(&self, indent: &str, widths: &[usize], row: &[String]) -> String {
        let cells =
            row.iter().zip(widths).zip(&self.columns).map(|((cell, &width), (_, align))| match align {
                Align::Text => format!("{:<width$}", shorten(cell, width)),
                Align::Number => format!("{cell:>width$}"),
            });
        let line = format!("{indent}{}", cells.collect::<Vec<_>>().join(GAP));
        format!("{}\n", line.trim_end())
    }
}

/// `text` in at most `width` characters.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        assert_eq!(
            [0, 999, 1_000, 17_601, 1_234_567].map(count),
            ["0", "999", "1,000", "17,601", "1,234,567"]
        );
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert!(short_count(u64::MAX / 100_000).len() <= 9);
    }

    #[test]
    fn per_cent_never_rounds_to_all_or_nothing() {
        assert_eq!(percent(17_601, 17_601), "100 %");
        assert_eq!(percent(99_999, 100_000), "99.9 %");
        assert_eq!(percent(1, 1_000_000), "0.1 %");
        assert_eq!((percent(0, 5), percent(0, 0)), ("0 %".to_owned(), "-".to_owned()));
    }

    #[test]
    fn durations_choose_their_unit() {
        let cases: [(u64, &str); 7] = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_500, "1.5 us"),
            (999_960, "1.0 ms"),
            (30_000_000_000, "30.0 s"),
            (900_000_000_000, "15 min"),
            (36_000_000_000_000, "10.0 h"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn a_table_with_a_long_name_stays_in_its_width() {
        let mut table = Table::new([("VM", Align::Text), ("calls", Align::Number)]);
        table.row(["x".repeat(300), "17,601".to_owned()]);
        assert!(table.render("  ").lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let mut table = Table::new([("VM", Align::Text)]);
        table.row(["a\x1b[31mb\nc".to_owned()]);
        assert_eq!(table.render(""), "VM\na\u{fffd}[31mb\u{fffd}c\n");
    }
}
