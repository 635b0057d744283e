//! The view drawn: state in, cells out.
//!
//! ```text
//!  summary   the kernel, the mode, and what is missing: 1 to 4 lines
//!  VMs       the rest; at least the head and three rows
//!  refaults  sparkline: 4 lines, from 14 lines on
//!  causes    what tears mappings down: 6 lines, from 20 lines on
//!  keys      or a message, or the filter: 1 line
//! ```

mod help;
mod list;
mod style;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span, Text},
    widgets::{Block, Borders, Paragraph, Wrap},
};

pub(super) use style::Palette;

use super::{
    detail,
    state::{Mode, View},
    summary::Summary,
};
use crate::report::printable;

/// Draws `view` over the whole of `frame`.
pub(super) fn render(view: &View, palette: Palette, frame: &mut Frame<'_>) {
    let area = frame.area();
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(summary_height(view)),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(summary(view, palette)).wrap(Wrap { trim: true }), top);
    match (view.is_helping, view.mode) {
        (true, _) => help::render(palette, frame, middle),
        (false, Mode::Detail) => render_detail(view, palette, frame, middle),
        (false, _) => list::render(view, palette, frame, middle),
    }
    frame.render_widget(Paragraph::new(keys(view, palette)), bottom);
}

/// Lines above everything else.
pub(super) fn summary_height(view: &View) -> u16 {
    shown_summary(view).height(view.size.0)
}

fn shown_summary(view: &View) -> Summary {
    let summary = view.figures.as_ref().map_or_else(Summary::waiting, |figures| figures.summary.clone());
    match &view.failure {
        Some(failure) => summary.failed(failure),
        None => summary,
    }
}

fn summary(view: &View, palette: Palette) -> Line<'static> {
    let Summary { facts, verdict, is_warning } = shown_summary(view);
    let style = if is_warning { palette.warning() } else { palette.good() };
    Line::from(vec![Span::styled(facts, palette.head()), Span::raw(", "), Span::styled(verdict, style)])
}

fn render_detail(view: &View, palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let lines = detail::lines(view);
    let shown = lines.iter().skip(view.scroll).take(usize::from(area.height)).map(|line| {
        let style = if line.starts_with(' ') { palette.plain() } else { palette.head() };
        Line::styled(line.clone(), style)
    });
    let last = (view.scroll + detail::height(view)).min(lines.len());
    let title = format!(" lines {} to {last} of {} ", view.scroll + 1, lines.len());
    let block = Block::new().borders(Borders::TOP).title(title).border_style(palette.dim());
    frame.render_widget(Paragraph::new(Text::from_iter(shown)).block(block), area);
}

fn keys(view: &View, palette: Palette) -> Line<'static> {
    if let Some(message) = &view.message {
        return Line::styled(printable(message), palette.head());
    }
    if view.mode == Mode::Filter {
        return Line::from(format!("/{}_  (Enter keeps the filter, Esc clears it)", view.filter));
    }
    let words = match (view.is_helping, view.mode) {
        (true, _) => "any key back".to_owned(),
        (false, Mode::Detail) => "up down scroll  Esc back  space pause  h help".to_owned(),
        (false, _) => list_keys(view),
    };
    let state = match (view.is_paused, view.is_over) {
        (_, true) => Some("END OF CAPTURE"),
        (true, false) => Some("PAUSED"),
        (false, false) => None,
    };
    let state = state.map(|state| [Span::styled(state, palette.selected()), Span::raw("  ")]);
    Line::from_iter(state.into_iter().flatten().chain([Span::raw(words)]))
}

