//! The figures for a reader.

use std::fmt::Write as _;

use xtask::figure::Figure;

use super::{Verdict, verdict_on};

/// One line a figure, with its budget; then the budgets that do not hold, with the reason.
pub(super) fn render(figures: &[Figure], verdicts: &[Verdict]) -> String {
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for figure in figures {
        let verdict = verdict_on(verdicts, &figure.name);
        let budget = verdict.map_or(String::new(), |verdict| {
            let mark = if verdict.holds() { "" } else { "  EXCEEDED" };
            format!("  ({}){mark}", verdict.limit)
        });
        let value = number(figure.value);
        _ = writeln!(text, "{:width$}  {value:>12} {:<12}{budget}", figure.name, figure.unit);
    }
    for verdict in verdicts.iter().filter(|verdict| !verdict.holds()) {
        let fault = verdict.fault.as_deref().unwrap_or_default();
        _ = writeln!(text, "FAILED {}: {fault} ({})", verdict.figure, verdict.limit);
    }
    text
}

/// A number with as many digits as mean something.
pub(super) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        grouped(value)
    } else if value.abs() >= 100.0 {
        grouped(value.round())
    } else if value.abs() >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// A whole number with separators.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        let texts = [1_234_567.0, 1_234.4, 12.345, 0.001_23, -1_000.0].map(number);
        assert_eq!(texts, ["1,234,567", "1,234", "12.35", "0.0012", "-1,000"]);
    }
}
