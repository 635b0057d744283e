//! Every dashboard asks only for series and labels that the metric table has.

use std::{fs, path::Path};

use mmu_trace::metrics::table::{ALL, Kind};
use serde_json::Value;

/// Labels that the scraper adds to every series.
const SCRAPER_LABELS: &[&str] = &["job", "instance"];

/// What our series start with; others in a query are of other exporters.
const PREFIX: &str = "mmu_trace_";

/// Keywords with a list of labels in parentheses behind them, which speak of the group beside them.
const GROUPING: &[&str] = &["by", "without"];

/// The same, but for labels of either side of an operator.
const MATCHING: &[&str] = &["on", "ignoring", "group_left", "group_right"];

/// A part of a query. String literals hold label values and variables, never names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Text,
    Symbol(char),
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn tokens(query: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let (token, len) = match first {
            '"' => (Some(Token::Text), rest[1..].find('"').expect("a string is closed") + 2),
            c if is_word(c) => {
                let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (Some(Token::Word(&rest[..len])), len)
            }
            c => ((!c.is_whitespace()).then_some(Token::Symbol(c)), c.len_utf8()),
        };
        tokens.extend(token);
        rest = &rest[len..];
    }
    tokens
}

/// The parenthesised or braced group that starts at `open`, without its ends.
fn group<'t, 'a>(tokens: &'t [Token<'a>], open: usize) -> &'t [Token<'a>] {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Symbol('(' | '{') => depth += 1,
            Token::Symbol(')' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &tokens[(open + 1).min(at)..at];
        }
    }
    panic!("a group is not closed: {tokens:?}");
}

/// The group that ends right before `end`.
fn group_before<'t, 'a>(tokens: &'t [Token<'a>], end: usize) -> &'t [Token<'a>] {
    let opens = (0..end).filter(|&at| tokens[at] == Token::Symbol('('));
    let mut spans = opens.map(|open| (open, group(tokens, open).len()));
    let open = spans.find(|&(open, len)| open + len + 2 == end).expect("a group stands before `by`").0;
    group(tokens, open)
}

fn words<'a>(tokens: &[Token<'a>]) -> impl Iterator<Item = &'a str> {
    tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(*word),
        _ => None,
    })
}

fn metrics_in<'a>(tokens: &[Token<'a>]) -> impl Iterator<Item = &'a str> {
    words(tokens).filter(|word| word.starts_with(PREFIX))
}

/// The labels of the series called `name`; `None` if nothing of that name is exposed.
fn labels_of(name: &str) -> Option<Vec<&'static str>> {
    let with = |suffix: &str| name.strip_suffix(suffix);
    let plain = ALL.iter().find(|series| series.name == name && series.kind != Kind::Histogram);
    let histogram = ["_bucket", "_sum", "_count"]
        .into_iter()
        .filter_map(with)
        .find_map(|base| ALL.iter().find(|series| series.name == base && series.kind == Kind::Histogram));
    let own = plain.or(histogram)?.labels;
    let bucket: &[&str] = if name.ends_with("_bucket") { &["le"] } else { &[] };
    Some([own, bucket, SCRAPER_LABELS].concat())
}

fn has_label(metric: &str, label: &str) -> bool {
    // An unknown metric is told once, not for each of its labels.
    labels_of(metric).is_none_or(|labels| labels.contains(&label))
}

/// Labels that a query names, and the metrics that must have them.
struct Use<'a> {
    labels: Vec<&'a str>,
    metrics: Vec<&'a str>,
    /// Whether one of the metrics suffices.
    any: bool,
}

impl<'a> Use<'a> {
    /// What the word at `at` with a group behind it names; `None` if that is no list of labels.
    fn at(tokens: &[Token<'a>], at: usize) -> Option<Self> {
        let (Token::Word(word), Token::Symbol(open @ ('(' | '{'))) = (tokens[at], *tokens.get(at + 1)?)
        else {
            return None;
        };
        let inside = group(tokens, at + 1);
        let labels = words(inside).collect();
        let all = |metrics: &[Token<'a>]| metrics_in(metrics).collect();
        Some(match word {
            _ if open == '{' => Self { labels, metrics: all(&tokens[at..=at]), any: false },
            _ if GROUPING.contains(&word) => {
                Self { labels, metrics: all(grouped(tokens, at, at + 3 + inside.len())), any: false }
            }
            _ if MATCHING.contains(&word) => Self { labels, metrics: all(tokens), any: true },
            "label_values" => {
                Self { labels: words(inside).last().into_iter().collect(), metrics: all(inside), any: false }
            }
            _ => return None,
        })
    }

    fn problems(&self) -> impl Iterator<Item = String> {
        let is_ok = |label: &str| {
            let mut has = self.metrics.iter().map(|metric| has_label(metric, label));
            if self.any { has.any(|has| has) } else { has.all(|has| has) }
        };
        let wrong = self.labels.iter().filter(move |label| !is_ok(label));
        wrong.map(|label| format!("{} has no label {label}", self.metrics.join(", ")))
    }
}

/// What a `by (...)` at `at` groups: the parentheses at `behind` or, if none are there, those before it.
fn grouped<'t, 'a>(tokens: &'t [Token<'a>], at: usize, behind: usize) -> &'t [Token<'a>] {
    match tokens.get(behind) {
        Some(Token::Symbol('(')) => group(tokens, behind),
        _ => group_before(tokens, at),
    }
}

