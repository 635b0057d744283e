//! Files of a Debian mirror, cached by content and verified at every use.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use xtask::arch::Arch;

use super::{
    Suite, index,
    sources::{self, MIRROR_VARIABLE},
};
use crate::tools;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A mirror and the cache in front of it.
pub(super) struct Mirror {
    cache: PathBuf,
}

impl Mirror {
    /// The mirror of the environment, cached in `cache`.
    pub(super) fn new(cache: &Path) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        Ok(Self { cache: cache.to_owned() })
    }

    /// Where files are kept.
    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The text of a suite's package index.
    pub(super) fn package_index(&self, suite: &Suite, arch: Arch) -> Result<String> {
        let release = self.release(suite)?;
        let index = format!("main/binary-{}/Packages.xz", arch.debian());
        let hash = index::hash_of(&release, &index)?;
        let path = self.file(suite.archive, &format!("dists/{}/{index}", suite.name), &hash)?;
        let mut text = String::new();
        liblzma::read::XzDecoder::new(fs::File::open(&path)?)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot unpack {}", path.display()))?;
        Ok(text)
    }

    /// The file `path` of `archive`, which must have this hash.
    pub(super) fn file(&self, archive: &str, path: &str, sha256: &str) -> Result<PathBuf> {
        ensure!(
            sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit()),
            "{sha256:?} is no SHA256"
        );
        let cached = self.cache.join(sha256);
        if cached.exists() && hash(&cached)? == sha256 {
            return Ok(cached);
        }
        let fresh = self.download(archive, path)?;
        let got = hash(&fresh)?;
        ensure!(got == sha256, "{path} has SHA256 {got}, the index says {sha256}; try again later");
        fs::rename(&fresh, &cached)?;
        Ok(cached)
    }

    /// The verified text of a suite's release file; the last one that was fetched where the mirror
    /// does not answer.
    fn release(&self, suite: &Suite) -> Result<String> {
        let cached = self.cache.join(format!("{}.InRelease", suite.name));
        match self.download(suite.archive, &format!("dists/{}/InRelease", suite.name)) {
            Ok(fresh) => fs::rename(fresh, &cached)?,
            Err(error) if cached.exists() => {
                println!("packages: using the cached index of {}: {error:#}", suite.name)
            }
            Err(error) => return Err(error),
        }
        verified(&cached)
    }

    fn download(&self, archive: &str, path: &str) -> Result<PathBuf> {
        tools::ensure_installed("curl", "curl ca-certificates")?;
        let url = format!("{}/{path}", sources::archive_url(archive)?);
        let partial = self.cache.join("download.part");
        let mut curl = Command::new("curl");
        curl.args([
            "--fail",
            "--silent",
            "--show-error",
            "--location",
            "--retry",
            "3",
            "--connect-timeout",
            "20",
        ]);
        curl.arg("--output").arg(&partial).arg(&url);
        let status = curl.status().context("cannot run curl")?;
        ensure!(status.success(), "cannot download {url}; {MIRROR_VARIABLE} sets another mirror");
        Ok(partial)
    }
}

/// The signed text of a release file. Where gpgv or Debian's keys are missing the signature is not
/// checked, and that is said.
fn verified(release: &Path) -> Result<String> {
    if tools::find("gpgv").is_none() || !Path::new(KEYRING).exists() {
        println!("packages: no gpgv or no {KEYRING}: the archive's signature is not verified");
        return fs::read_to_string(release).with_context(|| format!("cannot read {}", release.display()));
    }
    let signed = release.with_extension("signed");
    if signed.exists() {
        fs::remove_file(&signed)?;
    }
    let mut gpgv = Command::new("gpgv");
    gpgv.arg("--keyring").arg(KEYRING).arg("--output").arg(&signed).arg(release).stderr(Stdio::piped());
    let output = gpgv.output().context("cannot run gpgv")?;
    if !output.status.success() {
        bail!("{} is not signed by Debian: {}", release.display(), String::from_utf8_lossy(&output.stderr));
    }
    fs::read_to_string(&signed).with_context(|| format!("cannot read {}", signed.display()))
}

fn hash(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
