//! Golden tests of the BTF reader on BTF cut from Debian's kernel packages.
//!
//! The expected figures come from `pahole -F btf -C STRUCT` (offsets) and `bpftool btf dump` (enumerators,
//! prototypes) on the uncut BTF of the same packages; `tests/data/btf/README.md` says how the files
//! were made.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
};

use mmu_trace::kernel::btf::{Btf, BtfError, ParamKind};
use mmu_trace_ebpf::abi::offset::MEMBERS;

const BOOKWORM: &str = "6.1.0-56-cloud-amd64";
const BACKPORTS: &str = "6.12.113+deb12-cloud-amd64";

fn dir(kernel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/btf").join(kernel)
}

fn blobs(kernel: &str) -> (Vec<u8>, Vec<u8>) {
    let read = |name| std::fs::read(dir(kernel).join(name)).unwrap();
    (read("vmlinux"), read("kvm"))
}

fn load(kernel: &str) -> Btf {
    Btf::load_from(&dir(kernel)).unwrap()
}

/// Offsets of all members the tracer looks up, in the order of `MEMBERS`.
fn offsets(kernel: &str) -> Vec<(String, Option<u32>)> {
    let btf = load(kernel);
    let row =
        |&(strukt, member): &(&str, &str)| (format!("{strukt}.{member}"), btf.member_offset(strukt, member));
    MEMBERS.iter().map(row).collect()
}

/// Checks every member the tracer looks up: where it is, or that the kernel lacks it.
fn expect_offsets(kernel: &str, expected: &[(&str, u32)], lacking: &[&str]) {
    let expected = expected.iter().map(|&(name, offset)| (name.to_owned(), Some(offset)));
    let lacking = lacking.iter().map(|&name| (name.to_owned(), None));
    assert_eq!(offsets(kernel), expected.chain(lacking).collect::<Vec<_>>());
}

const ONLY_ON_ARM64: [&str; 3] =
    ["kvm_vcpu_arch.fault", "kvm_vcpu_fault_info.esr_el2", "kvm_vcpu_fault_info.hpfar_el2"];

#[test]
fn members_of_6_1_are_where_pahole_says() {
    expect_offsets(
        BOOKWORM,
        &[
            ("mmu_notifier_range.mm", 8),
            ("mmu_notifier_range.start", 16),
            ("mmu_notifier_range.end", 24),
            ("mmu_notifier_range.flags", 32),
            ("mmu_notifier_range.event", 36),
            ("kvm_vcpu.kvm", 0),
            ("kvm.mm", 72),
            ("kvm_page_fault.slot", 32),
            ("kvm_page_fault.gfn", 24),
            ("kvm_memory_slot.userspace_addr", 248),
            ("kvm_memory_slot.base_gfn", 176),
            ("task_struct.mm", 2272),
            ("task_struct.tgid", 2420),
            ("task_struct.group_leader", 2480),
            ("task_struct.start_boottime", 2784),
            ("mm_struct.owner", 928),
            ("vm_fault.vma", 0),
            ("vm_fault.page", 80),
            ("vm_area_struct.vm_mm", 16),
            ("page.mapping", 24),
            ("kvm.arch", 4760),
            ("kvm_vcpu.arch", 296),
            ("kvm_arch.tdp_mmu_enabled", 34456),
        ],
        &ONLY_ON_ARM64,
    );
}

#[test]
fn members_of_6_12_are_where_pahole_says() {
    expect_offsets(
        BACKPORTS,
        &[
            ("mmu_notifier_range.mm", 0),
            ("mmu_notifier_range.start", 8),
            ("mmu_notifier_range.end", 16),
            ("mmu_notifier_range.flags", 24),
            ("mmu_notifier_range.event", 28),
            ("kvm_vcpu.kvm", 0),
            ("kvm.mm", 72),
            ("kvm_page_fault.slot", 40),
            ("kvm_page_fault.gfn", 32),
            ("kvm_memory_slot.userspace_addr", 248),
            ("kvm_memory_slot.base_gfn", 176),
            ("task_struct.mm", 2304),
            ("task_struct.tgid", 2436),
            ("task_struct.group_leader", 2496),
            ("task_struct.start_boottime", 2784),
            ("mm_struct.owner", 1144),
            ("vm_fault.vma", 0),
            ("vm_fault.page", 80),
            ("vm_area_struct.vm_mm", 16),
            ("page.mapping", 24),
            ("kvm.arch", 4760),
            ("kvm_vcpu.arch", 296),
        ],
        &[&["kvm_arch.tdp_mmu_enabled"], &ONLY_ON_ARM64[..]].concat(),
    );
}

