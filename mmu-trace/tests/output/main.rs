//! What programs and people get to see, computed from hand-built snapshots.

mod confined;
mod fixture;
mod helper;
mod hostile;
mod html;
mod http;
mod metrics;
mod notify;
mod pki;
mod prometheus;
mod replay;
mod report;
mod served;
mod tls;
mod web_config;

use std::{env, fs, path::Path};

/// Compares `actual` with a file in `tests/golden`. `UPDATE_GOLDEN=1` writes the files anew: read the
/// difference before you commit it.
fn golden(file: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    let differing = actual.lines().zip(expected.lines()).enumerate().find(|(_, (a, e))| a != e);
    assert!(differing.is_none(), "{} differs (actual, expected): {differing:#?}", path.display());
    assert_eq!(actual.len(), expected.len(), "{} is longer or shorter", path.display());
}
