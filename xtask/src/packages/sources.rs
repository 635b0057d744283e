//! Which Debian mirror to use: the one this machine's APT uses, or the one the user names.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};

/// Names another mirror, without the archive's folder (`/debian`).
pub(super) const MIRROR_VARIABLE: &str = "MMU_TRACE_DEBIAN_MIRROR";

/// The URL of an archive (`debian`, `debian-security`), without a trailing slash.
///
/// # Errors
/// If the variable is not set and APT has no sources that name a Debian archive.
pub(crate) fn archive_url(archive: &str) -> Result<String> {
    if let Ok(mirror) = env::var(MIRROR_VARIABLE) {
        return Ok(format!("{}/{archive}", mirror.trim_end_matches('/')));
    }
    let texts: Vec<String> = source_files().iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    find_archive(&texts.join("\n"), archive).with_context(|| {
        format!("APT has no source of {archive} here: set {MIRROR_VARIABLE} to a Debian mirror")
    })
}

fn source_files() -> Vec<PathBuf> {
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(parts.map(|entry| entry.path()));
    files.sort();
    files
}

/// The URL of `archive` in sources of either format; a mirror of `debian` has the others beside it.
fn find_archive(sources: &str, archive: &str) -> Option<String> {
    let urls: Vec<&str> = sources.lines().flat_map(urls).map(|url| url.trim_end_matches('/')).collect();
    let own = urls.iter().find(|url| url.ends_with(&format!("/{archive}")));
    let beside = || urls.iter().find_map(|url| url.strip_suffix("/debian"));
    own.map(|url| (*url).to_owned()).or_else(|| beside().map(|mirror| format!("{mirror}/{archive}")))
}

/// The URLs in one line of a `.list` or `.sources` file.
fn urls(line: &str) -> impl Iterator<Item = &str> {
    let line = line.trim();
    let is_source = line.starts_with("URIs:") || line.starts_with("deb ");
    let words = if is_source { line } else { "" };
    words.split_whitespace().filter(|word| word.starts_with("http://") || word.starts_with("https://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let list =
            "deb [signed-by=/k] https://a.example/debian bookworm main\n# deb http://no.example/debian x";
        assert_eq!(find_archive(list, "debian").as_deref(), Some("https://a.example/debian"));
        let sources = "Types: deb\nURIs: http://b.example/debian-security/\nSuites: bookworm-security";
        assert_eq!(
            find_archive(sources, "debian-security").as_deref(),
            Some("http://b.example/debian-security")
        );
    }

    #[test]
    fn a_mirror_has_its_archives_side_by_side() {
        let list = "deb https://a.example/x/debian bookworm main";
        assert_eq!(
            find_archive(list, "debian-security").as_deref(),
            Some("https://a.example/x/debian-security")
        );
    }

    #[test]
    fn without_a_debian_source_there_is_none() {
        assert_eq!(find_archive("deb https://a.example/ubuntu noble main", "debian"), None);
    }
}
