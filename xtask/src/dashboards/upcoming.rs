//! Series that the metric table gets next; to be replaced by the table's.

use mmu_trace::metrics::table::{Kind, Series, Subject};

const fn gauge(name: &'static str, labels: &'static [&'static str]) -> Series {
    Series { subject: Subject::Ksm, name, kind: Kind::Gauge, unit: "", help: "", labels }
}

const fn counter(name: &'static str, labels: &'static [&'static str]) -> Series {
    Series { subject: Subject::Ksm, name, kind: Kind::Counter, unit: "", help: "", labels }
}

const fn histogram(name: &'static str) -> Series {
    Series { subject: Subject::Durations, name, kind: Kind::Histogram, unit: "", help: "", labels: VM }
}

const VM: &[&str] = &["domain", "uuid"];

pub(super) const KSM_MERGING_PAGES: Series = gauge("mmu_trace_ksm_merging_pages", VM);
pub(super) const KSM_PROFIT: Series = gauge("mmu_trace_ksm_profit_bytes", VM);
pub(super) const KSM_RUN: Series = gauge("mmu_trace_ksm_run", &[]);
pub(super) const KSM_PAGES_SHARED: Series = gauge("mmu_trace_ksm_pages_shared", &[]);
pub(super) const KSM_PAGES_SHARING: Series = gauge("mmu_trace_ksm_pages_sharing", &[]);
pub(super) const KSM_PAGES_UNSHARED: Series = gauge("mmu_trace_ksm_pages_unshared", &[]);
pub(super) const KSM_PAGES_VOLATILE: Series = gauge("mmu_trace_ksm_pages_volatile", &[]);
pub(super) const KSM_FULL_SCANS: Series = counter("mmu_trace_ksm_full_scans_total", &[]);
pub(super) const KSM_PAGES_TO_SCAN: Series = gauge("mmu_trace_ksm_pages_to_scan", &[]);
pub(super) const KSM_SLEEP: Series = gauge("mmu_trace_ksm_sleep_seconds", &[]);
pub(super) const KSM_MERGE_ACROSS_NODES: Series = gauge("mmu_trace_ksm_merge_across_nodes", &[]);
pub(super) const KSM_GENERAL_PROFIT: Series = gauge("mmu_trace_ksm_general_profit_bytes", &[]);
pub(super) const VM_PAGE_FAULT_SECONDS: Series = histogram("mmu_trace_vm_page_fault_seconds");
pub(super) const VM_REFAULT_SECONDS: Series = histogram("mmu_trace_vm_refault_seconds");
pub(super) const VM_REFAULT_DELAY_SECONDS: Series = histogram("mmu_trace_vm_refault_delay_seconds");
pub(super) const BPF_RUNS: Series = counter("mmu_trace_bpf_runs_total", &["program"]);
pub(super) const BPF_RUN_SECONDS: Series = counter("mmu_trace_bpf_run_seconds_total", &["program"]);
