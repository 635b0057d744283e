//! What a host lives through: whatever comes and goes, every count must stay the kernel's own, with
//! both backends, and belong to the VM that it is about.
//!
//! A kernel that preempts kernel code may miss a few hits of probes where tasks share a CPU. It counts
//! them, the daemon must tell, and then no count may be off by more than it tells.

use std::collections::BTreeSet;

use serde_json::Value;
use xtask::life::{Act, Life, Listing, Modules, ROW, RowVm, Scene};
use xtask::phase::{Counts, Series};

use super::report::{has_fentry_for, ranges, sum_over};
use super::series::sum;
use super::{Check, Group, confined};

/// Every comparison.
pub(super) fn check(life: &Life) -> Vec<Group> {
    let mut groups = vec![
        group("kvm unloaded and loaded", modules(&life.modules, has_module_btf(&life.kernel))),
        group("lists of VMs", life.listings.iter().flat_map(listing).collect()),
    ];
    for &scene in Scene::ALL {
        let acts: Vec<&Act> = life.acts.iter().filter(|act| act.scene == scene).collect();
        let mut checks = vec![Check::equal("was played", &true, &!acts.is_empty())];
        checks.extend(acts.iter().flat_map(|act| check_act(act, life.pages)));
        groups.push(group(&scene.label(), checks));
    }
    let confined = life.modules.confined.iter().flat_map(|daemon| confined::check_daemon("daemon", daemon));
    let mut confined: Vec<Check> = confined.collect();
    confined.push(Check::equal("daemons", &2, &life.modules.confined.len()));
    groups.push(group("sandbox after all that", confined));
    groups.push(group("VMs in a row", row(&life.row, &life.report)));
    groups.push(group("recording", recording(life)));
    groups
}

fn group(name: &str, checks: Vec<Check>) -> Group {
    Group { name: name.to_owned(), checks }
}

/// One act, as both daemons saw it.
fn check_act(act: &Act, n_pages: i64) -> Vec<Check> {
    let mut checks = Vec::new();
    for (index, moved) in act.daemons.iter().enumerate() {
        let total = |name: &str, labels: &[(&str, &str)]| Some(sum(moved, name, labels));
        let missed = few_misses(act, moved);
        let mut expect = |what: &str, expected: Option<i64>, got: Option<i64>| {
            let is_told = expected.zip(got).is_some_and(|(one, two)| (one - two).abs() <= missed);
            checks.push(Check::numbers(
                &format!("{} (daemon {}): {what}", act.what, index + 1),
                expected,
                if is_told { expected } else { got },
            ));
        };
        for (name, counter) in [
            ("invalidations_total", "range_start"),
            ("page_faults_started_total", "page_fault"),
            ("page_faults_total", "page_fault"),
        ] {
            expect(name, act.calls(counter), total(name, &[]));
        }
        if act.calls("change_pte").is_some() {
            expect("change_pte_total", act.calls("change_pte"), total("change_pte_total", &[]));
        }
        let fixed = act.oracle.get("kvm:pf_fixed").copied();
        expect("pages fixed = KVM's pf_fixed", fixed, total("page_faults_total", &[("result", "fixed")]));
        for gap in ["lost_events_total", "missed_returns_total", "map_full_total"] {
            expect(gap, Some(0), total(gap, &[]));
        }
        for gap in ["orphan_bracket", "unbracketed", "nested_too_deep", "unknown_caller"] {
            expect(gap, Some(0), total("data_gaps_total", &[("gap", gap)]));
        }
        if let Some(domain) = &act.domain {
            for name in ["invalidations_total", "page_faults_total", "refaults_total"] {
                let title = format!("{name} of {domain} alone");
                expect(&title, total(name, &[]), total(name, &[("domain", domain)]));
            }
        }
        if let Some(refaults) = refaults(act) {
            expect("refaults_total", Some(refaults * n_pages), total("refaults_total", &[]));
        }
        expect("causes unknown", Some(0), total("invalidations_total", &[("cause", "other")]));
    }
    checks.extend(special(act, n_pages));
    if act.scene != Scene::Race {
        checks.extend(agreement(act));
    }
    checks
}

