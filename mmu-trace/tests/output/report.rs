//! Reports, as text and as JSON.

use mmu_trace::{
    model::{Counters, Snapshot},
    report::{Report, text},
};

use crate::{fixture, golden};

const WIDTH: usize = 100;

fn check(name: &str, snapshot: &Snapshot) {
    let text = text(snapshot);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "too wide: {line}");
    }
    assert!(!text.contains('\u{1b}'));
    golden(&format!("{name}.txt"), &text);
    let report = Report::from(snapshot);
    let json = serde_json::to_string_pretty(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    golden(&format!("{name}.json"), &(json + "\n"));
}

#[test]
fn a_host_where_it_is_a_no_op() {
    check("noop", &fixture::noop());
}

#[test]
fn a_host_where_it_works() {
    check("effective", &fixture::effective());
}

#[test]
fn a_kernel_without_it() {
    check("counterfactual", &fixture::counterfactual());
}

#[test]
fn a_host_without_vms() {
    check("empty", &fixture::empty());
}

#[test]
fn a_trace_with_losses() {
    check("incomplete", &fixture::incomplete());
}

#[test]
fn a_vm_without_calls_leaves_the_question_open() {
    let mut snapshot = fixture::noop();
    snapshot.vms[0].counters = Counters::default();
    assert!(text(&snapshot).starts_with("change_pte was not called in 30.0 s, so this trace cannot tell"));
    assert_eq!(Report::from(&snapshot).vms[0].change_pte.as_ref().unwrap().noop_ratio, None);
}

#[test]
fn outcomes_and_causes_add_up_to_the_calls() {
    for snapshot in [fixture::noop(), fixture::effective(), fixture::incomplete()] {
        let report = Report::from(&snapshot);
        for vm in report.vms.iter().chain([&report.unattributed]) {
            let calls = vm.change_pte.as_ref().unwrap();
            assert_eq!((calls.outcomes.total(), calls.causes.total()), (calls.calls, calls.calls));
        }
    }
}

#[test]
fn what_a_missing_hook_would_have_counted_is_unknown() {
    let report = Report::from(&fixture::incomplete());
    assert_eq!(report.vms[0].ksm.merges, None);
    assert_eq!(report.vms[0].ksm.cow_breaks, Some(1_024));
}

#[test]
fn several_vms_in_one_process_are_one_entry_that_says_so() {
    let mut snapshot = fixture::noop();
    assert!(!text(&snapshot).contains("in this process"));
    snapshot.vms[0].identity.n_vms = 2;
    assert!(text(&snapshot).replace("\n  ", " ").contains("2 VMs in this process, counted together"));
    let vms: Vec<_> = Report::from(&snapshot).vms.iter().map(|vm| vm.vms_in_process).collect();
    assert_eq!(vms, [Some(2), None]);
}

#[test]
fn figures_after_kvm_was_unloaded_are_missing() {
    let mut snapshot = fixture::noop();
    snapshot.quality.kvm_replaced = true;
    assert!(text(&snapshot).contains("INCOMPLETE: kvm was unloaded meanwhile"));
    assert!(!Report::from(&snapshot).quality.complete);
}
