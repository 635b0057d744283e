//! Figures that more than one dashboard, rule or alert shows.

use mmu_trace::metrics::table;

use super::{
    dashboard::Scope,
    promql::{Expr, HOST, Selector},
};

/// Bytes of the pages that KSM counts, on every kernel of the compatibility table.
pub(super) const PAGE_BYTES: f64 = 4096.0;

/// Values of `domain` that are no single VM.
pub(super) const NO_VM: &str = "unattributed|other";

/// Why KSM's state may be unknown.
pub(super) const NO_KSM_STATE: &str = "not known: no KSM in this kernel, or an old capture";

/// Gaps that are no loss, or that take refaults of large ranges only, as in the report's "complete".
const HARMLESS_GAPS: &str = "before_start|abandoned_bracket|range_forgotten";

/// Causes of refaults that KSM is behind: its own operations, and copies on write of what it merged.
pub(super) const KSM_CAUSES: &str = "ksm_.*|cow_.*";

/// What was missed, lost or evicted in `window`, by host: the figures are too low by about that many.
pub(super) fn losses(scope: Scope, window: &str) -> Expr {
    let grown = |selector: Selector| selector.increase(window).sum_by(HOST);
    let gaps = scope.of(&table::DATA_GAPS).unlike("gap", HARMLESS_GAPS);
    // The kernel counts a miss when it happens, we when the task comes back: the same misses, so the larger
    // figure, never the sum.
    let missed = grown(scope.of(&table::PROBE_MISSES)).larger_of(grown(scope.of(&table::MISSED_RETURNS)));
    missed
        .plus(grown(scope.of(&table::MAP_FULL)))
        .plus(grown(scope.of(&table::EVICTED_PAGES)))
        .plus(grown(gaps))
}

/// Hooks that are needed and not attached, by host.
pub(super) fn missing_hooks(scope: Scope) -> Expr {
    scope.of(&table::REQUIRED_HOOKS_MISSING).value().sum_by(HOST)
}

/// 1 where nothing is missing, else 0, by host.
pub(super) fn complete(scope: Scope, window: &str) -> Expr {
    missing_hooks(scope).zero_as_one().times(losses(scope, window).zero_as_one())
}

/// Memory that KSM saves, in bytes.
pub(super) fn saved_bytes(scope: Scope) -> Expr {
    scope.of(&table::KSM_PAGES_SHARING).value().scaled(PAGE_BYTES)
}

/// Part of the refault time of a host that KSM is behind, if refaults cost the same whatever their cause.
pub(super) fn ksm_refault_seconds(scope: Scope, window: &str) -> Expr {
    let seconds = scope.of(&table::REFAULT_SECONDS_TOTAL).rate(window).sum_by(HOST);
    let by_ksm = scope.of(&table::REFAULTS).like("cause", KSM_CAUSES).rate(window).sum_by(HOST);
    let all = scope.of(&table::REFAULTS).rate(window).sum_by(HOST);
    // Where there are none at all the seconds are 0.
    seconds.clone().times(by_ksm.per(all.above(0.0))).or(seconds)
}

/// The share of `part` in `whole`, without a value where there is no whole.
pub(super) fn share(part: Expr, whole: Expr) -> Expr {
    part.per(whole.above(0.0))
}