/// The hits that the kernel says it missed; 0 where they are more than a few.
fn few_misses(act: &Act, moved: &Series) -> i64 {
    let missed = sum(moved, "probe_misses_total", &[]);
    let calls = act.calls("range_start").unwrap_or(0) + act.calls("page_fault").unwrap_or(0);
    if missed * 100 <= calls { missed } else { 0 }
}

/// The refaults of an act for each page of a guest; `None` in a race, where it is a matter of chance.
fn refaults(act: &Act) -> Option<i64> {
    let n = match (act.scene, act.what.as_str()) {
        (Scene::Race | Scene::Nested, _) => return None,
        // A page that is written in the meantime counts as torn down by the write.
        (Scene::Resumed, _) => 2,
        (Scene::TwoProcesses, "read, host-write 3, read") => 2,
        (Scene::OneProcess, "select 0, read, select 1, write 6") => 2,
        (Scene::Reloaded, _)
        | (Scene::TwoProcesses, "read, discard, read" | "write 4, read" | "protect, read") => 1,
        (Scene::OneProcess, what) if what.contains("discard, read") || what.contains("read, discard") => 1,
        // Both VMs fault on each page, and the first that does is the refault.
        (Scene::SharedMemory, "select 1, read, select 0, read") => 1,
        // The copy for one VM tears down the other's mapping.
        (Scene::SharedMemory, what) if what.ends_with("write 1") => 1,
        _ => 0,
    };
    Some(n)
}

/// What only one act shows.
fn special(act: &Act, n_pages: i64) -> Vec<Check> {
    let Some(moved) = act.daemons.first() else { return vec![Check::equal("daemons", &2, &0)] };
    let calls = |name: &str| act.calls(name).unwrap_or(-1);
    let cause = |name: &str| sum(moved, "invalidations_total", &[("cause", name)]);
    match act.scene {
        Scene::TwoProcesses if act.domain.is_none() => {
            // Whatever ksmd takes back it merges again.
            let broken = calls("break_cow");
            let merges = |vm| sum(moved, "ksm_merges_total", &[("domain", vm)]);
            let is_one_each =
                ["one", "two"].map(merges).iter().all(|n| (n_pages..=n_pages + broken).contains(n));
            vec![
                Check::equal("merges", &(2 * n_pages + broken), &(merges("one") + merges("two"))),
                Check::equal("each VM has its own", &true, &is_one_each),
            ]
        }
        Scene::NoVm => vec![Check::equal("notifier calls without any notifier", &0, &calls("range_start"))],
        Scene::FormerVm => vec![
            Check::equal("the kernel still calls notifiers", &true, &(calls("range_start") > 0)),
            Check::equal("KVM is not asked", &0, &calls("kvm_unmap")),
        ],
        Scene::Race => vec![
            Check::equal("the guest faulted", &true, &(calls("page_fault") > n_pages)),
            Check::equal("the host changed memory", &true, &(calls("range_start") > 10)),
        ],
        Scene::Nested if act.what.contains("-part") => {
            vec![Check::equal("huge pages were split", &true, &(cause("thp_split") > 0))]
        }
        _ => Vec::new(),
    }
}