#[test]
fn enumerators_differ_between_kernels_as_bpftool_says() {
    let names = ["RET_PF_RETRY", "RET_PF_EMULATE", "RET_PF_FIXED", "RET_PF_SPURIOUS"];
    let values = |kernel| names.map(|name| load(kernel).enum_value(name));
    assert_eq!(values(BOOKWORM), [Some(1), Some(2), Some(4), Some(5)]);
    assert_eq!(values(BACKPORTS), [Some(1), Some(2), Some(5), Some(6)]);
    assert_eq!(load(BOOKWORM).enum_value("RET_PF_WRITE_PROTECTED"), None);
}

#[test]
fn notifier_events_are_listed_in_order() {
    let events = load(BOOKWORM).enum_variants("mmu_notifier_event").unwrap();
    let events: Vec<_> = events.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(
        events,
        [
            ("MMU_NOTIFY_UNMAP", 0),
            ("MMU_NOTIFY_CLEAR", 1),
            ("MMU_NOTIFY_PROTECTION_VMA", 2),
            ("MMU_NOTIFY_PROTECTION_PAGE", 3),
            ("MMU_NOTIFY_SOFT_DIRTY", 4),
            ("MMU_NOTIFY_RELEASE", 5),
            ("MMU_NOTIFY_MIGRATE", 6),
            ("MMU_NOTIFY_EXCLUSIVE", 7),
        ]
    );
}

#[test]
fn change_pte_takes_a_struct_by_value_and_is_gone_in_6_12() {
    let function = load(BOOKWORM).function("__mmu_notifier_change_pte").unwrap();
    let params: Vec<_> = function.params.iter().map(|p| (p.name.as_str(), p.kind, p.size)).collect();
    assert_eq!(
        params,
        [
            ("mm", ParamKind::Pointer, Some(8)),
            ("address", ParamKind::Integer, Some(8)),
            ("pte", ParamKind::Aggregate, Some(8)),
        ]
    );
    assert!(function.returns_void && !function.in_split);
    assert_eq!(load(BACKPORTS).function("__mmu_notifier_change_pte"), None);
}

#[test]
fn functions_of_the_module_are_told_from_those_of_the_kernel() {
    for kernel in [BOOKWORM, BACKPORTS] {
        let btf = load(kernel);
        for (name, in_split) in [("kvm_tdp_page_fault", true), ("get_task_mm", false), ("do_wp_page", false)]
        {
            let function = btf.function(name).unwrap();
            assert_eq!((function.in_split, function.returns_void), (in_split, false), "{kernel} {name}");
            assert_eq!(btf.in_split(function.id), in_split);
        }
        assert_eq!(btf.function("kvm_mmu_page_fault").unwrap().params.len(), 5);
    }
    assert!(load(BOOKWORM).function("wp_page_copy").is_some());
    assert!(load(BACKPORTS).function("wp_page_copy").is_none(), "inlined there");
}

#[test]
fn without_the_module_only_its_own_types_are_missing() {
    let btf = Btf::parse(blobs(BOOKWORM).0, None).unwrap();
    assert_eq!(btf.member_offset("kvm", "mm"), Some(72));
    assert_eq!(btf.member_offset("kvm_page_fault", "gfn"), None);
    assert_eq!(btf.enum_value("RET_PF_FIXED"), None);
}

#[test]
fn a_kernel_without_btf_is_a_typed_error() {
    assert!(matches!(Btf::load_from(&dir("none")), Err(BtfError::Absent { .. })));
}

/// Asks everything, so that a damaged blob meets every access.
fn query(base: &[u8], split: &[u8]) {
    let Ok(btf) = Btf::parse(base.to_vec(), Some(split.to_vec())) else { return };
    for (strukt, member) in MEMBERS {
        black_box(btf.member_offset(strukt, member));
    }
    black_box(btf.enum_value("RET_PF_FIXED"));
    black_box(btf.enum_variants("mmu_notifier_event"));
    for name in ["__mmu_notifier_change_pte", "kvm_mmu_page_fault", "break_ksm", "absent"] {
        black_box(btf.function(name));
    }
}

#[test]
fn every_truncation_is_an_error_and_never_a_panic() {
    let (base, split) = blobs(BOOKWORM);
    for len in 0..base.len() {
        assert!(Btf::parse(base[..len].to_vec(), None).is_err(), "base cut to {len} bytes");
    }
    for len in 0..split.len() {
        assert!(Btf::parse(base.clone(), Some(split[..len].to_vec())).is_err(), "split cut to {len} bytes");
    }
}

#[test]
fn no_corrupt_byte_makes_it_panic() {
    let (mut base, mut split) = blobs(BOOKWORM);
    for at in 0..split.len() {
        for flip in [0x01, 0x80, 0xff] {
            split[at] ^= flip;
            query(&base, &split);
            split[at] ^= flip;
        }
    }
    for at in (0..base.len()).step_by(3) {
        base[at] ^= 0xff;
        query(&base, &split);
        base[at] ^= 0xff;
    }
}
