//! A folder for what a measurement writes.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// `target/bench`, empty at first and gone afterwards.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let target = built("../bench")?;
        if let Err(error) = fs::remove_dir_all(&target)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot empty {}", target.display()));
        }
        fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
        Ok(Self(target))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next one empties it.
        _ = fs::remove_dir_all(&self.0);
    }
}

/// What lies beside this program.
pub(crate) fn built(name: impl AsRef<Path>) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot say where this program is")?;
    Ok(own.parent().context("this program is in no folder")?.join(name))
}
