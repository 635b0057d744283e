//! The text about one VM: what the last interval brought and what there was since tracing began.

use mmu_trace_ebpf::kind::{Cause, FaultResult, Outcome};

use super::{
    column::{Known, calls, name, rate, zaps},
    render::summary_height,
    state::{Figures, View},
};
use crate::{
    model::{Counters, Delta, Figure, Invalidation, Mmu, VmDelta, VmKey},
    report::{Align, Table, cause_with_caller, count, duration, percent, printable},
};

/// Lines around the text, beside the summary: its title and the keys.
const AROUND: u16 = 2;

/// Lines of the text that can be seen at a time.
pub(super) fn height(view: &View) -> usize {
    usize::from(view.size.1.saturating_sub(summary_height(view) + AROUND).max(1))
}

/// The text about the selected VM.
pub(super) fn lines(view: &View) -> Vec<String> {
    let (Some(vm), Some(figures)) = (view.selected_vm(), view.figures.as_ref()) else {
        return vec!["This VM is gone. Esc goes back.".to_owned()];
    };
    let page = Page { vm, figures, width: usize::from(view.size.0.saturating_sub(2)) };
    let sections = [
        page.title(),
        page.change_pte(),
        page.refaults(),
        page.invalidations(),
        page.page_faults(),
        page.ksm(),
    ];
    sections.iter().flat_map(|section| section.lines()).map(str::to_owned).collect()
}

/// What a row counts.
type Count = fn(&Counters) -> u64;

struct Page<'a> {
    vm: &'a VmDelta,
    figures: &'a Figures,
    width: usize,
}

