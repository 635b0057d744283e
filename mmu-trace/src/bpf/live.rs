//! The live tracer.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use mmu_trace_ebpf::{
    abi::{self, Event, FIRST_SLOT, OTHER, UNATTRIBUTED, VmSlot},
    kind::Cause,
};
use zerocopy::FromBytes;

use super::{
    BackendChoice, KvmInstance, Obstacle,
    accounts::{Accounts, Programs},
    catalogue::HOOKS,
    constants::{self, Constants},
    counters::{self, CounterTable},
    evictions::Evictions,
    holder, host,
    ladder::{self, Ladder},
    object::{self, LoadedObject, Setup},
    pseudo,
    read::{self, InvalidationRow},
    side::TracingLink,
    slots::SlotTable,
    surroundings,
    symbols::Symbols,
};
use crate::{
    kernel::{btf::Btf, kallsyms::Kallsyms, ksm},
    model::{
        Backend, Counters, Histograms, Hook, HookState, Host, Ksm, KsmAccount, Mmu, Quality, Snapshot, Vm,
        VmIdentity, Window,
    },
    vm::{self, Descriptors},
};

/// How to trace.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which backends may be used.
    pub backend: BackendChoice,
    /// Whether events are streamed.
    pub recording: bool,
    /// Whether each VM has its own histograms.
    pub vm_histograms: bool,
    /// Most VMs told apart at a time; the rest is counted together.
    pub max_vms: u32,
}

/// The running tracer. Dropping it detaches every hook.
pub struct Live {
    ebpf: Ebpf,
    /// Keeps the tracing programs attached.
    _links: Vec<TracingLink>,
    slots: SlotTable,
    counters: CounterTable,
    evictions: Evictions,
    /// What is attached.
    programs: Programs,
    hooks: Vec<Hook>,
    symbols: Symbols,
    /// `enum mmu_notifier_event` of this kernel.
    events: Vec<(String, i64)>,
    host: Host,
    fixed_mmu: Option<Mmu>,
    /// The KVM whose functions are hooked.
    kvm: Option<KvmInstance>,
    options: Options,
    descriptors: Descriptors,
    started: Instant,
    start_unix_ns: u64,
    start_monotonic_ns: u64,
    /// Identities by slot, taken when the VM was first seen.
    identities: BTreeMap<u32, VmIdentity>,
    /// Slots whose VM had ended at the last snapshot.
    ended: Vec<u32>,
    ring: Option<RingBuf<MapData>>,
}

impl Live {
    /// Loads the object, attaches what this kernel takes and finds the VMs that already run, by `descriptors`.
    ///
    /// # Errors
    /// [`Obstacle`] (as the error's source) where this host cannot be traced; anything else is a
    /// failure of ours.
    pub fn start(options: Options, descriptors: Descriptors) -> Result<Self> {
        if let Some(obstacle) = host::find_obstacles().into_iter().next() {
            return Err(obstacle.into());
        }
        let ksmd_tid = ksm::ksmd(Path::new("/proc"));
        Self::start_with(options, descriptors, counters::n_shards(n_cpus()?), ksmd_tid, attach)
    }

    /// Loads the object and attaches nothing: drivers play what the hooks would see, and the calling thread
    /// counts as `ksmd`.
    ///
    /// # Errors
    /// The kernel refuses the object.
    #[cfg(feature = "bench")]
    pub fn unattached(options: Options) -> Result<Self> {
        Self::unattached_with_shards(options, counters::n_shards(n_cpus()?))
    }

    /// The same, with the counters of each VM in `n_shards` places, a power of two.
    ///
    /// # Errors
    /// As [`Live::unattached`].
    #[cfg(feature = "bench")]
    pub fn unattached_with_shards(options: Options, n_shards: u32) -> Result<Self> {
        let own_tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        Self::start_with(options, Descriptors::Own, n_shards, Some(own_tid), |_, _, _, _| {
            Ok(Default::default())
        })
    }

    /// Loads one of the object's programs that play what hooks would see.
    ///
    /// # Errors
    /// There is no such program, or the kernel refuses it.
    #[cfg(feature = "bench")]
    pub fn driver(&mut self, name: &str) -> Result<super::Driver> {
        super::Driver::load(&mut self.ebpf, name)
    }

    /// Attaches to every hook a program that does nothing: what hooks cost by themselves. Those that take
    /// kprobes alone keep theirs.
    ///
    /// # Errors
    /// As [`Live::start`].
    #[cfg(feature = "bench")]
    pub fn start_empty(options: Options) -> Result<Self> {
        let ksmd_tid = ksm::ksmd(Path::new("/proc"));
        let n_shards = counters::n_shards(n_cpus()?);
        Self::start_with(options, Descriptors::Own, n_shards, ksmd_tid, |object, btf, kallsyms, backend| {
            object.side.empty_programs();
            attach(object, btf, kallsyms, backend)
        })
    }

