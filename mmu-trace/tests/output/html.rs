//! The report as an HTML page.

use mmu_trace::{
    model::Snapshot,
    report::{Document, Provenance, Timeline, html},
};
use mmu_trace_ebpf::{abi::Event, kind::Gap};

use crate::{fixture, golden};

const START_NS: u64 = 7_000_000_000;

fn provenance() -> Provenance {
    Provenance {
        file: "ksm.mmt".into(),
        recorded_with: Some("0.0.0".into()),
        shown_with: "0.0.0".into(),
        command: ["sh", "-c", "sleep 30"].map(str::to_owned).to_vec(),
        vm_filter: vec!["web1".into()],
        ended: "with the command".into(),
        events_lost: 0,
    }
}

fn timeline(events: &[Event]) -> Timeline {
    let mut timeline = Timeline::default();
    timeline.begin(START_NS);
    events.iter().for_each(|event| timeline.add(event));
    timeline
}

fn page(snapshot: &Snapshot, events: &[Event], provenance: &Provenance) -> String {
    html(&Document { snapshot, timeline: &timeline(events), provenance })
}

/// Without the style sheet, which has a file of its own.
fn without_style(page: &str) -> String {
    let (before, rest) = page.split_once("<style>\n").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    format!("{before}<style></style>{after}")
}

fn check(name: &str, snapshot: &Snapshot, events: &[Event]) {
    let provenance = Provenance { events_lost: snapshot.quality.gap(Gap::LostEvent), ..provenance() };
    let page = page(snapshot, events, &provenance);
    assert_nothing_external(&page);
    assert_anchors_exist(&page);
    golden(&format!("{name}.html"), &without_style(&page));
}

fn assert_nothing_external(page: &str) {
    for word in ["http:", "https:", "//", "<script", "<link", "<img", "<iframe", " src=", "@import", "url(\""]
    {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.split("url(").skip(1).all(|rest| rest.starts_with('#')));
    assert!(page.contains("default-src 'none'"));
}

/// Every id is there once, and every reference leads to one.
fn assert_anchors_exist(page: &str) {
    let after = |mark: &'static str| page.split(mark).skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut ids: Vec<&str> = after(" id=\"").collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    let names = after("aria-labelledby=\"").flat_map(|names| names.split(' '));
    for id in names.chain(after("href=\"#")) {
        assert!(ids.binary_search(&id).is_ok(), "{id}");
    }
}

#[test]
fn a_host_where_it_is_a_no_op() {
    check("noop", &fixture::noop(), &fixture::events(4242, START_NS));
}

#[test]
fn a_host_where_it_works() {
    check("effective", &fixture::effective(), &[]);
}

#[test]
fn a_kernel_without_it() {
    check("counterfactual", &fixture::counterfactual(), &[]);
}

#[test]
fn a_host_without_vms() {
    check("empty", &fixture::empty(), &[]);
}

#[test]
fn a_trace_with_losses() {
    check("incomplete", &fixture::incomplete(), &[]);
}

#[test]
fn lost_events_are_said_beside_the_plots_and_instead_of_them() {
    let lost = Provenance { events_lost: 12, ..provenance() };
    let some = page(&fixture::noop(), &fixture::events(4242, START_NS), &lost);
    assert!(some.contains("12 events were lost before") && some.contains("id=\"strips-title\""));
    let none = page(&fixture::noop(), &[], &lost);
    assert!(none.contains("12 events were lost before") && none.contains("holds no events"));
    assert!(!none.contains("id=\"strips-title\"") && !none.contains("id=\"frames-title\""));
}

#[test]
fn a_vm_has_a_plot_of_its_own_calls_if_it_is_not_the_only_one() {
    let mut snapshot = fixture::noop();
    let is_shared =
        |snapshot: &Snapshot| page(snapshot, &[], &provenance()).contains("id=\"vm-1-share-title\"");
    assert!(!is_shared(&snapshot));
    snapshot.vms[1].counters = snapshot.vms[0].counters.clone();
    assert!(is_shared(&snapshot));
}

#[test]
fn markup_in_names_is_text_everywhere() {
    let evil = "\"'><script>&\u{1b}".to_owned();
    let mut snapshot = fixture::incomplete();
    snapshot.host.kernel = evil.clone();
    snapshot.host.arch = evil.clone();
    for hook in &mut snapshot.quality.hooks {
        hook.hook = evil.clone();
        hook.symbol = format!("try_to_merge_one_page.{evil}");
        hook.reason = Some(evil.clone());
    }
    let identity = &mut snapshot.vms[0].identity;
    (identity.name, identity.vmm) = (evil.clone(), evil.clone());
    (identity.uuid, identity.cgroup) = (Some(evil.clone()), Some(evil.clone()));
    for row in &mut snapshot.vms[0].counters.invalidations {
        row.key.event = evil.clone();
        row.caller = Some(evil.clone());
    }
    let provenance = Provenance {
        file: evil.clone(),
        recorded_with: Some(evil.clone()),
        shown_with: evil.clone(),
        command: vec![evil.clone()],
        vm_filter: vec![evil.clone()],
        ended: evil.clone(),
        events_lost: 1,
    };
    // Two VMs on the heat map, so that it shows their names.
    let events = [fixture::events(4242, START_NS), fixture::events(1, START_NS)].concat();
    let page = page(&snapshot, &events, &provenance);
    let times = |what: &str| page.matches(what).count();
    assert!(times("&gt;&lt;script&gt;&amp;\u{fffd}") > 30, "{page}");
    assert_eq!((times("<script"), times("\u{1b}"), times("'><"), times("\"'>")), (0, 0, 0, 0));
    assert_nothing_external(&page);
}