/// What is wrong with `query`, in words.
fn problems(query: &str) -> Vec<String> {
    let tokens = tokens(query);
    let unknown = metrics_in(&tokens).filter(|name| labels_of(name).is_none());
    let unknown: Vec<String> = unknown.map(|name| format!("{name} does not exist")).collect();
    let uses: Vec<Use<'_>> = (0..tokens.len()).filter_map(|at| Use::at(&tokens, at)).collect();
    unknown.into_iter().chain(uses.iter().flat_map(Use::problems)).collect()
}

/// Every object in `value`, itself included.
fn objects(value: &Value) -> Vec<&Value> {
    let children: Vec<&Value> = match value {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    let own = value.is_object().then_some(value);
    own.into_iter().chain(children.into_iter().flat_map(objects)).collect()
}

/// The names in `{{label}}` of a legend.
fn legend_labels(legend: &str) -> impl Iterator<Item = &str> {
    legend.split("{{").skip(1).filter_map(|part| Some(part.split_once("}}")?.0.trim()))
}

/// Checks one dashboard and returns how many queries it has.
fn check(name: &str, dashboard: &Value) -> usize {
    let mut n_queries = 0;
    for object in objects(dashboard) {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        for query in [text("expr"), text("definition"), text("query").filter(|q| q.contains('('))] {
            let Some(query) = query else { continue };
            n_queries += 1;
            assert_eq!(problems(query), Vec::<String>::new(), "{name}: {query}");
            let known = tokens(query);
            for label in legend_labels(text("legendFormat").unwrap_or_default()) {
                assert!(words(&known).any(|word| word == label), "{name}: no {label} in {query}");
            }
        }
    }
    n_queries
}

fn dashboards() -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards");
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let dashboard = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            (path.display().to_string(), dashboard)
        })
        .collect()
}

#[test]
fn dashboards_ask_for_what_the_metric_table_has() {
    let n_queries: usize = dashboards().iter().map(|(name, dashboard)| check(name, dashboard)).sum();
    assert!(n_queries > 20, "only {n_queries} queries found");
}

#[test]
fn every_panel_says_what_it_means_and_in_which_unit() {
    for (name, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            let is_set = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
            let title = &panel["title"];
            assert!(is_set(title) && is_set(&panel["description"]), "{name}: {title}");
            assert!(is_set(&panel["fieldConfig"]["defaults"]["unit"]), "{name}: {title}");
        }
    }
}

#[test]
fn a_query_of_known_names_has_no_problem() {
    for query in [
        r#"sum by (instance, cause) (rate(mmu_trace_refaults_total{job=~"$job",domain!="by (x)"}[$__rate_interval]))"#,
        "sum(rate(mmu_trace_refaults_total[5m])) by (cause)",
        "histogram_quantile(0.5, sum by (le) (rate(mmu_trace_refault_seconds_bucket[5m])))",
        "sum by (domain) (mmu_trace_ksm_merges_total) * on (domain) group_left (vmm) mmu_trace_vm_info",
        "label_values(mmu_trace_vm_info{job=~\"x\"}, domain)",
        "rate(node_cpu_seconds_total{mode=\"idle\"}[5m])",
    ] {
        assert_eq!(problems(query), Vec::<String>::new(), "{query}");
    }
}

#[test]
fn an_unknown_name_or_label_is_found() {
    for (query, expected) in [
        ("rate(mmu_trace_refault_total[5m])", "mmu_trace_refault_total does not exist"),
        ("mmu_trace_refaults_total_bucket", "mmu_trace_refaults_total_bucket does not exist"),
        ("rate(mmu_trace_refault_seconds[5m])", "mmu_trace_refault_seconds does not exist"),
        (r#"mmu_trace_refaults_total{reason="x"}"#, "mmu_trace_refaults_total has no label reason"),
        ("sum by (result) (mmu_trace_refaults_total)", "mmu_trace_refaults_total has no label result"),
        ("sum(mmu_trace_refaults_total) by (result)", "mmu_trace_refaults_total has no label result"),
        ("sum by (le) (mmu_trace_refault_seconds_sum)", "mmu_trace_refault_seconds_sum has no label le"),
        ("mmu_trace_vm_info * on (host) mmu_trace_vm_info", "has no label host"),
        ("label_values(mmu_trace_build_info, domain)", "mmu_trace_build_info has no label domain"),
    ] {
        let found = problems(query);
        assert!(found.len() == 1 && found[0].ends_with(expected), "{query}: {found:?}");
    }
}
