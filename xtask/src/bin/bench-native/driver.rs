//! What the programs cost for each hook call: their bodies run through `BPF_PROG_TEST_RUN`, without hooks, and
//! are timed by the kernel (`BPF_ENABLE_STATS`). What timing itself costs is in every run, and taken off.

use anyhow::{Context, Result, ensure};
use mmu_trace::{
    bpf::{BackendChoice, Driver, Live, Options, measure_programs},
    kernel::kallsyms::Kallsyms,
};
use mmu_trace_ebpf::{abi::driver_op as op, decide::scope, kind::FaultResult};
use xtask::figure::{Figure, median};

const MM: u64 = 0xffff_8880_0000_1000;
const KVM: u64 = 0xffff_c900_0000_0000;
const PTE_RO: u64 = 0x25;
/// Pages of one round, each merged once.
const PAGES: u64 = 2_000;
/// Each round has new pages, up to a quarter of what the table of page records holds.
const ROUNDS: u64 = 11;
/// Hook calls of one merge: those of Linux 6.1 with fexit.
const MERGE_CALLS: usize = 19;
/// Events that one merge leaves in a recording: two invalidations, two calls, the merge.
const MERGE_EVENTS: f64 = 5.0;

const METHOD: &str = "median of 11 rounds of 2,000 KSM merges, each of a new page and of 19 hook calls, each a \
    run of BPF_PROG_TEST_RUN without hooks; run time as the kernel accounts it, less that of a run that does nothing";

/// Measures.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let _measured = measure_programs().context("the kernel does not measure BPF programs")?;
    let kallsyms = Kallsyms::load()?;
    let callers = [caller(&kallsyms, "write_protect_page")?, caller(&kallsyms, "try_to_merge_one_page")?];
    let mut aggregating = Bench::new(false)?;
    let mut recording = Bench::new(true)?;
    let mut rounds: [Vec<f64>; 4] = Default::default();
    for round in 0..ROUNDS {
        let figures = [
            aggregating.merge_call(round, callers)?,
            recording.merge_call(round, callers)?,
            aggregating.refault_call(round)?,
            aggregating.counter()?,
        ];
        rounds.iter_mut().zip(figures).for_each(|(all, ns)| all.push(ns));
    }
    let [merge, recorded, refault, counter] = rounds.map(|ns| median(&ns).unwrap_or(f64::NAN));
    let added = (recorded - merge) * MERGE_CALLS as f64 / MERGE_EVENTS;
    Ok(vec![
        Figure::new("native/aggregate/hook call of a merge", merge, "ns", METHOD),
        Figure::new("native/aggregate/hook call of a refault", refault, "ns", METHOD),
        Figure::new("native/record/added by an event", added, "ns", METHOD),
        Figure::new("native/simplest counter", counter, "ns", METHOD),
        Figure::new(
            "native/aggregate/hook call of a merge over the simplest counter",
            merge / counter,
            "x",
            METHOD,
        ),
    ])
}

/// A return address in `function`.
fn caller(kallsyms: &Kallsyms, function: &str) -> Result<u64> {
    let found = kallsyms.variants(function).find(|symbol| symbol.addr != 0);
    found.map(|symbol| symbol.addr + 1).with_context(|| format!("kallsyms has no {function}"))
}

/// The loaded object and its programs.
struct Bench {
    live: Live,
    driver: Driver,
    count: Driver,
    empty: Driver,
}

impl Bench {
    fn new(recording: bool) -> Result<Self> {
        let options = Options { backend: BackendChoice::Auto, recording, vm_histograms: false, max_vms: 254 };
        let mut live = Live::unattached(options)?;
        let driver = live.driver("driver")?;
        driver.run(&[op::VM_START, MM, KVM, 1])?;
        Ok(Self { driver, count: live.driver("driver_count")?, empty: live.driver("driver_empty")?, live })
    }

    /// The mean of the hook calls of KSM merges, nanoseconds.
    fn merge_call(&mut self, round: u64, callers: [u64; 2]) -> Result<f64> {
        let before = self.merges()?;
        let ns = time(&self.driver, pages(round).flat_map(|page| merge(page << 12, callers)))?;
        self.live.drain(usize::MAX, |_| ());
        ensure!(self.merges()? - before == PAGES, "the merges that were played are not counted");
        Ok(ns - self.nothing()?)
    }

    fn merges(&mut self) -> Result<u64> {
        Ok(self.live.snapshot()?.vms.iter().map(|vm| vm.counters.ksm_merges).sum())
    }

    /// The mean of the hook calls of the faults that follow, nanoseconds. Two of the three are one run.
    fn refault_call(&self, round: u64) -> Result<f64> {
        let fault = |page: u64| {
            [[op::FAULT, MM, page << 12, 0], [op::FAULT_END, FaultResult::Fixed as u64, page << 12, 0]]
        };
        let ns = time(&self.driver, pages(round).flat_map(fault))?;
        Ok((ns - self.nothing()?) * 2.0 / 3.0)
    }

    fn counter(&self) -> Result<f64> {
        let nothing = time(&self.empty, (0..PAGES).map(|_| [0]))?;
        Ok(time(&self.count, (0..PAGES).map(|_| [0]))? - nothing)
    }

    /// What a run of the driver costs that finds nothing to do.
    fn nothing(&self) -> Result<f64> {
        time(&self.driver, (0..PAGES).map(|_| [0]))
    }
}

fn pages(round: u64) -> std::ops::Range<u64> {
    round * PAGES + 1..(round + 1) * PAGES + 1
}

/// What the hooks see while KSM merges a page that the guest has mapped.
fn merge(start: u64, [protect, replace]: [u64; 2]) -> [[u64; 6]; MERGE_CALLS] {
    let scope = |scope: u32, enters: u64| [op::SCOPE, u64::from(scope), enters, 0, 0, 0];
    let begin = |caller| [op::RANGE_START, MM, start, start + 4096, 0x103, caller];
    let unmap = |zapped| [op::UNMAP, zapped, 0, 0, 0, 0];
    let change = |caller| [op::CHANGE_PTE, MM, start, PTE_RO, caller, 0];
    let mark = |handled| [op::SET_SPTE, handled, 0, 0, 0, 0];
    let alone = |operation| [operation, 0, 0, 0, 0, 0];
    let end = [op::RANGE_END, MM, start, 0, 0, 0];
    [
        scope(scope::KSM_MERGE, 1),
        scope(scope::KSM_WRITE_PROTECT, 1),
        begin(protect),
        unmap(1),
        alone(op::FLUSH),
        change(protect),
        mark(0),
        mark(1),
        alone(op::CHANGE_PTE_END),
        end,
        scope(scope::KSM_WRITE_PROTECT, 0),
        begin(replace),
        unmap(0),
        change(replace),
        mark(0),
        mark(1),
        alone(op::CHANGE_PTE_END),
        end,
        scope(scope::KSM_MERGE, 0),
    ]
}

/// The mean time of a run, nanoseconds.
fn time<const N: usize>(program: &Driver, runs: impl Iterator<Item = [u64; N]>) -> Result<f64> {
    let (runs_before, ns_before) = program.runs()?;
    for args in runs {
        program.run(&args)?;
    }
    let (runs_after, ns_after) = program.runs()?;
    ensure!(runs_after > runs_before, "the kernel does not count runs");
    Ok((ns_after - ns_before) as f64 / (runs_after - runs_before) as f64)
}