    fn start_with(
        options: Options,
        descriptors: Descriptors,
        n_shards: u32,
        ksmd_tid: Option<u32>,
        attach: fn(&mut LoadedObject, &Btf, &Kallsyms, BackendChoice) -> Result<Attached>,
    ) -> Result<Self> {
        // Before anything of KVM is looked at: one that is replaced meanwhile must show.
        let kvm = host::kvm_instance();
        let btf = Btf::load().context("cannot read the kernel's BTF")?;
        let (symbols, kallsyms) = Symbols::open().context("cannot read /proc/kallsyms")?;
        let constants = Constants::find(&btf, &kallsyms);
        let (callers, left_out) = constants::callers(&kallsyms);
        let setup = Setup {
            recording: options.recording,
            vm_histograms: options.vm_histograms,
            n_slots: options.max_vms + FIRST_SLOT,
            n_shards,
            ksmd_tid,
        };
        let mut object = object::load(&constants, &callers, setup)?;
        read::fill_free_slots(&mut object.ebpf, setup.n_slots)?;
        let mut hooks = vec![pseudo::types_hook(&constants), pseudo::callers_hook(&kallsyms, &left_out)];
        hooks.push(pseudo::discover(&mut object, &btf, &kallsyms, &descriptors));
        let (links, attached) = attach(&mut object, &btf, &kallsyms, options.backend)?;
        hooks.extend(attached);
        let programs =
            Programs::find(&object.ebpf, &links, &hooks).context("cannot ask for the attached probes")?;
        object::mark_started(&mut object.ebpf, monotonic_ns())?;
        let ring = if options.recording { Some(take_ring(&mut object)?) } else { None };
        let mut live = Self {
            _links: links,
            slots: SlotTable::new(&object.ebpf)?,
            counters: CounterTable::new(&object.ebpf, setup.n_shards, setup.vm_histograms)?,
            evictions: Evictions::default(),
            programs,
            hooks,
            events: btf.enum_variants("mmu_notifier_event").unwrap_or_default(),
            host: surroundings::describe_host(Some(&kallsyms)),
            fixed_mmu: host::fixed_mmu(),
            kvm,
            symbols,
            ebpf: object.ebpf,
            options,
            descriptors,
            started: Instant::now(),
            start_unix_ns: surroundings::unix_ns(),
            start_monotonic_ns: monotonic_ns(),
            identities: BTreeMap::new(),
            ended: Vec::new(),
            ring,
        };
        live.identify_new_vms()?;
        Ok(live)
    }

    /// The hooks and their states.
    #[must_use]
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// The traced kernel.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The KVM that is traced; `None` if none was loaded at the start.
    #[must_use]
    pub fn kvm(&self) -> Option<KvmInstance> {
        self.kvm
    }

    /// Whether KVM's module cannot be unloaded because of us: fentry holds the module of its function,
    /// kprobes do not.
    #[must_use]
    pub fn holds_kvm(&self) -> bool {
        let in_kvm = |hook: &Hook| HOOKS.iter().any(|spec| spec.in_kvm && spec.name == hook.hook);
        host::kvm_is_module() && self.hooks.iter().any(|h| h.backend == Backend::Fentry && in_kvm(h))
    }