fn list_keys(view: &View) -> String {
    let sort = view.sort.head(view.figures.as_ref().is_none_or(|figures| figures.known.is_direct));
    let filter =
        if view.filter.is_empty() { "/ filter".to_owned() } else { format!("/ filter: {}", view.filter) };
    format!("q quit  h help  Enter open  s sort: {sort}  {filter}  space pause")
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use ratatui::{Terminal, backend::TestBackend, style::Color};

    use super::{
        super::{
            fixture,
            state::{Event, Key},
        },
        *,
    };
    use crate::model::Snapshot;

    fn view(size: (u16, u16), snapshots: [Snapshot; 2], keys: &[Key]) -> View {
        let mut view = View::new(size);
        for snapshot in snapshots {
            view.update(Event::Snapshot(Box::new(snapshot)));
        }
        for key in keys {
            view.update(Event::Key(*key));
        }
        view
    }

    fn draw(view: &View, palette: Palette) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(view.size.0, view.size.1)).unwrap();
        terminal.draw(|frame| render(view, palette, frame)).unwrap();
        terminal
    }

    /// What is on the screen, without the blanks behind each line.
    fn screen(view: &View) -> String {
        let terminal = draw(view, Palette::Plain);
        let cells: Vec<&str> =
            terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        let lines =
            cells.chunks(usize::from(view.size.0)).map(|line| line.concat().trim_end().to_owned() + "\n");
        lines.collect()
    }

    /// Compares with a file in `tests/golden`. `UPDATE_GOLDEN=1` writes the files anew: read the difference
    /// before you commit it.
    fn golden(file: &str, view: &View) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        let actual = screen(view);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &actual).unwrap();
        }
        assert_eq!(actual, fs::read_to_string(&path).unwrap(), "{} differs", path.display());
    }

    #[test]
    fn the_list_fits_every_terminal() {
        golden("top-80x24.txt", &view((80, 24), fixture::interval(), &[]));
        golden("top-120x40.txt", &view((120, 40), fixture::interval(), &[Key::Down, Key::Down]));
        golden("top-incomplete-80x24.txt", &view((80, 24), fixture::incomplete(), &[]));
    }

    #[test]
    fn one_vm_is_shown_in_detail() {
        let keys = [Key::Down, Key::Enter];
        golden("top-detail-80x24.txt", &view((80, 24), fixture::interval(), &keys));
        golden("top-detail-120x40.txt", &view((120, 40), fixture::incomplete(), &keys));
    }

    #[test]
    fn the_help_fits_the_smallest_terminal() {
        golden("top-help-80x24.txt", &view((80, 24), fixture::interval(), &[Key::Char('h')]));
    }

    #[test]
    fn no_terminal_is_too_small() {
        for size in [(1, 1), (3, 2), (20, 5), (79, 7), (300, 100)] {
            for keys in [&[][..], &[Key::Down, Key::Enter], &[Key::Char('h')], &[Key::Char('/')]] {
                draw(&view(size, fixture::incomplete(), keys), Palette::Colour);
            }
        }
        draw(&View::new((80, 24)), Palette::Colour);
    }

    fn colours(palette: Palette) -> Vec<Color> {
        let terminal = draw(&view((80, 24), fixture::incomplete(), &[Key::Down]), palette);
        terminal.backend().buffer().content().iter().map(|cell| cell.fg).collect()
    }

    #[test]
    fn what_is_missing_is_red_unless_colours_are_unwanted() {
        assert!(colours(Palette::Colour).contains(&Color::Red));
        assert!(colours(Palette::Plain).iter().all(|colour| *colour == Color::Reset));
    }

    #[test]
    fn a_failure_takes_the_place_of_the_verdict() {
        let mut view = view((80, 24), fixture::interval(), &[]);
        view.update(Event::Failed(Some("a map cannot be read".to_owned())));
        assert!(screen(&view).starts_with("6.1.0-38-cloud-amd64 x86_64, direct, a map cannot be read\n"));
        let mut view = View::new((80, 24));
        assert!(screen(&view).starts_with("mmu-trace top, the first figures come"));
        view.update(Event::Failed(Some("kvm was loaded, but tracing cannot start".to_owned())));
        assert!(screen(&view).starts_with("mmu-trace top, kvm was loaded, but"));
    }

    #[test]
    fn names_cannot_paint_the_terminal() {
        let mut snapshots = fixture::interval();
        for snapshot in &mut snapshots {
            snapshot.vms[0].identity.name = "\u{1b}[31mweb-with-a-very-long-name".to_owned();
        }
        let view = view((80, 24), snapshots, &[Key::Down, Key::Enter]);
        assert!(!screen(&view).contains('\u{1b}'));
    }
}
