//! Standard output and output files.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::CliError;

/// Writes `text` to standard output. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// If it cannot be written, to a full disk say.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::Output { target: "standard output".to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Who could read the old one; where there is none, whom the umask allows.
    AsBefore,
    /// Everybody, whatever the umask.
    Everyone,
}

/// Writes `text` to `path`, whole or not at all: a file beside it is renamed over it. What is no
/// regular file (`/dev/stdout`, a pipe) is written to.
///
/// # Errors
/// If it cannot be written; an existing file is then unchanged.
pub(super) fn write_file(path: &Path, text: &str, readers: Readers) -> Result<(), CliError> {
    let special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let written = if special { fs::write(path, text) } else { replace(path, text, readers) };
    written.map_err(|source| CliError::Output { target: path.display().to_string(), source })
}

fn replace(path: &Path, text: &str, readers: Readers) -> io::Result<()> {
    // A symbolic link stays one: what it points to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let draft = draft(&path)?;
    let written = write_new(&draft, text)
        .and_then(|()| set_mode(&path, &draft, readers))
        .and_then(|()| fs::rename(&draft, &path));
    if written.is_err() {
        // It may not even exist; the first error is the one that counts.
        _ = fs::remove_file(&draft);
    }
    written
}

/// A hidden name in the same directory.
fn draft(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(draft))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    // A process with this id that was killed may have left one; in a container the id is always the same.
    _ = fs::remove_file(path);
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Sets who may read the new file at `draft`, before it takes the place of the one at `path`.
fn set_mode(path: &Path, draft: &Path, readers: Readers) -> io::Result<()> {
    match (readers, fs::metadata(path)) {
        (Readers::Everyone, _) => fs::set_permissions(draft, Permissions::from_mode(0o644)),
        (Readers::AsBefore, Ok(old)) => fs::set_permissions(draft, old.permissions()),
        // There is none, or the rename will say what is wrong.
        (Readers::AsBefore, Err(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.txt");
        fs::write(&path, "old").unwrap();
        write_file(&path, "new", Readers::AsBefore).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_private_file_stays_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.txt");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        write_file(&path, "new", Readers::AsBefore).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_draft_that_a_killed_process_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.txt");
        fs::write(draft(&path).unwrap(), "half").unwrap();
        write_file(&path, "new", Readers::AsBefore).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unwritable_place_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none/report.txt");
        let error = write_file(&path, "x", Readers::AsBefore).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.chain().contains("none/report.txt"), "{}", error.chain());
    }
}