    /// Start of tracing, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn start_unix_ns(&self) -> u64 {
        self.start_unix_ns
    }

    /// The same moment on `CLOCK_MONOTONIC`, the clock of [`Event::ts_ns`], nanoseconds.
    #[must_use]
    pub fn start_monotonic_ns(&self) -> u64 {
        self.start_monotonic_ns
    }

    /// Looks who the VMs are that came since the last call. Call it now and then: a VM that ends
    /// before it is identified has only its process id.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn identify_new_vms(&mut self) -> Result<()> {
        for (slot, holder) in self.slots.used() {
            if self.identities.get(&slot).is_none_or(|known| known.pid != holder.tgid) {
                self.identities.insert(slot, holder::identify(&holder));
            }
            if let Some(identity) = self.identities.get_mut(&slot) {
                holder::recount(identity, &holder, &self.descriptors)?;
            }
        }
        Ok(())
    }

    /// Identities by VM slot, as [`Event::slot`] names them.
    #[must_use]
    pub fn identities(&self) -> &BTreeMap<u32, VmIdentity> {
        &self.identities
    }

    /// Hands the events in the ring buffer to `consume`, at most so many; returns how many there were.
    pub fn drain(&mut self, at_most: usize, mut consume: impl FnMut(Event)) -> usize {
        let Some(ring) = &mut self.ring else { return 0 };
        let mut n = 0;
        while n < at_most
            && let Some(item) = ring.next()
        {
            if let Ok(event) = Event::read_from_bytes(&item) {
                consume(event);
                n += 1;
            }
        }
        n
    }

    /// Reads everything.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        self.identify_new_vms()?;
        let mut rows = self.rows_by_slot()?;
        let ksm = surroundings::ksm();
        let mut vms = Vec::new();
        let slots = self.slots.used();
        self.ended.clear();
        for (slot, holder) in &slots {
            let vm = self.vm(*slot, holder, rows.remove(slot).unwrap_or_default(), ksm.as_ref())?;
            if !vm.alive {
                self.ended.push(*slot);
            }
            vms.push(vm);
        }
        let mut identities: Vec<_> = vms.iter().map(|vm| vm.identity.clone()).collect();
        vm::disambiguate(&mut identities);
        for (vm, identity) in vms.iter_mut().zip(identities) {
            vm.identity = identity;
        }
        let unattributed = self.counters(UNATTRIBUTED, rows.remove(&UNATTRIBUTED).unwrap_or_default())?;
        vms.extend(self.other(rows.remove(&OTHER).unwrap_or_default())?);
        let accounts = self.accounts()?;
        Ok(Snapshot {
            host: self.host.clone(),
            window: self.window(),
            quality: self.quality(accounts.misses)?,
            histograms: self.host_histograms(&vms)?,
            vms,
            unattributed,
            ksm,
            programs: accounts.runs,
        })
    }

    /// Frees the slots of VMs that the last snapshot showed as ended. Their counters are gone.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn reap_ended_vms(&mut self) -> Result<()> {
        let slots: BTreeMap<u32, VmSlot> = self.slots.used().into_iter().collect();
        for slot in std::mem::take(&mut self.ended) {
            let Some(holder) = slots.get(&slot) else { continue };
            if self.has_ended(slot, holder)? {
                let (slots, counters) = (&self.slots, &self.counters);
                read::free_slot(&mut self.ebpf, slot, holder, || {
                    counters.zero(slot);
                    slots.zero(slot);
                })?;
                self.identities.remove(&slot);
            }
        }
        Ok(())
    }

    fn rows_by_slot(&mut self) -> Result<BTreeMap<u32, Vec<InvalidationRow>>> {
        let all = read::invalidations(&self.ebpf)?;
        self.symbols.learn(all.iter().filter(|row| row.cause == Cause::Other).map(|row| row.caller));
        let mut rows: BTreeMap<u32, Vec<InvalidationRow>> = BTreeMap::new();
        for row in all {
            rows.entry(row.slot).or_default().push(row);
        }
        Ok(rows)
    }

    fn vm(&self, slot: u32, holder: &VmSlot, rows: Vec<InvalidationRow>, ksm: Option<&Ksm>) -> Result<Vm> {
        let alive = !self.has_ended(slot, holder)?;
        // The process of a VM that has ended may be another one's by now.
        let ksm = ksm.filter(|_| alive);
        Ok(Vm {
            identity: self.identities.get(&slot).cloned().unwrap_or_default(),
            mmu: self.mmu(holder),
            alive,
            counters: self.counters(slot, rows)?,
            histograms: self.counters.histograms(slot)?,
            ksm: ksm.map(|ksm| ksm::account(Path::new("/proc"), holder.tgid, ksm)).unwrap_or_default(),
        })
    }

    /// All VMs without a slot of their own as one, if there are any.
    fn other(&self, rows: Vec<InvalidationRow>) -> Result<Option<Vm>> {
        let counters = self.counters(OTHER, rows)?;
        if counters.is_empty() {
            return Ok(None);
        }
        let histograms = self.counters.histograms(OTHER)?;
        let identity = VmIdentity { name: vm::OTHER.to_owned(), ..VmIdentity::default() };
        Ok(Some(Vm { identity, mmu: None, alive: true, counters, histograms, ksm: KsmAccount::default() }))
    }

    /// Whether the last VM of a process has ended.
    fn has_ended(&self, slot: u32, holder: &VmSlot) -> Result<bool> {
        if holder.ended_ns == 0 {
            return Ok(!holder::is_running(holder));
        }
        // Of several VMs that ran before the tracer only one was counted: the process knows better.
        let has_vms = || -> Result<bool> {
            Ok(holder::is_running(holder) && holder::vms_of(holder.tgid, &self.descriptors)? > 0)
        };
        Ok(!read::is_registered(&self.ebpf, slot, holder)? || !has_vms()?)
    }

    /// KVM's choice for this VM; newer kernels make it once for all.
    fn mmu(&self, holder: &VmSlot) -> Option<Mmu> {
        match holder.mmu {
            abi::mmu::TDP => Some(Mmu::Tdp),
            abi::mmu::RMAP => Some(Mmu::Rmap),
            _ => self.fixed_mmu,
        }
    }

    fn counters(&self, slot: u32, rows: Vec<InvalidationRow>) -> Result<Counters> {
        let mut counters = self.counters.counters(slot)?;
        counters.invalidations = rows
            .into_iter()
            .map(|row| {
                let caller = if row.cause == Cause::Other { self.symbols.name(row.caller) } else { None };
                row.to_model(self.event_name(row.event), caller)
            })
            .collect();
        counters.invalidations.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(counters)
    }

    fn event_name(&self, event: u8) -> String {
        let found = self.events.iter().find(|(_, value)| *value == i64::from(event));
        found.map_or_else(
            || event.to_string(),
            |(name, _)| name.trim_start_matches("MMU_NOTIFY_").to_lowercase(),
        )
    }

    fn window(&self) -> Window {
        Window { start_unix_ns: self.start_unix_ns, seconds: self.started.elapsed().as_secs_f64() }
    }

    /// Whether the counters can be read.
    ///
    /// # Errors
    /// If they cannot.
    pub fn check(&self) -> Result<()> {
        read::gaps(&self.ebpf)?;
        self.accounts().map(drop)
    }

    fn accounts(&self) -> Result<Accounts> {
        self.programs.accounts().context("cannot ask for the programs' accounts")
    }

    /// What is attached, and what was lost or missed.
    fn quality(&mut self, probe_misses: BTreeMap<String, u64>) -> Result<Quality> {
        let mut gaps = read::gaps(&self.ebpf)?;
        let evicted_pages = self.evictions.count(&self.ebpf, &mut gaps, self.options.recording)?;
        Ok(Quality {
            gaps,
            probe_misses,
            evicted_pages,
            hooks: self.hooks.clone(),
            kvm_replaced: self.kvm.is_some() && self.kvm != host::kvm_instance(),
            truncated: false,
        })
    }

    fn host_histograms(&self, vms: &[Vm]) -> Result<Histograms> {
        let mut total = match self.counters.histograms(UNATTRIBUTED)? {
            Some(unattributed) => unattributed,
            None => counters::host_histograms(&self.ebpf)?,
        };
        for histograms in vms.iter().filter_map(|vm| vm.histograms.as_ref()) {
            add(&mut total.fault, &histograms.fault);
            add(&mut total.refault, &histograms.refault);
            add(&mut total.refault_delay, &histograms.refault_delay);
        }
        Ok(total)
    }
}

