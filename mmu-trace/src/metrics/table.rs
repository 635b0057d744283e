//! Every series, once: documents, dashboards and tests read this table too.

/// What a series measures over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from the start of the daemon or of the VM.
    Counter,
    /// A state.
    Gauge,
    /// A distribution, cumulative.
    Histogram,
}

/// What a family of series is about: the chapters of `docs/metrics.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `change_pte` and what came of it.
    ChangePte,
    /// Invalidations of guest memory.
    Invalidations,
    /// Guest page faults.
    PageFaults,
    /// Faults on pages that were torn down before.
    Refaults,
    /// What KSM did to the VM's memory.
    Ksm,
    /// What KSM says of itself.
    KsmHost,
    /// Who the VMs are.
    Vms,
    /// Distributions.
    Durations,
    /// What this host lets us trace.
    Tracing,
    /// What may be missing.
    Completeness,
    /// The daemon itself.
    Daemon,
}

/// One family of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// What it is about.
    pub subject: Subject,
    /// Its full name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its unit; empty for plain counts.
    pub unit: &'static str,
    /// What it means and where in the kernel it comes from.
    pub help: &'static str,
    /// Its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Its place in [`ALL`].
    pub place: usize,
}

impl Subject {
    /// Every subject, in the order of the exposition.
    pub const ALL: &[Self] = &[
        Self::ChangePte,
        Self::Invalidations,
        Self::PageFaults,
        Self::Refaults,
        Self::Ksm,
        Self::KsmHost,
        Self::Vms,
        Self::Durations,
        Self::Tracing,
        Self::Completeness,
        Self::Daemon,
    ];
}

/// Declares the series by subject, and the list of all of them.
macro_rules! series {
    ($([$subject:ident]
        $($id:ident = $kind:ident $name:literal [$unit:literal] $labels:expr, $help:literal;)+
    )+) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "named as the series, to count them")]
        enum Place { $($($id,)+)+ }
        $($(
            #[doc = $help]
            pub const $id: Series = Series {
                subject: Subject::$subject,
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                help: $help,
                labels: &$labels,
                place: Place::$id as usize,
            };
        )+)+
        /// All series, in the order of the exposition.
        pub const ALL: &[Series] = &[$($($id,)+)+];
    };
}

