//! Kernel addresses in what the tracer leaves: none, but in a capture that was made to hold them. And no
//! capture that others can read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use mmu_trace::capture::{Events, Item, Reader};
use mmu_trace_ebpf::abi::{Event, event_kind};

use super::{Check, Group};

/// Recorded with `--kernel-addresses`: that they are found in it makes the other findings worth something.
const KEPT: &str = "crowd.mmt";
/// The kernel's own console, which is no output of the tracer.
const CONSOLE: &str = "console.log";
/// The first address of the kernel's half.
const KERNEL: u64 = 0xffff_8000_0000_0000;
/// Bits of a PTE that are a physical address.
const PTE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Every file of a boot.
pub(super) fn check(out: &Path) -> Result<Group> {
    let mut checks = Vec::new();
    let mut files: Vec<_> = fs::read_dir(out)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort_unstable();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("mmt") => {
                let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
                checks.push(Check::equal(&format!("mode of {name}"), &"600", &format!("{mode:o}")));
                let found = in_capture(&path).with_context(|| format!("cannot read {name}"))?;
                checks.push(Check::equal(&format!("events of {name}"), &(name == KEPT), &(found > 0)));
            }
            Some("txt" | "json" | "log") if name != CONSOLE => {
                let text = fs::read(&path).with_context(|| format!("cannot read {name}"))?;
                checks.push(Check::equal(
                    &name,
                    &"",
                    &in_text(&String::from_utf8_lossy(&text)).unwrap_or_default(),
                ));
            }
            _ => {}
        }
    }
    let is_known = |check: &Check| check.name.ends_with(KEPT);
    checks.push(Check::equal("a capture with addresses", &true, &checks.iter().any(is_known)));
    Ok(Group { name: "kernel addresses".to_owned(), checks })
}

/// Events with an address of the kernel or in a PTE, and snapshots with one in their text.
fn in_capture(path: &Path) -> Result<usize> {
    let mut found = 0;
    for item in Reader::open(path, Events::Unpack)? {
        match item? {
            Item::Events(events) => found += events.iter().filter(|event| has_address(event)).count(),
            Item::Snapshot(snapshot) => {
                found += in_text(&serde_json::to_string(&snapshot)?).into_iter().count()
            }
            Item::Meta(meta) => found += in_text(&serde_json::to_string(&meta)?).into_iter().count(),
            Item::EventCount(_) | Item::End(_) | Item::Damage(_) => {}
        }
    }
    Ok(found)
}

fn has_address(event: &Event) -> bool {
    let in_pte = event.kind == event_kind::CHANGE_PTE && event.value & PTE_ADDRESS != 0;
    in_pte || event.caller != 0 || event.addr >= KERNEL || event.delay_ns >= KERNEL
}

/// The first kernel address of a text, in hexadecimal or decimal digits.
fn in_text(text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).map(|word| word.trim_start_matches("0x"));
    let mut addresses = words.filter(|word| {
        let hexadecimal = (word.len() == 16).then(|| u64::from_str_radix(word, 16).ok()).flatten();
        hexadecimal.or_else(|| word.parse().ok()).is_some_and(|n| n >= KERNEL)
    });
    addresses.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_either_form() {
        for text in ["at 0xffff888102a4b400", "[<ffffffff81a0b1c2>]", "{\"caller\":18446744071588032962}"] {
            assert!(in_text(text).is_some(), "{text}");
        }
        for text in ["", "0x7f0012345678", "CapEff 00000001ffffffff", "1795648743810000000", "ffff"] {
            assert_eq!(in_text(text), None, "{text}");
        }
    }
}
