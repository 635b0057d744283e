//! The embedded BPF object: its constants, its map sizes, its load.

use std::collections::HashMap;

use anyhow::{Context, Result};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel, maps::Array};
use mmu_trace_ebpf::abi::{CallerRange, MISSING, N_CALLERS, value};
use zerocopy::IntoBytes;

use super::{constants::Constants, side::SideLoader};

/// The object, built by `cargo xtask ebpf` and committed.
#[cfg(target_arch = "x86_64")]
static OBJECT: &[u8] = aya::include_bytes_aligned!("mmu-trace.x86_64.bpf.o");
/// The same for arm64.
#[cfg(target_arch = "aarch64")]
static OBJECT: &[u8] = aya::include_bytes_aligned!("mmu-trace.aarch64.bpf.o");

/// Ring buffer of a recording, bytes: 256 Ki events, or five million a second for a reader that
/// comes every 50 ms.
const RING_BYTES: u32 = 16 << 20;
/// The smallest ring buffer there is, where nobody records.
const NO_RING_BYTES: u32 = 4096;

/// Rows of the invalidation table for each VM, on average: a VM has one for each cause, initiator and event that
/// it has seen together, which are about a dozen.
const ROWS_PER_VM: u32 = 32;

/// What the object is loaded for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// Whether events go to the ring buffer.
    pub recording: bool,
    /// Whether each VM has its own histograms.
    pub vm_histograms: bool,
    /// Number of VM slots, those included that belong to no VM alone.
    pub n_slots: u32,
    /// How many shards the counters of a VM have, see `counters::n_shards`.
    pub n_shards: u32,
    /// Thread id of `ksmd`, if it can be seen.
    pub ksmd_tid: Option<u32>,
}

/// The loaded object.
pub(super) struct LoadedObject {
    pub ebpf: Ebpf,
    pub side: SideLoader,
}

/// Creates the maps and relocates the programs; loads no program yet.
///
/// # Errors
/// The kernel refuses a map, say because this process may not use BPF.
pub(super) fn load(
    constants: &Constants,
    callers: &[CallerRange; N_CALLERS],
    setup: Setup,
) -> Result<LoadedObject> {
    let mut values = constants.values;
    values[value::RECORDING] = u32::from(setup.recording);
    values[value::VM_HISTOGRAMS] = u32::from(setup.vm_histograms);
    values[value::TRACER_TGID] = std::process::id();
    values[value::SHARDS] = setup.n_shards;
    values[value::KSMD_TID] = setup.ksmd_tid.unwrap_or(MISSING);
    let globals = [
        ("OFFSETS", constants.offsets.as_bytes()),
        ("VALUES", values.as_bytes()),
        ("ARGS", constants.args.as_bytes()),
        ("FUNCTIONS", constants.functions.as_bytes()),
    ];
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::DISABLE);
    for (name, bytes) in globals {
        loader.override_global(name, bytes, true);
    }
    for (name, entries) in map_sizes(setup) {
        loader.map_max_entries(name, entries);
    }
    let mut ebpf = loader.load(OBJECT).context("cannot load the BPF object")?;
    write_callers(&mut ebpf, callers)?;
    let globals: HashMap<&str, (&[u8], bool)> = globals.into_iter().map(|(n, b)| (n, (b, true))).collect();
    let side = SideLoader::new(OBJECT, &ebpf, globals)?;
    Ok(LoadedObject { ebpf, side })
}

fn map_sizes(setup: Setup) -> [(&'static str, u32); 7] {
    let n_counters = setup.n_slots * setup.n_shards;
    [
        ("VM_SLOTS", setup.n_slots),
        ("FREE_SLOTS", setup.n_slots),
        ("VM_STATS", n_counters),
        ("BULK_RANGES", setup.n_slots),
        ("INVALIDATIONS", setup.n_slots * ROWS_PER_VM),
        ("VM_HISTS", if setup.vm_histograms { n_counters } else { 1 }),
        ("EVENTS", if setup.recording { RING_BYTES } else { NO_RING_BYTES }),
    ]
}

fn write_callers(ebpf: &mut Ebpf, callers: &[CallerRange; N_CALLERS]) -> Result<()> {
    const SIZE: usize = size_of::<[CallerRange; N_CALLERS]>();
    let map = ebpf.map_mut("CALLERS").context("the object has no map CALLERS")?;
    let mut map: Array<_, [u8; SIZE]> = Array::try_from(map)?;
    let mut bytes = [0u8; SIZE];
    bytes.copy_from_slice(callers.as_bytes());
    map.set(0, bytes, 0)?;
    Ok(())
}

/// Tells the probes that every hook is in place.
///
/// # Errors
/// The map cannot be written.
pub(super) fn mark_started(ebpf: &mut Ebpf, now_ns: u64) -> Result<()> {
    let map = ebpf.map_mut("STARTED").context("the object has no map STARTED")?;
    let mut map: Array<_, u64> = Array::try_from(map)?;
    Ok(map.set(0, now_ns, 0)?)
}
