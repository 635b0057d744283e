//! Text that a guest's owner chose, made fit for reports, labels and terminals.

/// Longest name, in bytes: label values and table columns stay readable.
pub const MAX_NAME_BYTES: usize = 128;

/// `raw` as text of at most `max_bytes`, cut at a character boundary. Invalid UTF-8, control
/// characters and characters that reorder a line are replaced by U+FFFD.
#[must_use]
pub fn clean(raw: &[u8], max_bytes: usize) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(raw).chars() {
        let c = if c.is_control() || reorders(c) { char::REPLACEMENT_CHARACTER } else { c };
        if out.len() + c.len_utf8() > max_bytes {
            break;
        }
        out.push(c);
    }
    out
}

/// Line and paragraph separators, bidirectional marks, embeddings, overrides and isolates.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_could_do_harm() {
        assert_eq!(clean(b"a\x1b[2J\n\xffb", 99), "a\u{fffd}[2J\u{fffd}\u{fffd}b");
        assert_eq!(clean("x\u{202e}y".as_bytes(), 99), "x\u{fffd}y");
    }

    #[test]
    fn cuts_at_a_character_boundary() {
        assert_eq!(clean("ééé".as_bytes(), 5), "éé");
        assert!(clean(&[b'n'; 4096], MAX_NAME_BYTES).len() == MAX_NAME_BYTES);
    }
}
