//! The metrics in a file, for the textfile collector of node_exporter.
//!
//! Written anew at every interval, whole or not at all. It is taken away when the daemon stops: what does
//! not run has no metrics, and the collector would show the last ones for ever. A daemon that was killed
//! leaves it behind; `node_textfile_mtime_seconds` then tells its age.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    complaint::Complaint,
    output::{self, Readers},
};
use crate::scrape::Scraper;

/// Where the metrics are written to, and how often.
#[derive(Clone)]
pub(super) struct Textfile {
    pub(super) path: PathBuf,
    pub(super) interval: Duration,
}

impl Textfile {
    /// Writes what `scraper` knows, until the sender of `stopped` is gone. A failure is counted and said,
    /// once.
    pub(super) async fn keep(self, scraper: Arc<Scraper>, mut stopped: watch::Receiver<()>) {
        let mut tick = interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaint = Complaint::default();
        let works_again = format!("writing {} works again", self.path.display());
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stopped.changed() => break,
            }
            let written = self.write(&scraper).await;
            if written.is_err() {
                scraper.count_textfile_error();
            }
            complaint.hear(written, &works_again);
        }
        self.remove();
    }

    async fn write(&self, scraper: &Scraper) -> anyhow::Result<()> {
        let text = scraper.textfile().await.with_context(|| format!("writing {}", self.path.display()))?;
        let path = self.path.clone();
        let written =
            tokio::task::spawn_blocking(move || output::write_file(&path, &text, Readers::Everyone));
        Ok(written.await.context("the writer of the text file panicked")??)
    }

    fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_file()) {
            // It stays, and its time tells: there is nobody left to act on it.
            _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::Path};

    use tokio::time::sleep;

    use super::*;
    use crate::{bpf, source::Replay};

    /// Keeps the file for as long as `condition` is not met, then stops.
    async fn keep_until(path: &Path, condition: impl AsyncFn(&Scraper) -> bool) {
        let source = Box::new(Replay::still(bpf::waiting_snapshot("a test")));
        let scraper = Arc::new(Scraper::new(source).with_textfile());
        let (stop, stopped) = watch::channel(());
        let textfile = Textfile { path: path.to_owned(), interval: Duration::from_millis(5) };
        let kept = tokio::spawn(textfile.keep(Arc::clone(&scraper), stopped));
        for _ in 0..1_000 {
            if condition(&scraper).await {
                drop(stop);
                return kept.await.unwrap();
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("this did not come: {}", path.display());
    }

    #[tokio::test]
    async fn the_file_is_whole_readable_by_all_and_gone_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mmu-trace.prom");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        keep_until(&path, async |_| {
            let text = fs::read_to_string(&path).unwrap();
            let is_new = text != "old";
            if is_new {
                assert!(
                    text.contains("mmu_trace_textfile_errors_total 0\n") && text.ends_with('\n'),
                    "{text}"
                );
                assert!(!text.contains("process_"), "node_exporter has its own: {text}");
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
            }
            is_new
        })
        .await;
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_failed_write_is_counted_and_the_next_one_tried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none/mmu-trace.prom");
        keep_until(&path, async |scraper| {
            let text = scraper.metrics().await.unwrap();
            let errors = text.lines().find_map(|line| line.strip_prefix("mmu_trace_textfile_errors_total "));
            errors.unwrap().parse::<u32>().unwrap() >= 2
        })
        .await;
        keep_until(&path, async |_| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path.exists()
        })
        .await;
    }
}