fn add(total: &mut BTreeMap<u16, u64>, part: &BTreeMap<u16, u64>) {
    for (&bucket, &n) in part {
        *total.entry(bucket).or_insert(0) += n;
    }
}

/// The links of tracing programs, which stay attached with them, and what became of each hook.
type Attached = (Vec<TracingLink>, Vec<Hook>);

fn attach(
    object: &mut LoadedObject,
    btf: &Btf,
    kallsyms: &Kallsyms,
    backend: BackendChoice,
) -> Result<Attached> {
    let ladder = Ladder { btf, kallsyms, backend };
    let mut links = Vec::new();
    let mut hooks = vec![ladder::attach_task_exit(&mut object.ebpf)];
    let wanted = HOOKS.iter().filter(|spec| ladder.is_wanted(spec));
    hooks.extend(wanted.map(|spec| ladder.attach(object, &mut links, spec)));
    let core = ["invalidate_range_start", "invalidate_range_end"];
    let refused = hooks.iter().find(|h| core.contains(&h.hook.as_str()) && h.state != HookState::Attached);
    if let Some(hook) = refused {
        return Err(refusal(hook).into());
    }
    Ok((links, hooks))
}

fn refusal(hook: &Hook) -> Obstacle {
    let reason = hook.reason.as_deref().unwrap_or("no reason given");
    Obstacle {
        what: format!("no probe can be attached to {}: {reason}", hook.symbol),
        remedy: "tracing takes kprobes or fentry: `mmu-trace doctor` shows what this kernel offers"
            .to_owned(),
    }
}

fn take_ring(object: &mut LoadedObject) -> Result<RingBuf<MapData>> {
    let map = object.ebpf.take_map("EVENTS").context("the object has no map EVENTS")?;
    Ok(RingBuf::try_from(map)?)
}

/// CPUs that this host may ever have.
fn n_cpus() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