/// Both daemons count the same, series by series.
fn agreement(act: &Act) -> Vec<Check> {
    let [first, second] = act.daemons.as_slice() else {
        return vec![Check::equal("daemons", &2, &act.daemons.len())];
    };
    let counts = |series: &Series| -> Vec<(String, i64)> {
        series
            .iter()
            .filter(|(key, _)| {
                !["seconds", "process_", "scrape", "probe_misses", "bpf_runs"]
                    .iter()
                    .any(|part| key.contains(part))
            })
            .map(|(key, value)| (key.clone(), value.round() as i64))
            .collect()
    };
    let (one, two) = (counts(first), counts(second));
    let missed = few_misses(act, first) + few_misses(act, second);
    let of =
        |counts: &[(String, i64)], key: &str| counts.iter().find(|(k, _)| k == key).map_or(0, |(_, n)| *n);
    let is_off = |key: &&str| (of(&one, key) - of(&two, key)).abs() > missed;
    let keys: BTreeSet<&str> = one.iter().chain(&two).map(|(key, _)| key.as_str()).collect();
    let names: Vec<&str> = keys.into_iter().filter(is_off).collect();
    vec![Check::equal(&format!("{}: both daemons agree", act.what), &"", &names.join(" "))]
}

/// Whether fentry works on the functions of modules: their BTF came with Linux 5.11.
fn has_module_btf(kernel: &str) -> bool {
    !kernel.starts_with("5.10.")
}

/// KVM's comings and goings.
fn modules(modules: &Modules, holds: bool) -> Vec<Check> {
    let of = |all: &[Series], daemon: usize, name: &str| all.get(daemon).map(|series| sum(series, name, &[]));
    let traces = |all: &[Series], daemon: usize| {
        all.get(daemon).map(|series| sum(series, "probe_attached", &[("hook", "page_fault")]))
    };
    let mut checks = Vec::new();
    let mut expect = |what: &str, expected: i64, got: Option<i64>| {
        checks.push(Check::numbers(what, Some(expected), got));
    };
    expect("fentry holds kvm", holds.into(), of(&modules.tracing, 0, "kvm_module_held"));
    expect("kprobes do not", 0, of(&modules.tracing, 1, "kvm_module_held"));
    expect("released: held", 0, of(&modules.released, 0, "kvm_module_held"));
    expect("released: the first traces", 0, traces(&modules.released, 0));
    expect("released: the second traces", 1, traces(&modules.released, 1));
    for daemon in [0, 1] {
        expect("without kvm: traces", 0, traces(&modules.without, daemon));
        expect("loaded again: traces", 1, traces(&modules.again, daemon));
        expect("loaded again: attachments", 2, of(&modules.again, daemon, "attachments_total"));
        expect("replaced at once: traces", 1, traces(&modules.at_once, daemon));
    }
    expect("resumed: attachments of the first", 3, of(&modules.resumed, 0, "attachments_total"));
    expect("resumed: attachments of the second", 2, of(&modules.resumed, 1, "attachments_total"));
    expect("replaced at once: attachments of the first", 4, of(&modules.at_once, 0, "attachments_total"));
    expect("replaced at once: attachments of the second", 3, of(&modules.at_once, 1, "attachments_total"));
    let untraced = |all: &[Series], daemon: usize| {
        all.get(daemon)
            .and_then(|series| series.get("mmu_trace_untraced_seconds_total"))
            .is_some_and(|s| *s > 0.0)
    };
    let log_says = |daemon: usize, text: &str| modules.logs.get(daemon).is_some_and(|log| log.contains(text));
    let n_gone = modules.logs.get(1).map_or(0, |log| log.matches("its probes are gone").count());
    let quality = |name: &str| {
        modules.recorded.pointer(&format!("/quality/{name}")).map_or("missing".to_owned(), Value::to_string)
    };
    checks.extend([
        Check::equal("rmmod while fentry holds kvm", &false, &(modules.unload_held == "unloaded")),
        Check::equal("rmmod after SIGUSR1", &"unloaded", &modules.unload_released),
        Check::equal("the gap of the first is counted", &true, &untraced(&modules.again, 0)),
        Check::equal("the gap of the second is counted", &true, &untraced(&modules.again, 1)),
        Check::equal("the first says that it holds kvm", &holds, &log_says(0, "fentry holds the module kvm")),
        Check::equal("the first says that it released it", &true, &log_says(0, "SIGUSR1: kvm is released")),
        // Whether it says so before or after KVM was loaded again depends on when it looks.
        Check::equal("the second says each time that kvm went", &2, &n_gone),
        Check::equal("the recorder was interrupted", &130, &modules.recorder_exit),
        Check::equal("its report says that kvm was replaced", &"true", &quality("kvm_replaced")),
        Check::equal("and that it is incomplete", &"false", &quality("complete")),
    ]);
    checks
}

