//! Every alert has a runbook, every runbook an alert, and all have the same chapters.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::rules;

/// Where runbooks are, relative to the repository.
const DIR: &str = "docs/runbooks";

/// What stands in each, in this order.
const CHAPTERS: &[&str] = &["Meaning", "Impact", "Diagnosis", "Action"];

/// Checks all below `repository`.
pub(super) fn check(repository: &Path) -> Result<()> {
    let dir = repository.join(DIR);
    let there = names(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let wanted: BTreeSet<String> = rules::alerts().iter().map(|alert| alert.name.to_owned()).collect();
    let odd: Vec<&String> = there.symmetric_difference(&wanted).collect();
    ensure!(odd.is_empty(), "alerts without a runbook in {DIR}, or runbooks without an alert: {odd:?}");
    for name in wanted {
        let path = dir.join(&name).with_extension("md");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            has_chapters(&name, &text),
            "{} must have a title and {CHAPTERS:?}, none empty",
            path.display()
        );
    }
    Ok(())
}

/// The names of all files, without `.md`.
fn names(dir: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.insert(name.strip_suffix(".md").map_or_else(|| name.clone(), str::to_owned));
    }
    Ok(names)
}

fn has_chapters(name: &str, text: &str) -> bool {
    let Some(rest) = text.strip_prefix(&format!("# {name}\n")) else { return false };
    let chapters =
        || rest.split("\n## ").skip(1).map(|chapter| chapter.split_once('\n').unwrap_or((chapter, "")));
    chapters().map(|(title, _)| title).eq(CHAPTERS.iter().copied())
        && chapters().all(|(_, body)| !body.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools;

    #[test]
    fn alerts_and_runbooks_belong_together() {
        check(&tools::repository().unwrap()).unwrap();
    }

    #[test]
    fn a_chapter_that_is_missing_or_empty_is_found() {
        let good = "# A\n\n## Meaning\n\nx\n\n## Impact\n\nx\n\n## Diagnosis\n\nx\n\n## Action\n\nx\n";
        assert!(has_chapters("A", good));
        assert!(!has_chapters("B", good));
        assert!(!has_chapters("A", &good.replace("## Impact\n\nx\n\n", "")));
        assert!(!has_chapters("A", &good.replace("## Action\n\nx\n", "## Action\n")));
    }
}
