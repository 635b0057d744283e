//! The columns of the VM table: what each shows, how wide it is, and which goes first where there is no
//! room.

use std::cmp::Ordering;

use crate::{
    model::{Counters, Delta, Figure, Snapshot, VmDelta, VmKey},
    report::{Outcomes, UNATTRIBUTED, count, percent, printable},
};

/// A column of the VM table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Vm,
    Pid,
    Calls,
    Noop,
    Refaults,
    Avoidable,
    Vcpu,
    Faults,
    Zaps,
    Merges,
    Breaks,
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    /// Events per second.
    Rate(f64),
    /// A part of a whole.
    Share(u64, u64),
    /// Per cent of one vCPU's time.
    Percent(f64),
    /// The figure has no meaning here.
    Undefined,
    /// Its hook is not attached.
    Unknown,
}

/// Which figures a snapshot knows.
#[derive(Clone, Debug)]
pub(super) struct Known {
    unknown: Vec<Figure>,
    /// Whether the kernel calls `change_pte`; else the calls are those that it would make.
    pub(super) is_direct: bool,
}

impl Known {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let is_unknown = |figure: &Figure| snapshot.unknown(*figure).is_some();
        let unknown = Figure::ALL.iter().copied().filter(is_unknown).collect();
        Self { unknown, is_direct: snapshot.host.has_change_pte }
    }

    pub(super) fn has(&self, figure: Figure) -> bool {
        !self.unknown.contains(&figure)
    }

    /// The figure behind the calls.
    pub(super) fn calls(&self) -> Figure {
        if self.is_direct { Figure::ChangePte } else { Figure::Invalidations }
    }
}

/// The calls of `change_pte`, or those that there would be.
pub(super) fn calls(counters: &Counters, known: &Known) -> u64 {
    if known.is_direct { counters.change_pte_calls() } else { counters.would_be.values().sum() }
}

/// The invalidations in which KVM tore something down.
pub(super) fn zaps(counters: &Counters) -> u64 {
    counters.invalidations.iter().map(|row| row.zapped).sum()
}

impl Column {
    /// Every column, from left to right, which is also the order of sorting by them.
    pub(super) const ALL: &[Self] = &[
        Self::Vm,
        Self::Pid,
        Self::Calls,
        Self::Noop,
        Self::Refaults,
        Self::Avoidable,
        Self::Vcpu,
        Self::Faults,
        Self::Zaps,
        Self::Merges,
        Self::Breaks,
    ];

    /// Those that go where there is no room, the first first. The one that is sorted by stays.
    pub(super) const DROPPED: &[Self] = &[
        Self::Pid,
        Self::Breaks,
        Self::Merges,
        Self::Zaps,
        Self::Faults,
        Self::Noop,
        Self::Calls,
        Self::Avoidable,
        Self::Refaults,
        Self::Vcpu,
    ];

    /// The word above it.
    pub(super) const fn head(self, is_direct: bool) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::Pid => "pid",
            Self::Calls if is_direct => "calls/s",
            Self::Calls => "would-be/s",
            Self::Noop => "no-op",
            Self::Refaults => "refaults/s",
            Self::Avoidable => "avoid/s",
            Self::Vcpu => "vCPU %",
            Self::Faults => "faults/s",
            Self::Zaps => "zaps/s",
            Self::Merges => "merges/s",
            Self::Breaks => "breaks/s",
        }
    }

    /// Its width on the screen; of the names at least.
    pub(super) fn width(self, is_direct: bool) -> u16 {
        /// The longest cell.
        const CELL: usize = 7;
        const NAME: usize = 11;
        let width = if self == Self::Vm { NAME } else { self.head(is_direct).len().max(CELL) };
        u16::try_from(width).unwrap_or(u16::MAX)
    }

    pub(super) fn cell(self, vm: &VmDelta, delta: &Delta, known: &Known) -> Cell {
        let counted = &vm.counted;
        let rate = |figure, n| if known.has(figure) { Cell::Rate(delta.rate(n)) } else { Cell::Unknown };
        let refaults = counted.refaults_total();
        match self {
            Self::Vm => Cell::Text(name(vm)),
            Self::Pid => pid(vm),
            Self::Calls => rate(known.calls(), calls(counted, known)),
            Self::Noop => noop(counted, known),
            Self::Refaults => rate(Figure::Refaults, refaults.n),
            Self::Avoidable => rate(Figure::Refaults, refaults.avoidable),
            Self::Vcpu if !known.has(Figure::Refaults) => Cell::Unknown,
            Self::Vcpu => Cell::Percent(100.0 * delta.rate(refaults.ns) / 1e9),
            Self::Faults => rate(Figure::PageFaults, counted.faults_entered),
            Self::Zaps => rate(Figure::Invalidations, zaps(counted)),
            Self::Merges => rate(Figure::KsmMerges, counted.ksm_merges),
            Self::Breaks => rate(Figure::KsmCowBreaks, counted.ksm_cow_breaks),
        }
    }

    /// The order of two VMs by this column: large figures first, names from A to Z; what is equal by
    /// name and process.
    pub(super) fn compare(self, a: &VmDelta, b: &VmDelta, delta: &Delta, known: &Known) -> Ordering {
        let by_name = || (name(a), a.identity.pid).cmp(&(name(b), b.identity.pid));
        match self {
            Self::Vm => by_name(),
            Self::Pid => a.identity.pid.cmp(&b.identity.pid).then_with(by_name),
            _ => {
                let rank = |vm| self.cell(vm, delta, known).rank();
                rank(b).total_cmp(&rank(a)).then_with(by_name)
            }
        }
    }

    /// The column that is sorted by after this one.
    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|column| *column == self).unwrap_or(0);
        Self::ALL.get(at + 1).copied().unwrap_or(Self::Vm)
    }

    /// The columns that fit into `width`, blanks between them included.
    pub(super) fn fitting(width: u16, sort: Self, is_direct: bool) -> Vec<Self> {
        let mut columns = Self::ALL.to_vec();
        let needed =
            |columns: &[Self]| columns.iter().map(|column| column.width(is_direct) + 1).sum::<u16>() - 1;
        for dropped in Self::DROPPED.iter().filter(|column| **column != sort) {
            if needed(&columns) <= width {
                break;
            }
            columns.retain(|column| column != dropped);
        }
        columns
    }
}

