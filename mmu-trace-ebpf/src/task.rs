//! What one task is doing.
//!
//! The state is keyed by thread, never by CPU: `invalidate_range_start` may sleep and migrate.
//! Start, `change_pte` and end of one bracket always run in one task, so it needs no lock.
//!
//! ```text
//!  invalidate_range_start   push
//!    kvm unmap, flush         mark the innermost bracket
//!    change_pte               open a call inside the innermost bracket around its address
//!      kvm set_spte, flush      mark the call
//!  invalidate_range_end     close the call, pop down to the bracket
//! ```
//!
//! Brackets nest: what works on a range may split huge pages in it, or have to reclaim memory, which is
//! anybody's. A bracket that cannot hold the next one has ended unseen: its end was missed, and it must
//! not stay in the way of everything that follows.
//!
//! A call is closed by the next call or by the end of its bracket, not by its own return: KVM does
//! nothing between the two that would mark it, and so no return probe can be missed.

use crate::{
    decide::{bracket_flags, call_flags},
    kind::Cause,
};

/// Most nested brackets of one task: `munmap` splitting a huge page makes two.
pub const MAX_DEPTH: usize = 4;

const TOP_MASK: usize = MAX_DEPTH - 1;
const _: () = assert!(MAX_DEPTH.is_power_of_two());

/// One `invalidate_range_start` that has not ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// The address space.
    pub mm: u64,
    /// First address.
    pub start: u64,
    /// First address behind.
    pub end: u64,
    /// Entry of `invalidate_range_start`, nanoseconds.
    pub t0_ns: u64,
    /// Return address in the caller; 0: unknown.
    pub caller: u64,
    /// VM slot.
    pub slot: u32,
    /// `Cause`.
    pub cause: u8,
    /// `Initiator`.
    pub initiator: u8,
    /// `enum mmu_notifier_event`.
    pub event: u8,
    /// [`bracket_flags`].
    pub flags: u8,
}

/// One `change_pte` call that is not classified yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangePte {
    /// The address.
    pub addr: u64,
    /// The new PTE.
    pub pte: u64,
    /// Entry, nanoseconds.
    pub t0_ns: u64,
    /// Duration, nanoseconds; `u64::MAX`: the return was not seen.
    pub ns: u64,
    /// Return address in the caller; 0: unknown.
    pub caller: u64,
    /// `Cause`.
    pub cause: u8,
    /// [`call_flags`].
    pub flags: u8,
    /// Index of the enclosing bracket.
    pub bracket: u8,
    /// Padding.
    pub pad: [u8; 5],
}

/// One guest fault in `kvm_mmu_page_fault`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Entry, nanoseconds.
    pub t0_ns: u64,
    /// Guest physical address.
    pub gpa: u64,
    /// `struct kvm_vcpu *`, until it is asked for the VM.
    pub vcpu: u64,
    /// `struct kvm_page_fault *`, kept for a return probe that cannot see arguments.
    pub fault: u64,
    /// Host virtual address of the page; 0: unknown.
    pub hva: u64,
    /// The VM's address space.
    pub mm: u64,
    /// Refault: nanoseconds since the zap.
    pub delay_ns: u64,
    /// VM slot.
    pub slot: u32,
    /// `FaultResult`.
    pub result: u8,
    /// Refault: `Cause` of the zap.
    pub cause: u8,
    /// [`fault_flags`].
    pub flags: u8,
    /// [`access`].
    pub access: u8,
}

/// Bits of [`Fault::access`]: what the hardware says of the access that faulted.
pub mod access {
    /// A mapping was there, and did not allow it.
    pub const PRESENT: u8 = 1;
    /// It was a write.
    pub const WRITE: u8 = 1 << 1;
}

