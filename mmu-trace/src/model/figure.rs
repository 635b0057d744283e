//! Which groups of figures a snapshot knows, and why it lacks the others.
//!
//! A counter whose hook is not attached reads 0 and means nothing. Reports and metrics ask here
//! before they show a figure, so that "unknown" never looks like "none".

use super::{HookState, Snapshot};

/// A group of figures that stands or falls with the same hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// `change_pte` calls and their outcomes.
    ChangePte,
    /// The invalidation table and the `change_pte` calls it implies.
    Invalidations,
    /// Guest faults.
    PageFaults,
    /// Refaults: they need the faults, their results and the brackets.
    Refaults,
    /// Pages merged by KSM.
    KsmMerges,
    /// Copy-on-write breaks of KSM pages.
    KsmCowBreaks,
    /// Pages taken out of KSM.
    KsmUnmerges,
    /// Attempts of KSM that zapped and then gave up.
    KsmFailedAttempts,
}

impl Figure {
    /// Every figure, in the order of the report.
    pub const ALL: &[Self] = &[
        Self::ChangePte,
        Self::Invalidations,
        Self::PageFaults,
        Self::Refaults,
        Self::KsmMerges,
        Self::KsmCowBreaks,
        Self::KsmUnmerges,
        Self::KsmFailedAttempts,
    ];

    /// The name used in metrics and messages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ChangePte => "change_pte",
            Self::Invalidations => "invalidations",
            Self::PageFaults => "page_faults",
            Self::Refaults => "refaults",
            Self::KsmMerges => "ksm_merges",
            Self::KsmCowBreaks => "ksm_cow_breaks",
            Self::KsmUnmerges => "ksm_unmerges",
            Self::KsmFailedAttempts => "ksm_failed_attempts",
        }
    }

    /// What it needs: of each group of kernel functions, one that is hooked.
    const fn needs(self) -> &'static [&'static [&'static str]] {
        const BRACKETS: &[&str] = &["__mmu_notifier_invalidate_range_start"];
        const FAULTS: &[&str] = &["kvm_mmu_page_fault", "kvm_handle_guest_abort"];
        match self {
            Self::ChangePte => &[&["__mmu_notifier_change_pte"]],
            Self::Invalidations => &[BRACKETS, &["__mmu_notifier_invalidate_range_end"]],
            Self::PageFaults => &[FAULTS],
            Self::Refaults => &[BRACKETS, FAULTS, &["kvm_tdp_page_fault", "kvm_handle_guest_abort"]],
            Self::KsmMerges => &[&["try_to_merge_one_page"]],
            Self::KsmCowBreaks => &[&["wp_page_copy", "do_wp_page"]],
            Self::KsmUnmerges => &[&["break_ksm"]],
            Self::KsmFailedAttempts => &[&["write_protect_page"]],
        }
    }
}

impl Snapshot {
    /// Why `figure` is unknown in this snapshot; `None` if it is known. A snapshot that does not
    /// list a needed hook at all is taken at its word.
    #[must_use]
    pub fn unknown(&self, figure: Figure) -> Option<String> {
        if figure == Figure::ChangePte && !self.host.has_change_pte {
            return Some("this kernel has no __mmu_notifier_change_pte (removed in Linux 6.10)".to_owned());
        }
        figure.needs().iter().find_map(|functions| self.none_attached(functions))
    }

    /// Why none of `functions` is attached; `None` if one is, or if none is listed.
    fn none_attached(&self, functions: &[&str]) -> Option<String> {
        let mut listed = self.quality.hooks.iter().filter(|h| functions.contains(&function_name(&h.symbol)));
        let first = listed.next()?;
        if first.state == HookState::Attached || listed.any(|h| h.state == HookState::Attached) {
            return None;
        }
        let reason = first.reason.as_deref().unwrap_or("no reason recorded");
        Some(format!("{} is not attached: {reason}", first.symbol))
    }
}

/// The source's name of a symbol: without its module and without the compiler's suffix.
fn function_name(symbol: &str) -> &str {
    let symbol = symbol.rsplit(':').next().unwrap_or(symbol);
    symbol.split('.').next().unwrap_or(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_is_known_by_its_source_name() {
        assert_eq!(function_name("kvm:kvm_mmu_page_fault"), "kvm_mmu_page_fault");
        assert_eq!(function_name("write_protect_page.constprop.0"), "write_protect_page");
    }
}
