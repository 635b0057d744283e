//! An error that comes again and again is said once.

use super::{journal::Priority, say};

/// The last thing said about some work that is done over and over.
#[derive(Default)]
pub(super) struct Complaint {
    said: String,
}

impl Complaint {
    /// Says how `done` ended, if that is news; `again` is said when it works after an error.
    pub(super) fn hear(&mut self, done: anyhow::Result<()>, again: &str) {
        let priority = if done.is_ok() { Priority::Information } else { Priority::Warning };
        if let Some(news) = self.news(done, again) {
            say(priority, &news);
        }
    }

    fn news(&mut self, done: anyhow::Result<()>, again: &str) -> Option<String> {
        let error = done.err().map_or(String::new(), |error| format!("{error:#}"));
        if error == self.said {
            return None;
        }
        self.said.clone_from(&error);
        Some(if error.is_empty() { again.to_owned() } else { error })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn only_what_is_new_is_said() {
        let mut complaint = Complaint::default();
        let mut news = |done| complaint.news(done, "works again");
        assert_eq!(news(Ok(())), None);
        assert_eq!(news(Err(anyhow!("x").context("y"))).as_deref(), Some("y: x"));
        assert_eq!(news(Err(anyhow!("x").context("y"))), None);
        assert_eq!(news(Err(anyhow!("z"))).as_deref(), Some("z"));
        assert_eq!(news(Ok(())).as_deref(), Some("works again"));
        assert_eq!(news(Ok(())), None);
    }
}