/// The VM's name as a screen may show it.
pub(super) fn name(vm: &VmDelta) -> String {
    match vm.key {
        VmKey::Vm { .. } => printable(&vm.identity.name),
        VmKey::Unattributed => UNATTRIBUTED.to_owned(),
    }
}

fn pid(vm: &VmDelta) -> Cell {
    match vm.identity.pid {
        0 if vm.key == VmKey::Unattributed => Cell::Undefined,
        0 => Cell::Unknown,
        pid => Cell::Text(pid.to_string()),
    }
}

fn noop(counters: &Counters, known: &Known) -> Cell {
    let outcomes = Outcomes::from(counters);
    match (known.is_direct, outcomes.decided()) {
        (true, _) if !known.has(Figure::ChangePte) => Cell::Unknown,
        (false, _) | (true, 0) => Cell::Undefined,
        (true, decided) => Cell::Share(outcomes.noop(), decided),
    }
}

impl Cell {
    /// What it is sorted by.
    fn rank(&self) -> f64 {
        match self {
            Self::Rate(n) | Self::Percent(n) => *n,
            Self::Share(part, whole) => *part as f64 / *whole as f64,
            Self::Text(_) | Self::Undefined => -1.0,
            Self::Unknown => -2.0,
        }
    }

    /// For people, in seven characters.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Rate(n) => rate(*n),
            Self::Share(part, whole) => percent(*part, *whole),
            Self::Percent(n) => format!("{} %", rate(*n)),
            Self::Undefined => "-".to_owned(),
            Self::Unknown => "?".to_owned(),
        }
    }

    /// For programs: a number, `-` or `?`; nothing but a name holds a blank.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Rate(n) | Self::Percent(n) => format!("{n:.1}"),
            Self::Share(part, whole) => format!("{:.1}", 100.0 * *part as f64 / *whole as f64),
            Self::Text(_) | Self::Undefined | Self::Unknown => self.text(),
        }
    }
}

/// A rate in at most seven characters; only nothing is `0`.
pub(super) fn rate(n: f64) -> String {
    match n {
        n if n <= 0.0 => "0".to_owned(),
        n if n < 0.05 => "<0.1".to_owned(),
        n if n < 99.95 => format!("{n:.1}"),
        n if n < 999_999.5 => count(n.round() as u64),
        n if n < 999.95e6 => format!("{:.1}M", n / 1e6),
        n => format!("{:.1}G", n / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_in_the_stated_order() {
        let all = |width, sort| Column::fitting(width, sort, true);
        assert_eq!(all(200, Column::Vcpu), Column::ALL);
        let narrow = all(80, Column::Vcpu);
        assert!(!narrow.contains(&Column::Pid) && !narrow.contains(&Column::Breaks), "{narrow:?}");
        assert!(narrow.contains(&Column::Merges), "{narrow:?}");
        assert_eq!(all(1, Column::Vcpu), [Column::Vm, Column::Vcpu]);
    }

    #[test]
    fn the_column_that_is_sorted_by_stays() {
        assert_eq!(Column::fitting(1, Column::Pid, true), [Column::Vm, Column::Pid]);
    }

    #[test]
    fn sorting_goes_through_every_column() {
        let mut column = Column::Vm;
        for expected in Column::ALL {
            assert_eq!(column, *expected);
            column = column.next();
        }
        assert_eq!(column, Column::Vm);
    }

    #[test]
    fn rates_fit_and_are_0_only_for_nothing() {
        let cases = [
            (0.0, "0"),
            (0.01, "<0.1"),
            (0.25, "0.2"),
            (99.94, "99.9"),
            (99.96, "100"),
            (12_345.6, "12,346"),
            (999_999.4, "999,999"),
            (1_250_000.0, "1.2M"),
            (5e9, "5.0G"),
        ];
        for (n, text) in cases {
            assert_eq!(rate(n), text);
            assert!(text.len() <= 7);
        }
    }
}
