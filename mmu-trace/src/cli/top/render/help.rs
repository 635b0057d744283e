//! The help.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Text},
    widgets::{Block, Borders, Paragraph, Wrap},
};

use super::{super::column::Column, Palette};

const KEYS: &[&str] = &[
    "up down j k    select a VM, or scroll   Enter   open the selected VM",
    "PgUp PgDn g G  the same in leaps        Esc q   back, and from the list out",
    "s   sort by the next column             r       reverse the order",
    "/   filter by name                      space   pause, or go on",
    "h ? this help                           Ctrl-C  end",
    "",
];

const COLUMNS: &[&str] = &[
    "calls/s     calls of change_pte; would-be/s: if the kernel still had it",
    "no-op       the share of those for guest memory that changed nothing",
    "refaults/s  faults on pages torn down before",
    "avoid/s     those of them that a working change_pte would save",
    "vCPU %      time in refaults; 100 % is all the time of one vCPU",
    "zaps/s      invalidations in which KVM tore a mapping down",
    "merges/s    pages merged by KSM",
    "breaks/s    merged pages copied on write",
    "? unknown, see mmu-trace doctor  - without meaning here  dim: the VM has ended",
    "",
];

pub(super) fn render(palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let heads: Vec<&str> = Column::DROPPED.iter().map(|column| column.head(true)).collect();
    let dropped = format!("Without room columns go, but not the one sorted by: {}.", heads.join(", "));
    let lines = KEYS.iter().chain(COLUMNS).map(|line| Line::from(*line)).chain([Line::from(dropped)]);
    let block = Block::new().borders(Borders::TOP).title(" keys and columns ").border_style(palette.dim());
    let text = Paragraph::new(Text::from_iter(lines)).wrap(Wrap { trim: false });
    frame.render_widget(text.block(block), area);
}