/// Bits of [`Fault::flags`].
pub mod fault_flags {
    /// The handler with the result code was entered and has not returned.
    pub const RESULT_PENDING: u8 = 1;
    /// It is a refault.
    pub const REFAULT: u8 = 1 << 1;
    /// The refault was avoidable.
    pub const AVOIDABLE: u8 = 1 << 2;
    /// `Fault::mm` and `Fault::slot` are known, and the fault is counted as begun.
    pub const ATTRIBUTED: u8 = 1 << 3;
}

/// What the brackets inside one KSM function did.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KsmOp {
    /// The address space.
    pub mm: u64,
    /// The page's address.
    pub addr: u64,
    /// VM slot.
    pub slot: u32,
    /// A write-protect bracket ended inside the current `write_protect_page`.
    pub write_protect: u8,
    /// That bracket zapped a mapping.
    pub write_protect_zapped: u8,
    /// A bracket ended inside the current `try_to_merge_one_page`.
    pub merge: u8,
    /// A replace bracket ended inside it.
    pub replace: u8,
}

/// The VM that a task last dealt with, which it need not look for again while that one lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownVm {
    /// Its address space; 0: none.
    pub mm: u64,
    /// The `struct kvm_vcpu *` of it that the task runs; 0: none.
    pub vcpu: u64,
    /// Its slot.
    pub slot: u32,
    /// Padding.
    pub pad: u32,
}

/// The state of one task (maps `TASKS` and `MORE_TASKS`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskState {
    /// The open brackets, outermost first.
    pub brackets: [Bracket; MAX_DEPTH],
    /// The open `change_pte` call.
    pub call: ChangePte,
    /// The guest fault, if `scopes` has `FAULT`.
    pub fault: Fault,
    /// The KSM operation.
    pub ksm: KsmOp,
    /// How many of `brackets` are open.
    pub depth: u32,
    /// `decide::scope` bits.
    pub scopes: u32,
    /// Brackets beyond `MAX_DEPTH` that are open and not stored.
    pub overflow: u32,
    /// The thread id of the task; 0: of none.
    pub tid: u32,
    /// The VM.
    pub vm: KnownVm,
    /// The `struct vm_fault` of the last copy on write that may have begun; 0: none since the last bracket
    /// of one.
    pub copied_by: u64,
}

/// What [`TaskState::push`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// 1: too deep, only counted.
    pub too_deep: u64,
    /// Non-blocking brackets that had failed and were dropped.
    pub abandoned: u64,
    /// Brackets that had ended unseen and were dropped.
    pub missed_ends: u64,
}

impl Bracket {
    /// Whether this open bracket must have ended before `next` could begin in the same task.
    #[inline(always)]
    fn precedes(&self, next: &Self) -> bool {
        let overlaps = self.mm == next.mm && self.start < next.end && next.start < self.end;
        !overlaps && (!comes_anywhere(next.cause) || comes_anywhere(self.cause))
    }
}

/// An index into the brackets. The black box keeps the compiler from dropping a mask that it can prove
/// needless and the verifier cannot.
#[inline(always)]
fn masked(index: usize) -> usize {
    core::hint::black_box(index) & TOP_MASK
}

/// Whether brackets of `cause` may begin inside one over any other memory: reclaim and compaction run in
/// whatever task needs a page, and split what they find.
#[inline(always)]
fn comes_anywhere(cause: u8) -> bool {
    const CAUSES: u32 = 1 << Cause::Other as u32
        | 1 << Cause::Reclaim as u32
        | 1 << Cause::Migrate as u32
        | 1 << Cause::DirtyTracking as u32
        | 1 << Cause::ThpSplit as u32;
    CAUSES >> (cause & 31) & 1 != 0
}

