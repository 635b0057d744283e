//! Kernel addresses in text that leaves the process.

/// The digits of an address in the kernel's half, and how they begin.
const DIGITS: usize = 16;
const START: &str = "ffff";

/// `text` with `?` for every kernel address: what the kernel says of a refused program names its maps by
/// them, and where the kernel is in memory is nobody's business.
#[must_use]
pub fn conceal(text: &str) -> String {
    let mut concealed = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, digits) = rest.split_at(start);
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let (digits, behind) = digits.split_at(end);
        concealed.push_str(before);
        concealed.push_str(if is_address(digits) { "?" } else { digits });
        rest = behind;
    }
    concealed + rest
}

fn is_address(digits: &str) -> bool {
    digits.len() == DIGITS && digits.get(..START.len()).is_some_and(|start| start.eq_ignore_ascii_case(START))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_and_everything_else_stays() {
        let log = "7: (18) r1 = 0xffff888102a4b400 ; R1=map_ptr(off=0) 15: (85) call bpf_map_lookup#1\n";
        let expected = "7: (18) r1 = 0x? ; R1=map_ptr(off=0) 15: (85) call bpf_map_lookup#1\n";
        assert_eq!(conceal(log), expected);
        assert_eq!(conceal("ffffffff81a0b1c2 t f"), "? t f");
        assert_eq!(conceal("at FFFFFFFF81A0B1C2"), "at ?");
        for text in ["", "é 0x7f00123456789abc", "ffff", "uuid 0000ffff-ffff", "0xffff888102a4b4001"] {
            assert_eq!(conceal(text), text);
        }
    }
}