impl Page<'_> {
    fn delta(&self) -> &Delta {
        &self.figures.delta
    }

    fn known(&self) -> &Known {
        &self.figures.known
    }

    /// The rate and the total of what `n` counts.
    fn pair(&self, n: impl Fn(&Counters) -> u64) -> [String; 2] {
        [rate(self.delta().rate(n(&self.vm.counted))), count(n(&self.vm.total))]
    }

    /// Heads `what`, unless `figure` is not known; then that is all that is said.
    fn section(&self, figure: Figure, what: &str, n: impl Fn(&Counters) -> u64) -> Result<String, String> {
        if !self.known().has(figure) {
            return Err(format!("{what}: unknown, see mmu-trace doctor\n"));
        }
        let [per_second, total] = self.pair(n);
        Ok(format!("{what}: {per_second}/s, {total} in all\n"))
    }

    fn title(&self) -> String {
        if self.vm.key == VmKey::Unattributed {
            return "Events of no known VM\n".to_owned();
        }
        let id = &self.vm.identity;
        let mut facts = vec![id.vmm.clone(), format!("pid {}", id.pid)];
        facts.extend(self.vm.mmu.map(|mmu| match mmu {
            Mmu::Tdp => "TDP MMU".to_owned(),
            Mmu::Rmap => "rmap MMU".to_owned(),
        }));
        facts.extend((id.n_vms > 1).then(|| format!("{} VMs in this process", id.n_vms)));
        facts.extend(id.uuid.as_ref().map(|uuid| format!("uuid {uuid}")));
        facts.extend((!self.vm.alive).then(|| "ended".to_owned()));
        printable(&format!("{} ({})", name(self.vm), facts.join(", "))) + "\n"
    }

    fn change_pte(&self) -> String {
        let known = self.known();
        let what = if known.is_direct { "change_pte" } else { "change_pte calls that there would be" };
        let head = match self.section(known.calls(), what, |counters| calls(counters, known)) {
            Ok(head) => head,
            Err(unknown) => return unknown,
        };
        head + &if known.is_direct { self.outcomes() } else { self.would_be() }
    }

    fn outcomes(&self) -> String {
        let n = |counters: &Counters, cause: Cause, outcome: Outcome| {
            counters.change_pte.get(&cause).and_then(|n| n.get(&outcome)).copied().unwrap_or(0)
        };
        let mut table = Table::new([
            ("cause", Align::Text),
            ("outcome", Align::Text),
            ("calls/s", Align::Number),
            ("calls", Align::Number),
            ("share", Align::Number),
        ]);
        for (&cause, by_outcome) in &self.vm.total.change_pte {
            for &outcome in by_outcome.keys() {
                let [per_second, total] = self.pair(|counters| n(counters, cause, outcome));
                let share = percent(by_outcome[&outcome], self.vm.total.change_pte_cause(cause));
                table.row([cause.label().into(), outcome.label().into(), per_second, total, share]);
            }
        }
        table.render_within("  ", self.width)
    }

    fn would_be(&self) -> String {
        let mut table =
            Table::new([("cause", Align::Text), ("calls/s", Align::Number), ("calls", Align::Number)]);
        for &cause in self.vm.total.would_be.keys() {
            let [per_second, total] =
                self.pair(|counters| counters.would_be.get(&cause).copied().unwrap_or(0));
            table.row([cause.label().into(), per_second, total]);
        }
        table.render_within("  ", self.width)
    }

    fn refaults(&self) -> String {
        let head = match self.section(Figure::Refaults, "refaults", |counters| counters.refaults_total().n) {
            Ok(head) => head,
            Err(unknown) => return unknown,
        };
        let of = |counters: &Counters, cause| counters.refaults.get(&cause).copied().unwrap_or_default();
        let mut table = Table::new([
            ("cause", Align::Text),
            ("refaults/s", Align::Number),
            ("avoid/s", Align::Number),
            ("refaults", Align::Number),
            ("avoidable", Align::Number),
            ("time", Align::Number),
        ]);
        for (&cause, all) in self.vm.total.refaults.iter().filter(|(_, refaults)| refaults.n > 0) {
            let [per_second, total] = self.pair(|counters| of(counters, cause).n);
            let [avoidable_per_second, avoidable] = self.pair(|counters| of(counters, cause).avoidable);
            let cause = cause.label().to_owned();
            table.row([cause, per_second, avoidable_per_second, total, avoidable, duration(all.ns)]);
        }
        head + &table.render_within("  ", self.width)
    }

    fn invalidations(&self) -> String {
        let what = "invalidations that tore something down";
        let head = match self.section(Figure::Invalidations, what, zaps) {
            Ok(head) => head,
            Err(unknown) => return unknown,
        };
        head + &invalidations(&self.vm.total.invalidations, &self.vm.counted.invalidations, self.delta())
            .render_within("  ", self.width)
    }

    fn page_faults(&self) -> String {
        let head = match self.section(Figure::PageFaults, "faults", |counters| counters.faults_entered) {
            Ok(head) => head,
            Err(unknown) => return unknown,
        };
        let mut table =
            Table::new([("result", Align::Text), ("faults/s", Align::Number), ("faults", Align::Number)]);
        for &result in FaultResult::ALL {
            let n = |counters: &Counters| counters.faults.get(&result).copied().unwrap_or(0);
            if n(&self.vm.total) > 0 {
                let [per_second, total] = self.pair(n);
                table.row([result.label().into(), per_second, total]);
            }
        }
        head + &table.render_within("  ", self.width)
    }

    fn ksm(&self) -> String {
        let mut table =
            Table::new([("KSM pages", Align::Text), ("pages/s", Align::Number), ("pages", Align::Number)]);
        let rows: [(Figure, &str, Count); 4] = [
            (Figure::KsmMerges, "merged", |counters| counters.ksm_merges),
            (Figure::KsmCowBreaks, "broken by copy on write", |counters| counters.ksm_cow_breaks),
            (Figure::KsmUnmerges, "unmerged", |counters| counters.ksm_unmerges),
            (Figure::KsmFailedAttempts, "given up after a zap", |counters| counters.ksm_failed_attempts),
        ];
        for (figure, what, n) in rows {
            let unknown = || ["?".to_owned(), "?".to_owned()];
            let [per_second, total] = if self.known().has(figure) { self.pair(n) } else { unknown() };
            table.row([what.to_owned(), per_second, total]);
        }
        table.render_within("", self.width)
    }
}

/// The rows of `all`, those first that grew most in `counted`.
pub(super) fn invalidations(all: &[Invalidation], counted: &[Invalidation], delta: &Delta) -> Table {
    let grown = |row: &Invalidation| {
        counted.iter().find(|grown| (&grown.key, &grown.caller) == (&row.key, &row.caller))
    };
    let mut rows: Vec<(&Invalidation, Option<&Invalidation>)> =
        all.iter().map(|row| (row, grown(row))).collect();
    rows.sort_by_key(|(row, grown)| {
        let grown = grown.map_or((0, 0), |grown| (grown.zapped, grown.ranges));
        std::cmp::Reverse((grown, row.zapped, row.ranges))
    });
    let mut table = Table::new([
        ("cause", Align::Text),
        ("initiator", Align::Text),
        ("event", Align::Text),
        ("zaps/s", Align::Number),
        ("ranges/s", Align::Number),
        ("pages/s", Align::Number),
        ("zaps", Align::Number),
    ]);
    for (row, grown) in rows {
        let per_second = |n: fn(&Invalidation) -> u64| rate(delta.rate(grown.map_or(0, n)));
        table.row([
            cause_with_caller(row.key.cause, row.caller.as_deref()),
            row.key.initiator.label().to_owned(),
            row.key.event.clone(),
            per_second(|row| row.zapped),
            per_second(|row| row.ranges),
            per_second(|row| row.pages),
            count(row.zapped),
        ]);
    }
    table
}