impl TaskState {
    /// A task that does nothing.
    pub const IDLE: Self = Self {
        brackets: [Bracket {
            mm: 0,
            start: 0,
            end: 0,
            t0_ns: 0,
            caller: 0,
            slot: 0,
            cause: 0,
            initiator: 0,
            event: 0,
            flags: 0,
        }; MAX_DEPTH],
        call: ChangePte {
            addr: 0,
            pte: 0,
            t0_ns: 0,
            ns: 0,
            caller: 0,
            cause: 0,
            flags: 0,
            bracket: 0,
            pad: [0; 5],
        },
        fault: Fault {
            t0_ns: 0,
            gpa: 0,
            vcpu: 0,
            fault: 0,
            hva: 0,
            mm: 0,
            delay_ns: 0,
            slot: 0,
            result: 0,
            cause: 0,
            flags: 0,
            access: 0,
        },
        ksm: KsmOp {
            mm: 0,
            addr: 0,
            slot: 0,
            write_protect: 0,
            write_protect_zapped: 0,
            merge: 0,
            replace: 0,
        },
        depth: 0,
        scopes: 0,
        overflow: 0,
        tid: 0,
        vm: KnownVm { mm: 0, vcpu: 0, slot: 0, pad: 0 },
        copied_by: 0,
    };

    /// Opens a bracket.
    ///
    /// A non-blocking bracket (the OOM reaper's) holds no other one, so finding it still open means
    /// that its start failed and no end will come.
    #[inline(always)]
    pub fn push(&mut self, bracket: Bracket) -> Pushed {
        let mut pushed = Pushed::default();
        for _ in 0..MAX_DEPTH {
            let Some(top) = self.top() else { break };
            if top.flags & bracket_flags::NONBLOCK != 0 {
                pushed.abandoned += 1;
            } else if top.precedes(&bracket) {
                pushed.missed_ends += 1;
            } else {
                break;
            }
            self.drop_top();
        }
        let depth = self.depth as usize;
        if depth >= MAX_DEPTH {
            self.overflow += 1;
            pushed.too_deep = 1;
            return pushed;
        }
        self.brackets[masked(depth)] = bracket;
        self.depth = depth as u32 + 1;
        pushed
    }

    /// Forgets the innermost bracket, with a call in it, and what was too deep inside.
    #[inline(always)]
    fn drop_top(&mut self) {
        self.depth -= 1;
        self.overflow = 0;
        if self.call.bracket as u32 == self.depth {
            self.call.flags = 0;
        }
    }

    /// The innermost bracket.
    #[inline(always)]
    pub fn top(&mut self) -> Option<&mut Bracket> {
        let depth = self.depth as usize;
        if depth == 0 || depth > MAX_DEPTH {
            return None;
        }
        Some(&mut self.brackets[masked(depth - 1)])
    }

    /// The index of the innermost open bracket for which `is_it` holds.
    #[inline(always)]
    pub fn find(&self, is_it: impl Fn(&Bracket) -> bool) -> Option<usize> {
        let depth = self.depth as usize;
        let mut found = None;
        for index in 0..MAX_DEPTH {
            if index < depth && is_it(&self.brackets[index]) {
                found = Some(index);
            }
        }
        found
    }

    /// Marks the innermost bracket, or the open call inside it: KVM flushed TLBs.
    #[inline(always)]
    pub fn mark_flush(&mut self) {
        if self.call.flags & call_flags::ACTIVE != 0 {
            self.call.flags |= call_flags::FLUSHED;
        } else if let Some(top) = self.top() {
            top.flags |= bracket_flags::FLUSHED;
        }
    }

