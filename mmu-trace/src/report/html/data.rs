//! How far the figures can be trusted, and where they come from.

use super::{
    super::{
        Report,
        layout::{printable, seconds},
        markup::Markup,
        schema::Quality,
        tables,
        text::{mode_words, shortcomings, unknown},
    },
    Provenance, figure,
};
use crate::model::Snapshot;

/// Losses, misses, unknown figures and every hook.
pub(super) fn quality(out: &mut Markup, snapshot: &Snapshot, quality: &Quality, verdict: &str) {
    figure::section(out, "data", "Quality of the data", |section| {
        let losses = shortcomings(snapshot);
        let mark = if losses.is_empty() { "." } else { ":" };
        section.element("p", &[("class", "verdict")], &format!("{verdict}{mark}"));
        if !losses.is_empty() {
            figure::list(section, &losses);
        }
        let unknown: Vec<String> = unknown(snapshot).collect();
        if !unknown.is_empty() {
            section.element("p", &[], "Unknown figures, and why:");
            figure::list(section, &unknown);
        }
        figure::table(section, "Hooks", &tables::hooks(quality));
    });
}

/// The circumstances of the recording.
pub(super) fn provenance(out: &mut Markup, provenance: &Provenance, report: &Report) {
    figure::section(out, "provenance", "Provenance", |section| {
        section.nest("dl", &[], |dl| {
            for (name, value) in facts(provenance, report) {
                dl.element("dt", &[], name);
                dl.nest("dd", &[], |dd| dd.element("bdi", &[], &value));
            }
        });
    });
}

fn facts(provenance: &Provenance, report: &Report) -> [(&'static str, String); 10] {
    let host = &report.host;
    let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    [
        ("Capture", provenance.file.clone()),
        ("Kernel", host.kernel.clone()),
        ("Architecture", host.arch.clone()),
        ("Mode", mode_words(host.mode).to_owned()),
        ("Window", format!("{} from {}", seconds(report.window.seconds), report.window.start)),
        ("Recorded with", version(provenance.recorded_with.as_deref())),
        ("Shown with", version(Some(&provenance.shown_with))),
        ("Command", or(command(&provenance.command), "none: recorded for a time or until interrupted")),
        ("VMs recorded", or(provenance.vm_filter.join(", "), "all")),
        ("Ended", provenance.ended.clone()),
    ]
}

fn version(version: Option<&str>) -> String {
    version.map_or_else(|| "unknown".to_owned(), |version| format!("mmu-trace {version}"))
}

/// The command with its arguments kept apart.
fn command(words: &[String]) -> String {
    let plain =
        |word: &str| !word.is_empty() && word.chars().all(|c| !c.is_whitespace() && !"'\"\\".contains(c));
    let words: Vec<String> = words
        .iter()
        .map(|word| if plain(word) { word.clone() } else { format!("'{}'", printable(word)) })
        .collect();
    words.join(" ")
}
