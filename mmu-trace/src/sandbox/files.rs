//! Landlock (Linux 5.13 and later): which files can still be opened, and no TCP port or process of others.

use std::{
    fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::{Needs, State};

/// What every command reads. The inodes of single processes come and go, so `/proc` is named as a whole:
/// the kernel's own checks there are as before.
const ALWAYS_READABLE: [&str; 2] = ["/proc", "/sys"];
const TERMINAL: &str = "/dev/tty";

/// Restricts this thread and those that it starts.
pub(super) fn restrict(needs: &Needs) -> State {
    if needs.descriptors {
        return State::Off("it would hide the descriptors of VMMs, which this process reads".to_owned());
    }
    match try_restrict(needs) {
        Ok(status) => state(&status),
        Err(error) => State::Off(error.to_string()),
    }
}

fn try_restrict(needs: &Needs) -> Result<RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let tcp = if needs.binding { AccessNet::ConnectTcp.into() } else { AccessNet::from_all(ABI::V4) };
    let mut ruleset = Ruleset::default().handle_access(all)?.handle_access(tcp)?;
    if needs.child.is_none() {
        ruleset = ruleset.scope(Scope::Signal)?;
    }
    let mut created = ruleset.create()?;
    created = created.add_rules(path_beneath_rules(ALWAYS_READABLE, read))?;
    created = created.add_rules(path_beneath_rules(&needs.readable, read))?;
    if needs.terminal {
        created = created.add_rules(path_beneath_rules([TERMINAL], all))?;
    }
    if let Some(path) = &needs.written {
        let (place, access) = place_of(path);
        // Of a pipe there can be no rule, and none is needed.
        created = match created.try_clone() {
            Ok(with) => with.add_rules(path_beneath_rules([place], access)).unwrap_or(created),
            Err(_) => created,
        };
    }
    created.restrict_self()
}

/// Where a file that is replaced needs access, and which: its folder; a device is written to as it is.
fn place_of(path: &Path) -> (PathBuf, BitFlags<AccessFs>) {
    let file = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return (path.to_owned(), file);
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // Of a bare file name the parent is empty.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (folder.to_owned(), file | AccessFs::ReadDir | AccessFs::MakeReg | AccessFs::RemoveFile)
}

fn state(status: &RestrictionStatus) -> State {
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return State::Off("this kernel has no Landlock, or it is not switched on (lsm=)".to_owned());
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => State::InForce,
        RulesetStatus::PartiallyEnforced => State::Partly(format!(
            "Landlock of ABI {effective_abi} does not restrict {}",
            missing(effective_abi).join(", ")
        )),
        RulesetStatus::NotEnforced => State::Off("nothing was restricted".to_owned()),
    }
}

/// What Landlock does not know at `abi`.
fn missing(abi: ABI) -> Vec<&'static str> {
    let since =
        [(ABI::V3, "truncating"), (ABI::V4, "TCP"), (ABI::V5, "ioctls of devices"), (ABI::V6, "signals")];
    since.into_iter().filter(|(known, _)| abi < *known).map(|(_, what)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_landlock_lacks_is_named() {
        assert_eq!(missing(ABI::V2), ["truncating", "TCP", "ioctls of devices", "signals"]);
        assert_eq!(missing(ABI::V5), ["signals"]);
        assert!(missing(ABI::V7).is_empty());
    }

    #[test]
    fn a_text_file_takes_its_folder_and_a_device_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(dir.path()).unwrap();
        let (place, access) = place_of(&dir.path().join("x.prom"));
        assert!(place == dir.path() && access.contains(AccessFs::MakeReg));
        fs::write(dir.path().join("x.prom"), "").unwrap();
        assert_eq!(place_of(&dir.path().join("x.prom")).0, folder);
        let (place, access) = place_of(Path::new("/dev/full"));
        assert!(place == Path::new("/dev/full") && !access.contains(AccessFs::MakeReg));
    }
}