/// `mmu-trace vms`.
fn listing(listing: &Listing) -> Vec<Check> {
    let vms = listing.vms.get("vms").and_then(Value::as_array).cloned().unwrap_or_default();
    let shown = |vm: &Value| {
        let name = vm.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{name} x{}", vm.get("n_vms").map_or_else(String::new, Value::to_string))
    };
    let mut got: Vec<String> = vms.iter().map(shown).collect();
    got.sort_unstable();
    let expected = match listing.when.as_str() {
        "two processes" => "one x1, two x1",
        "two VMs in one process" => "twins x2",
        "one VM left" => "twins x1",
        "a VM that ended before its process" => "",
        _ => "no such moment",
    };
    vec![Check::equal(&listing.when, &expected, &got.join(", "))]
}

/// The VMs under one process id: each has its own figures, live and in the recording.
fn row(row: &[RowVm], report: &Value) -> Vec<Check> {
    let calls = |counts: &Counts, name: &str| counts.get(&format!("calls:{name}")).copied();
    let mut checks = vec![Check::equal("VMs", &ROW, &row.len())];
    let pids: BTreeSet<u32> = row.iter().map(|vm| vm.pid).collect();
    checks.push(Check::equal("process ids", &1, &pids.len()));
    for (number, vm) in row.iter().enumerate() {
        let reads = number as i64 + 1;
        let mut expect = |what: &str, expected: Option<i64>, got: Option<i64>| {
            checks.push(Check::numbers(&format!("{} {what}", vm.name), expected, got));
        };
        for series in &vm.daemons {
            let figure = |name: &str| Some(sum(series, name, &[("domain", &vm.name)]));
            expect("invalidations", calls(&vm.until_scrape, "range_start"), figure("invalidations_total"));
            expect("page faults", calls(&vm.until_scrape, "page_fault"), figure("page_faults_total"));
            expect("refaults", Some(reads), figure("refaults_total"));
        }
        let recorded = report.get("vms").and_then(Value::as_array).into_iter().flatten();
        let mut recorded =
            recorded.filter(|entry| entry.get("name").and_then(Value::as_str) == Some(&vm.name));
        let entry = recorded.next();
        let figure = |pointer: &str| entry.and_then(|entry| entry.pointer(pointer)?.as_i64());
        expect("recorded refaults", Some(reads), figure("/refaults/total"));
        expect("recorded page faults", calls(&vm.whole, "page_fault"), figure("/page_faults/total"));
        expect("recorded twice", Some(0), Some(recorded.count() as i64));
    }
    checks
}

/// The recording over all of it.
fn recording(life: &Life) -> Vec<Check> {
    let total = |name: &str| life.recorded.get(&format!("calls:{name}")).copied();
    let report = &life.report;
    let mut checks = vec![
        Check::equal("hits missed by the kernel's own probes", &0, &life.oracle_misses),
        Check::equal("the recorder was interrupted", &130, &life.recorder_exit),
        Check::equal("it uses fentry", &true, &has_fentry_for(report, "invalidate_range_end")),
        Check::numbers("every start has its end", total("range_start"), total("range_end")),
        Check::numbers("invalidations = kernel's calls", total("range_start"), ranges(report)),
        Check::numbers(
            "page_faults.total = kernel's calls",
            total("page_fault"),
            sum_over(report, "/page_faults/total"),
        ),
    ];
    if total("change_pte").is_some() {
        checks.push(Check::numbers(
            "change_pte.calls = kernel's calls",
            total("change_pte"),
            sum_over(report, "/change_pte/calls"),
        ));
    }
    checks.extend(super::report::quality(report));
    checks
}