series! {
    [ChangePte]
    CHANGE_PTE = Counter "mmu_trace_change_pte_total" [""] ["domain", "uuid", "cause"],
        "Calls of __mmu_notifier_change_pte by caller. Absent on kernels without it (6.10 and later).";
    CHANGE_PTE_NOOP = Counter "mmu_trace_change_pte_noop_total" [""] ["domain", "uuid", "cause", "reason"],
        "change_pte calls for guest memory in which KVM found nothing to change, and why.";
    CHANGE_PTE_EFFECTIVE = Counter "mmu_trace_change_pte_effective_total" [""] ["domain", "uuid", "cause", "reason"],
        "change_pte calls in which KVM updated or dropped a mapping.";
    CHANGE_PTE_SECONDS = Counter "mmu_trace_change_pte_seconds_total" ["seconds"] ["domain", "uuid"],
        "Time inside __mmu_notifier_change_pte.";
    WOULD_BE_CHANGE_PTE = Counter "mmu_trace_would_be_change_pte_total" [""] ["domain", "uuid", "cause"],
        "Brackets of __mmu_notifier_invalidate_range_start and _end that call change_pte on kernels that have it.";

    [Invalidations]
    INVALIDATIONS = Counter "mmu_trace_invalidations_total" [""] ["domain", "uuid", "cause", "initiator"],
        "Finished brackets of __mmu_notifier_invalidate_range_start and _end by caller and task.";
    INVALIDATED_PAGES = Counter "mmu_trace_invalidated_pages_total" ["pages"] ["domain", "uuid", "cause", "initiator"],
        "Length of these brackets in 4 KiB pages.";
    INVALIDATIONS_ZAPPED = Counter "mmu_trace_invalidations_zapped_total" [""] ["domain", "uuid", "cause", "initiator"],
        "Those of these brackets in which KVM zapped at least one SPTE (kvm_unmap_gfn_range, kvm_flush_remote_tlbs).";
    INVALIDATION_SECONDS = Counter "mmu_trace_invalidation_seconds_total" ["seconds"]
        ["domain", "uuid", "cause", "initiator"],
        "Time from invalidate_range_start to invalidate_range_end, in which guest faults on the range retry.";

    [PageFaults]
    PAGE_FAULTS = Counter "mmu_trace_page_faults_total" [""] ["domain", "uuid", "result"],
        "Finished calls of kvm_mmu_page_fault (arm64: kvm_handle_guest_abort) by RET_PF result.";
    PAGE_FAULTS_STARTED = Counter "mmu_trace_page_faults_started_total" [""] ["domain", "uuid"],
        "Entries of kvm_mmu_page_fault (arm64: kvm_handle_guest_abort).";
    PERMISSION_FAULTS = Counter "mmu_trace_permission_faults_total" [""] ["domain", "uuid"],
        "Those that hit a mapping which did not allow the access (x86: P=1; arm64: permission, access flag).";
    PAGE_FAULT_SECONDS_TOTAL = Counter "mmu_trace_page_fault_seconds_total" ["seconds"] ["domain", "uuid"],
        "Time inside kvm_mmu_page_fault.";

    [Refaults]
    REFAULTS = Counter "mmu_trace_refaults_total" [""] ["domain", "uuid", "cause"],
        "Guest faults that reinstalled a mapping which an invalidation had torn down, by its cause.";
    AVOIDABLE_REFAULTS = Counter "mmu_trace_avoidable_refaults_total" [""] ["domain", "uuid", "cause"],
        "Those refaults that a working change_pte would have saved.";
    REFAULT_SECONDS_TOTAL = Counter "mmu_trace_refault_seconds_total" ["seconds"] ["domain", "uuid"],
        "Time inside kvm_mmu_page_fault in refaults.";
    AVOIDABLE_REFAULT_SECONDS = Counter "mmu_trace_avoidable_refault_seconds_total" ["seconds"] ["domain", "uuid"],
        "Time inside kvm_mmu_page_fault in avoidable refaults.";

    [Ksm]
    KSM_MERGES = Counter "mmu_trace_ksm_merges_total" [""] ["domain", "uuid"],
        "Pages merged by try_to_merge_one_page.";
    KSM_COW_BREAKS = Counter "mmu_trace_ksm_cow_breaks_total" [""] ["domain", "uuid"],
        "KSM pages copied on write (wp_page_copy, do_wp_page).";
    KSM_UNMERGES = Counter "mmu_trace_ksm_unmerges_total" [""] ["domain", "uuid"],
        "Brackets inside break_ksm: pages taken out of KSM.";
    KSM_FAILED_ATTEMPTS = Counter "mmu_trace_ksm_failed_attempts_total" [""] ["domain", "uuid"],
        "Calls of write_protect_page that tore the mapping down and then gave up.";
    KSM_MERGING_PAGES = Gauge "mmu_trace_ksm_merging_pages" ["pages"] ["domain", "uuid"],
        "Pages of the VMM's process that are merged (/proc/PID/ksm_merging_pages, Linux 5.19 and later).";
    KSM_PROFIT = Gauge "mmu_trace_ksm_profit_bytes" ["bytes"] ["domain", "uuid"],
        "Memory saved less KSM's own records (ksm_process_profit in /proc/PID/ksm_stat, Linux 6.4 and later).";

    [KsmHost]
    KSM_RUN = Gauge "mmu_trace_ksm_run" [""] [],
        "/sys/kernel/mm/ksm/run: 0 stopped, 1 merging, 2 stopped and all pages taken out again.";
    KSM_PAGES_SHARED = Gauge "mmu_trace_ksm_pages_shared" ["pages"] [],
        "KSM pages: one for each distinct content (pages_shared).";
    KSM_PAGES_SHARING = Gauge "mmu_trace_ksm_pages_sharing" ["pages"] [],
        "Pages that share one of those, and so are saved (pages_sharing).";
    KSM_PAGES_UNSHARED = Gauge "mmu_trace_ksm_pages_unshared" ["pages"] [],
        "Pages without an equal, checked again at every scan (pages_unshared).";
    KSM_PAGES_VOLATILE = Gauge "mmu_trace_ksm_pages_volatile" ["pages"] [],
        "Pages that change too fast to be merged (pages_volatile).";
    KSM_FULL_SCANS = Counter "mmu_trace_ksm_full_scans_total" [""] [],
        "Scans of all mergeable memory since boot (full_scans).";
    KSM_PAGES_TO_SCAN = Gauge "mmu_trace_ksm_pages_to_scan" ["pages"] [],
        "Pages that ksmd scans between two sleeps (pages_to_scan).";
    KSM_SLEEP = Gauge "mmu_trace_ksm_sleep_seconds" ["seconds"] [],
        "How long ksmd then sleeps (sleep_millisecs).";
    KSM_MERGE_ACROSS_NODES = Gauge "mmu_trace_ksm_merge_across_nodes" [""] [],
        "Whether pages of different NUMA nodes are merged (merge_across_nodes); absent without NUMA.";
    KSM_GENERAL_PROFIT = Gauge "mmu_trace_ksm_general_profit_bytes" ["bytes"] [],
        "Memory saved less KSM's own records on the whole host (general_profit, Linux 6.4 and later).";

    [Vms]
    VM_INFO = Gauge "mmu_trace_vm_info" [""] ["domain", "uuid", "pid", "vmm", "cgroup"],
        "A running VM; always 1.";
    VMS_IN_PROCESS = Gauge "mmu_trace_vms_in_process" [""] ["domain", "uuid"],
        "VMs in the VMM's process, the most seen at a time; they share all figures of this domain.";

    [Durations]
    PAGE_FAULT_SECONDS = Histogram "mmu_trace_page_fault_seconds" ["seconds"] [],
        "Duration of kvm_mmu_page_fault on the whole host; the sum is estimated from the buckets.";
    REFAULT_SECONDS = Histogram "mmu_trace_refault_seconds" ["seconds"] [],
        "The same for refaults only; the sum is estimated from the buckets.";
    REFAULT_DELAY_SECONDS = Histogram "mmu_trace_refault_delay_seconds" ["seconds"] [],
        "From the end of the bracket that zapped a page to its refault; the sum is estimated from the buckets.";
    VM_PAGE_FAULT_SECONDS = Histogram "mmu_trace_vm_page_fault_seconds" ["seconds"] ["domain", "uuid"],
        "page_fault_seconds of one VM; only with --vm-histograms.";
    VM_REFAULT_SECONDS = Histogram "mmu_trace_vm_refault_seconds" ["seconds"] ["domain", "uuid"],
        "refault_seconds of one VM; only with --vm-histograms.";
    VM_REFAULT_DELAY_SECONDS = Histogram "mmu_trace_vm_refault_delay_seconds" ["seconds"] ["domain", "uuid"],
        "refault_delay_seconds of one VM; only with --vm-histograms.";

    [Tracing]
    BUILD_INFO = Gauge "mmu_trace_build_info" [""] ["version"],
        "The running version; always 1.";
    KERNEL_INFO = Gauge "mmu_trace_kernel_info" [""] ["release", "arch", "mode"],
        "The traced kernel and how it is traced; always 1.";
    SOURCE_AVAILABLE = Gauge "mmu_trace_source_available" [""] ["source", "reason"],
        "Whether a group of figures is known on this host; if 0 its series are absent, for the reason given.";
    PROBE_ATTACHED = Gauge "mmu_trace_probe_attached" [""] ["hook", "symbol", "backend"],
        "Whether a hook is attached to the kernel function it needs.";
    REQUIRED_HOOKS_MISSING = Gauge "mmu_trace_required_hooks_missing" [""] [],
        "Hooks that the figures need on this kernel and that are not attached; figures are too low or absent.";
    KVM_HELD = Gauge "mmu_trace_kvm_module_held" [""] [],
        "Whether this daemon keeps the module kvm from being unloaded; SIGUSR1 makes it let go.";
    ATTACHMENTS = Counter "mmu_trace_attachments_total" [""] [],
        "How often tracing began: at the start and after kvm was replaced or released; counters then reset.";
    UNTRACED_SECONDS = Counter "mmu_trace_untraced_seconds_total" ["seconds"] [],
        "Time since tracing first began in which nothing was traced.";

    [Completeness]
    LOST_EVENTS = Counter "mmu_trace_lost_events_total" [""] ["stage"],
        "Events a recording lost; no counter here comes from events.";
    MISSED_RETURNS = Counter "mmu_trace_missed_returns_total" [""] ["hook"],
        "Returns and entries that were not seen; noticed when the task enters again, returns or exits.";
    PROBE_MISSES = Counter "mmu_trace_probe_misses_total" [""] ["hook"],
        "Hits of our probes that the kernel dropped; absent where it does not count them (kprobes before 6.7).";
    MAP_FULL = Counter "mmu_trace_map_full_total" [""] ["map"],
        "Entries that found a BPF map full.";
    EVICTED_PAGES = Counter "mmu_trace_evicted_pages_total" ["pages"] [],
        "Page records evicted before their refault; such refaults are not counted.";
    DATA_GAPS = Counter "mmu_trace_data_gaps_total" [""] ["gap"],
        "What the kernel side could not follow, by kind; before_start and abandoned_bracket are no loss.";

    [Daemon]
    SCRAPE_DURATION = Gauge "mmu_trace_scrape_duration_seconds" ["seconds"] [],
        "How long it took to read the counters for this scrape.";
    BPF_RUNS = Counter "mmu_trace_bpf_runs_total" [""] ["program"],
        "Runs of our BPF programs (run_cnt); only while kernel.bpf_stats_enabled is 1.";
    BPF_RUN_SECONDS = Counter "mmu_trace_bpf_run_seconds_total" ["seconds"] ["program"],
        "Time in our BPF programs (run_time_ns), in the tasks that hit them; only with kernel.bpf_stats_enabled.";
    SCRAPE_ERRORS = Counter "mmu_trace_scrape_errors_total" [""] [],
        "Scrapes that failed because the counters could not be read.";
    TEXTFILE_ERRORS = Counter "mmu_trace_textfile_errors_total" [""] [],
        "Text files for node_exporter that could not be written; the last one then stays.";
    HTTP_REJECTIONS = Counter "mmu_trace_http_rejections_total" [""] ["rejection"],
        "Connections and requests that the web configuration did not let in.";
    HTTP_EVICTIONS = Counter "mmu_trace_http_evictions_total" [""] [],
        "Clients that were sent away to make room for others, or took too long to read an answer.";
    SANDBOX = Gauge "mmu_trace_sandbox" [""] ["layer", "reason"],
        "Whether a layer of the sandbox is in force, and what it lacks.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" ["seconds"] [],
        "User and system CPU time of this daemon; the probes' time is not in it.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" ["bytes"] [],
        "Resident memory of this daemon.";
    PROCESS_FDS = Gauge "process_open_fds" [""] [],
        "Open file descriptors of this daemon.";
    PROCESS_START = Gauge "process_start_time_seconds" ["seconds"] [],
        "Start of this daemon since the Unix epoch.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_type_and_unit() {
        let names: BTreeSet<_> = ALL.iter().map(|series| series.name).collect();
        assert_eq!(names.len(), ALL.len());
        for series in ALL {
            assert_eq!(series.name.ends_with("_total"), series.kind == Kind::Counter, "{}", series.name);
            assert!(series.name.contains(series.unit), "{}", series.name);
        }
    }

    #[test]
    fn every_series_knows_its_place() {
        assert!(ALL.iter().enumerate().all(|(place, series)| series.place == place));
    }

    #[test]
    fn labels_do_not_clash_with_those_of_the_scraper() {
        const TAKEN: &[&str] = &["instance", "job", "name", "node", "namespace", "type", "le"];
        for series in ALL {
            assert!(series.labels.iter().all(|label| !TAKEN.contains(label)), "{}", series.name);
            assert!(series.help.ends_with('.') && series.help.len() < 120, "{}", series.name);
        }
    }
}
