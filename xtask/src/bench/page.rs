//! `docs/performance.md`: the figures of one run of the bench, with their budgets and how they were taken.
//!
//! The page is all that is kept of a run; the README quotes it. What can be checked later without measuring again
//! is checked: that both say what the page's own figures come to, with the budgets of today.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use xtask::figure::Figure;

use super::{Budgets, table::number, verdict_on};
use crate::tools;

/// A part of the page: the first word of the names of its figures, its heading, what there is to say.
struct Chapter {
    part: &'static str,
    heading: &'static str,
    text: &'static str,
}

const HEAD: &str = include_str!("performance/head.md");
const TAIL: &str = include_str!("performance/tail.md");

const CHAPTERS: &[Chapter] = &[
    Chapter { part: "lab", heading: "In the kernel", text: include_str!("performance/lab.md") },
    Chapter { part: "native", heading: "A hook call", text: include_str!("performance/native.md") },
    Chapter { part: "recording", heading: "Recording", text: include_str!("performance/recording.md") },
    Chapter { part: "reading", heading: "Reading a capture", text: include_str!("performance/reading.md") },
    Chapter { part: "scrape", heading: "A scrape", text: include_str!("performance/scrape.md") },
    Chapter { part: "start", heading: "Starting", text: include_str!("performance/start.md") },
];

/// What the README quotes, with names of figures in braces.
const QUOTE: &str = include_str!("performance/readme.md");
/// What stands before and behind the quote.
const MARKS: [&str; 2] =
    ["<!-- From docs/performance.md, by `cargo xtask bench --write`. -->\n", "<!-- End. -->\n"];

fn path() -> Result<PathBuf> {
    Ok(tools::repository()?.join("docs/performance.md"))
}

fn readme() -> Result<PathBuf> {
    Ok(tools::repository()?.join("README.md"))
}

/// Writes the page from the figures of a whole run.
pub(super) fn write(figures: &[Figure], budgets: &Budgets) -> Result<()> {
    let page = render(figures, budgets)?;
    // As the page shows them: rounded.
    let readme_text = with_quote(&load(&readme()?)?, &parse(&page)?)?;
    for (path, text) in [(path()?, page), (readme()?, readme_text)] {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Checks the committed page and the README: nobody wrote figures by hand, and the budgets are today's.
pub(super) fn check() -> Result<()> {
    let page = load(&path()?)?;
    let figures = parse(&page)?;
    let readme_text = load(&readme()?)?;
    let expected = render(&figures, &Budgets::load()?)?;
    let expected_readme = with_quote(&readme_text, &figures)?;
    for (path, text, expected) in [(path()?, page, expected), (readme()?, readme_text, expected_readme)] {
        ensure!(text == expected, "{} is not what `cargo xtask bench --write` would write", path.display());
        println!("{}: as the figures say", path.display());
    }
    Ok(())
}

fn load(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The README with the quote of these figures.
fn with_quote(readme: &str, figures: &[Figure]) -> Result<String> {
    let [begin, end] = MARKS;
    let (before, rest) = readme.split_once(begin).context("the README has no place for figures")?;
    let (_, after) = rest.split_once(end).context("the README's figures have no end")?;
    Ok([before, begin, &quote(QUOTE, figures)?, end, after].concat())
}

/// `text` with each name in braces replaced by the figure.
fn quote(text: &str, figures: &[Figure]) -> Result<String> {
    let mut quoted = String::new();
    let mut rest = text;
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        let figure = figures.iter().find(|figure| figure.name == name);
        let figure = figure.with_context(|| format!("no figure is called {name}"))?;
        write!(quoted, "{before}{} {}", number(figure.value), figure.unit)?;
        rest = after;
    }
    Ok(quoted + rest)
}

fn render(figures: &[Figure], budgets: &Budgets) -> Result<String> {
    let mut page = HEAD.to_owned();
    let mut n_shown = 0;
    for chapter in CHAPTERS {
        let prefix = format!("{}/", chapter.part);
        let own: Vec<&Figure> = figures.iter().filter(|figure| figure.name.starts_with(&prefix)).collect();
        if own.is_empty() {
            continue;
        }
        n_shown += own.len();
        write!(page, "\n## {}\n\n{}\n", chapter.heading, quote(chapter.text, figures)?)?;
        write_table(&mut page, &own, figures, budgets)?;
    }
    ensure!(n_shown == figures.len(), "figures that belong to no chapter");
    Ok(page + "\n" + TAIL)
}

fn write_table(page: &mut String, own: &[&Figure], all: &[Figure], budgets: &Budgets) -> Result<()> {
    let verdicts = budgets.judge(all, false);
    let mut methods: Vec<&str> = Vec::new();
    page.push_str("| figure | value | unit | budget | how |\n|---|--:|---|---|---|\n");
    for figure in own {
        let index = methods.iter().position(|method| *method == figure.method).unwrap_or_else(|| {
            methods.push(&figure.method);
            methods.len() - 1
        });
        let budget = verdict_on(&verdicts, &figure.name).map_or("", |verdict| &verdict.limit);
        let (name, value, unit) = (&figure.name, number(figure.value), &figure.unit);
        writeln!(page, "| {name} | {value} | {unit} | {budget} | {} |", index + 1)?;
    }
    page.push('\n');
    for (index, method) in methods.iter().enumerate() {
        writeln!(page, "{}. {method}", index + 1)?;
    }
    Ok(())
}

/// The figures that a page shows.
fn parse(page: &str) -> Result<Vec<Figure>> {
    let mut figures: Vec<Figure> = Vec::new();
    // Those of the table that was read last, whose methods follow it.
    let mut open = 0;
    for line in page.lines() {
        if let Some((name, value, unit, method)) = row(line) {
            figures.push(Figure { name, value, unit, method });
        } else if line.starts_with("| figure |") {
            open = figures.len();
        } else if let Some((index, method)) =
            line.split_once(". ").filter(|(index, _)| index.parse::<u32>().is_ok())
        {
            for figure in figures.iter_mut().skip(open).filter(|figure| figure.method == index) {
                method.clone_into(&mut figure.method);
            }
        }
    }
    if figures.is_empty() {
        bail!("the page has no figures");
    }
    Ok(figures)
}

/// A row of a table of figures; the method is still a number.
fn row(line: &str) -> Option<(String, f64, String, String)> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let [name, value, unit, _, method] = cells.as_slice() else { return None };
    Some(((*name).to_owned(), value.replace(',', "").parse().ok()?, (*unit).to_owned(), (*method).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_its_figures_make() {
        let figures = [
            Figure::new("scrape/2 VMs/time", 1234.56, "ms", "with a clock"),
            Figure::new("scrape/2 VMs/series", 2_000.0, "series", "counted"),
            Figure::new("start/own CPU", 0.123_456, "ms", "with a clock"),
        ];
        let budgets = Budgets::load().unwrap();
        let page = render(&figures, &budgets).unwrap();
        let parsed = parse(&page).unwrap();
        assert_eq!(parsed.len(), 3);
        assert_eq!((parsed[0].value, parsed[2].method.as_str()), (1_235.0, "with a clock"));
        assert_eq!(render(&parsed, &budgets).unwrap(), page);
        assert!(render(&[Figure::new("else/x", 1.0, "ms", "")], &budgets).is_err());
    }

    #[test]
    fn figures_are_quoted_by_name() {
        let figures = [Figure::new("a/b c", 1_500.0, "B", "")];
        assert_eq!(quote("it takes {a/b c}, no more\n", &figures).unwrap(), "it takes 1,500 B, no more\n");
        assert!(quote("{a}", &figures).is_err());
    }
}
