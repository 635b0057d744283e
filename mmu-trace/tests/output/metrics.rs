//! The exposition of hand-built snapshots.

use std::{collections::BTreeSet, time::Duration};

use mmu_trace::{
    metrics::{Health, Process, encode, table},
    model::Snapshot,
    sandbox::{Layer, Sandbox, State},
    source::Attachment,
};

use crate::{fixture, golden};

fn health() -> Health {
    Health {
        scrape_duration: Duration::from_micros(2_500),
        scrape_errors: 0,
        textfile_errors: Some(0),
        evictions: 0,
        sandbox: Some(Sandbox {
            layers: vec![
                (Layer::Capabilities, State::InForce),
                (Layer::Landlock, State::Off("this kernel has none".to_owned())),
            ],
            capabilities: Vec::new(),
        }),
        vm_histograms: true,
        rejections: Some([1, 2, 3, 4]),
        attachment: Some(Attachment { holds_kvm: true, times: 2, untraced: Duration::from_millis(1_500) }),
        process: Some(Process {
            cpu: Duration::from_millis(1_250),
            resident_bytes: 8 << 20,
            open_fds: 12,
            start_unix: Duration::from_secs(1_767_225_600),
        }),
    }
}

fn encoded(snapshot: &Snapshot) -> String {
    encode(snapshot, &health()).unwrap()
}

fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

const WEB1: &str = r#"domain="web1",uuid="7b0f1a4e-3c0e-4b53-9c1d-0d6a2f6f2a11""#;

#[test]
fn the_exposition_is_as_it_was() {
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    golden("metrics.prom", &encoded(&fixture::noop()).replace(version, "version=\"0.0.0\""));
}

#[test]
fn both_parts_of_the_ratio_are_counters() {
    let text = encoded(&fixture::noop());
    let calls = format!("mmu_trace_change_pte_total{{{WEB1},cause=\"ksm_replace\"}}");
    assert_eq!(value(&text, &calls), Some(1_023.0));
    let noop = format!(
        "mmu_trace_change_pte_noop_total{{{WEB1},cause=\"ksm_replace\",reason=\"noop_zapped_by_same_op\"}}"
    );
    assert_eq!(value(&text, &noop), Some(1_023.0));
}

#[test]
fn a_known_vm_starts_at_zero() {
    let text = encoded(&fixture::noop());
    for sample in [
        r#"mmu_trace_change_pte_total{domain="sleeper-4300",uuid="",cause="migrate"}"#,
        r#"mmu_trace_page_faults_total{domain="sleeper-4300",uuid="",result="spurious"}"#,
        r#"mmu_trace_refaults_total{domain="sleeper-4300",uuid="",cause="cow_host"}"#,
        r#"mmu_trace_refaults_total{domain="sleeper-4300",uuid="",cause="numa_balancing"}"#,
        r#"mmu_trace_invalidations_total{domain="sleeper-4300",uuid="",cause="cow_guest",initiator="vcpu"}"#,
        r#"mmu_trace_change_pte_total{domain="unattributed",uuid="",cause="other"}"#,
    ] {
        assert_eq!(value(&text, sample), Some(0.0), "{sample}");
    }
}

#[test]
fn a_vm_that_ended_is_gone() {
    let mut snapshot = fixture::noop();
    snapshot.vms[0].alive = false;
    assert!(!encoded(&snapshot).contains("web1"));
}

#[test]
fn what_the_kernel_lacks_is_absent_and_explained() {
    let text = encoded(&fixture::counterfactual());
    assert!(!text.contains("mmu_trace_change_pte_total"));
    assert!(text.contains(r#"mmu_trace_source_available{source="change_pte",reason="this kernel has no"#));
    let would_be = format!("mmu_trace_would_be_change_pte_total{{{WEB1},cause=\"cow_guest\"}}");
    assert_eq!(value(&text, &would_be), Some(1_024.0));
}

#[test]
fn no_sample_appears_twice_even_for_twins() {
    let mut snapshot = fixture::noop();
    snapshot.vms.push(snapshot.vms[0].clone());
    let text = encoded(&snapshot);
    let samples: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|l| Some(l.rsplit_once(' ')?.0))
        .collect();
    assert_eq!(samples.iter().collect::<BTreeSet<_>>().len(), samples.len());
}

#[test]
fn labels_are_escaped() {
    let mut snapshot = fixture::noop();
    snapshot.vms[0].identity.name = "a\"b\\c".into();
    assert!(encoded(&snapshot).contains(r#"domain="a\"b\\c""#));
}

#[test]
fn only_series_of_the_table_are_exposed() {
    let text = encoded(&fixture::incomplete());
    let names: BTreeSet<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let table: BTreeSet<&str> = table::ALL.iter().map(|series| series.name).collect();
    assert!(names.is_subset(&table));
    let unexposed: Vec<_> = table.difference(&names).collect();
    assert_eq!(unexposed, [&"mmu_trace_ksm_merges_total"]);
}
