//! What the metric table does not know: what a chapter is for, and what good and bad look like.

use mmu_trace::metrics::table::Subject;

/// The head of the page, for a VM with `n_idle` series from its start.
pub(super) fn head(n_idle: usize) -> String {
    format!(
        "# Metrics

What `mmu-trace daemon` serves at `/metrics` (and `replay` from a capture). This page is written by \
`cargo xtask docs` from the metric table in `mmu-trace/src/metrics/table.rs`, and `cargo xtask ci` checks \
that it still is what the table gives.

- **Absent is not 0.** A figure that this host cannot have is absent, and `mmu_trace_source_available` is 0 \
with the reason. Counters that exist are complete, or the chapter on completeness says otherwise.
- **From 0 on.** A VM's series exist as soon as the VM is found, at 0, so that `rate()` and `increase()` see \
the first event. The column *idle VM* says how many series of a family that is; an idle VM has {n_idle} \
altogether. Not among them, because their product is large, are most pairs of `cause` and `initiator` of \
the invalidations, and avoidable refaults of other causes than KSM and copy on write: such a series begins \
with its first event.
- **To the end of the VM.** A VM's series are gone at the first scrape after it has ended. `unattributed` in \
`domain` takes what belongs to no VM, and stays; `other` the VMs beyond `daemon --max-vms`, together.
- **Counters start from 0** with the daemon, with the VM, and whenever tracing begins anew \
(`mmu_trace_attachments_total`).
- **Join keys.** `domain` and `uuid` are those of the libvirt exporters; everything else that is known of a \
VM is in `mmu_trace_vm_info`.
"
    )
}

/// Title and introduction.
pub(super) const fn chapter(subject: Subject) -> (&'static str, &'static str) {
    match subject {
        Subject::ChangePte => (
            "change_pte",
            "Whether the callback that was to spare guests the fault does anything. Good: \
             `change_pte_effective_total` grows as fast as `change_pte_total`. Bad, and normal on x86-64: all \
             calls for guest memory are in `change_pte_noop_total`. Calls in neither concerned no guest \
             memory or no subscriber. Kernels from 6.10 on have only `would_be_change_pte_total`.",
        ),
        Subject::Invalidations => (
            "Invalidations",
            "Who tears mappings of guest memory down, and for how long guests must wait. Good: few that zap, \
             from causes that somebody asked for. Bad: a steady rate of `invalidations_zapped_total` from \
             NUMA balancing, migration or KSM on a VM that is busy, or seconds per second near 1.",
        ),
        Subject::PageFaults => (
            "Guest page faults",
            "Each is a vmexit. Good: nearly all `fixed`, and few once a guest has touched its memory. Bad: a \
             steady rate in a guest that is not growing, or many `retry`, which means that faults meet \
             running invalidations.",
        ),
        Subject::Refaults => (
            "Refaults",
            "What tearing down costs the guest: faults on pages it had mapped before. Good: none, or far \
             fewer than KSM saves pages. Bad: seconds per second that a vCPU notices (0.01 is one per cent of \
             one vCPU). The avoidable part is what a `change_pte` that works would give back.",
        ),
        Subject::Ksm => (
            "KSM",
            "What KSM does to this VM. Good: merges that last. Bad: copy-on-write breaks as frequent as \
             merges, which is work for nothing, or failed attempts, each of which cost the guest a mapping. \
             `ksm_merging_pages` and `ksm_profit_bytes` are the kernel's own account of the VMM's whole \
             process; a negative profit means that KSM's records take more than its merges save.",
        ),
        Subject::KsmHost => (
            "KSM on the host",
            "What KSM says of itself in `/sys/kernel/mm/ksm`, so that gain and cost can be seen together. \
             Good: `pages_sharing` far above `pages_shared`. Bad: `pages_unshared` far above \
             `pages_sharing`, which is scanning for nothing, or `merge_across_nodes` 1 on a host with NUMA \
             whose guests are pinned.",
        ),
        Subject::Vms => (
            "VMs",
            "Who is behind a `domain`. Bad: `vms_in_process` above 1 where VMs should be told apart: those \
             of one process share all figures.",
        ),
        Subject::Durations => (
            "Durations",
            "Of the whole host, and with `--vm-histograms` of each VM as well, which is 69 more series for \
             each; a capture has both. Twenty buckets each, of powers of two. Good: refaults in the \
             microseconds. Bad: a tail in the milliseconds, or refault delays near KSM's scan period: pages \
             are merged that are in use.",
        ),
        Subject::Tracing => (
            "What is traced",
            "What this host lets us see. Good: every `source_available` and every `probe_attached` that \
             matters is 1. Bad: 0, and the label `reason`, `mmu-trace doctor` or the report says why; \
             `untraced_seconds_total` that grows.",
        ),
        Subject::Completeness => (
            "Completeness",
            "Every place that can lose something. Good: all 0, but for the gaps `before_start` and \
             `abandoned_bracket`, which are no loss. Bad: anything that grows: the figures above are then \
             lower bounds. `probe_misses_total` has a series for each hook whose misses this kernel counts: \
             kernels that do not exist, and a 0 would say that there were none.",
        ),
        Subject::Daemon => (
            "The daemon",
            "What measuring costs, and whether it works. Good: scrapes in milliseconds, no errors, steady \
             memory. Bad: errors that grow. What the probes cost the guests is in no CPU time of this process: the \
             kernel measures it on demand, with `sysctl kernel.bpf_stats_enabled=1` (which itself costs \
             some 20 to 30 ns a run). With `--textfile` the file has everything but `process_*`, of \
             which node_exporter has its own; without it there is no `textfile_errors_total`.",
        ),
    }
}