    /// Notes a bracket that ended inside a KSM function.
    #[inline(always)]
    pub fn note_ksm(&mut self, bracket: &Bracket) {
        use crate::decide::is_merge;
        if !is_merge(bracket.cause) {
            return;
        }
        self.ksm.mm = bracket.mm;
        self.ksm.addr = bracket.start;
        self.ksm.slot = bracket.slot;
        self.ksm.merge = 1;
        if bracket.cause == Cause::KsmReplace as u8 {
            self.ksm.replace = 1;
        } else {
            self.ksm.write_protect = 1;
            self.ksm.write_protect_zapped = bracket_flags::zapped(bracket.flags) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bracket(mm: u64, start: u64, end: u64) -> Bracket {
        Bracket { mm, start, end, ..TaskState::IDLE.brackets[0] }
    }

    #[test]
    fn finds_the_innermost_bracket_around_an_address() {
        let mut task = TaskState::IDLE;
        let fork = Cause::Fork as u8;
        task.push(Bracket { cause: fork, ..bracket(1, 0, 100) });
        task.push(Bracket { cause: fork, ..bracket(1, 10, 20) });
        task.push(Bracket { cause: Cause::Reclaim as u8, ..bracket(2, 0, 100) });
        let around = |mm, addr| task.find(|b: &Bracket| b.mm == mm && b.start <= addr && addr < b.end);
        assert_eq!(around(1, 15), Some(1));
        assert_eq!(around(1, 20), Some(0));
        assert_eq!(around(2, 15), Some(2));
        assert_eq!(around(3, 15), None);
    }

    const STORED: Pushed = Pushed { too_deep: 0, abandoned: 0, missed_ends: 0 };

    #[test]
    fn a_failed_non_blocking_bracket_makes_room() {
        let mut task = TaskState::IDLE;
        let mut reaper = bracket(1, 0, 4096);
        reaper.flags = bracket_flags::NONBLOCK;
        assert_eq!(task.push(reaper), STORED);
        reaper.start = 8192;
        assert_eq!(task.push(reaper), Pushed { abandoned: 1, ..STORED });
        assert_eq!((task.depth, task.brackets[0].start), (1, 8192));
    }

    #[test]
    fn brackets_beyond_the_stack_are_counted() {
        let mut task = TaskState::IDLE;
        for _ in 0..MAX_DEPTH {
            assert_eq!(task.push(bracket(1, 0, 1)), STORED);
        }
        assert_eq!(task.push(bracket(1, 0, 1)), Pushed { too_deep: 1, ..STORED });
        assert_eq!((task.depth as usize, task.overflow), (MAX_DEPTH, 1));
    }

    #[test]
    fn brackets_whose_end_was_missed_do_not_stay() {
        let of = |cause, start| Bracket { cause: cause as u8, ..bracket(1, start, start + 1) };
        let mut task = TaskState::IDLE;
        task.push(of(Cause::KsmWriteProtect, 5));
        assert_eq!(task.push(of(Cause::KsmReplace, 5)), STORED, "the same page may be nested");
        task.call = ChangePte { flags: call_flags::ACTIVE, bracket: 1, ..task.call };
        assert_eq!(task.push(of(Cause::KsmWriteProtect, 6)), Pushed { missed_ends: 2, ..STORED });
        assert_eq!((task.depth, task.brackets[0].start, task.call.flags), (1, 6, 0));
    }

    #[test]
    fn reclaim_may_begin_inside_anything_but_itself() {
        let of = |cause, mm, start| Bracket { cause: cause as u8, ..bracket(mm, start, start + 9) };
        let mut task = TaskState::IDLE;
        task.push(of(Cause::Fork, 1, 0));
        assert_eq!(task.push(of(Cause::Reclaim, 2, 50)), STORED);
        assert_eq!(task.push(of(Cause::ThpSplit, 2, 55)), STORED, "splits what it reclaims");
        assert_eq!(task.push(of(Cause::Migrate, 3, 0)), Pushed { missed_ends: 2, ..STORED });
        assert_eq!((task.depth, task.brackets[1].mm), (2, 3));
    }

    #[test]
    fn a_flush_belongs_to_the_open_call_else_to_the_bracket() {
        let mut task = TaskState::IDLE;
        task.mark_flush();
        assert_eq!(task, TaskState::IDLE);
        task.push(bracket(1, 0, 1));
        task.mark_flush();
        assert_eq!(task.brackets[0].flags, bracket_flags::FLUSHED);
        task.call.flags = call_flags::ACTIVE;
        task.mark_flush();
        assert_eq!(task.call.flags, call_flags::ACTIVE | call_flags::FLUSHED);
    }
}
