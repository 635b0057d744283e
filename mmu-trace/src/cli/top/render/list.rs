//! The table of VMs, the sparkline and the causes.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    text::{Line, Text},
    widgets::{Block, Borders, Cell, Paragraph, RenderDirection, Row, Sparkline, Table, TableState},
};

use super::{
    super::{
        column::{Column, name, rate},
        detail,
        state::{Figures, View},
    },
    Palette,
};
use crate::{
    model::{Counters, Figure, Invalidation, VmDelta},
    report::shorten,
};

/// Lines of the sparkline with its title, and of the whole area from which on it is shown.
const SPARKLINE: (u16, u16) = (4, 12);
/// The same of the causes.
const CAUSES: (u16, u16) = (6, 18);

pub(super) fn render(view: &View, palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let height = |(lines, from)| Constraint::Length(if area.height < from { 0 } else { lines });
    let parts = [Constraint::Fill(1), height(SPARKLINE), height(CAUSES)];
    let [vms, sparkline, causes] = Layout::vertical(parts).areas(area);
    render_vms(view, palette, frame, vms);
    render_sparkline(view, palette, frame, sparkline);
    render_causes(view, palette, frame, causes);
}

fn render_vms(view: &View, palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let Some(figures) = &view.figures else { return };
    let is_direct = figures.known.is_direct;
    let columns = Column::fitting(area.width, view.sort, is_direct);
    let heads = columns.iter().map(|column| {
        let style = if *column == view.sort { palette.sorted() } else { palette.head() };
        cell(*column, column.head(is_direct).to_owned()).style(style)
    });
    let rooms = Rooms::new(&columns, area.width, is_direct);
    let rows: Vec<Row<'_>> = view.rows().iter().map(|vm| row(vm, &rooms, figures, palette)).collect();
    if rows.is_empty() {
        let text = if view.filter.is_empty() { "No VM." } else { "No VM has this in its name." };
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let table =
        Table::new(rows, rooms.widths()).header(Row::new(heads)).row_highlight_style(palette.selected());
    let mut state = TableState::new().with_selected(view.selected_row());
    frame.render_stateful_widget(table, area, &mut state);
}

/// The columns that are shown.
struct Rooms<'a> {
    columns: &'a [Column],
    /// Width of the names: what the others leave.
    name: u16,
    is_direct: bool,
}

impl<'a> Rooms<'a> {
    fn new(columns: &'a [Column], width: u16, is_direct: bool) -> Self {
        let others = columns.iter().filter(|column| **column != Column::Vm);
        let taken: u16 = others.map(|column| column.width(is_direct) + 1).sum();
        Self { columns, name: width.saturating_sub(taken).max(1), is_direct }
    }

    fn widths(&self) -> impl Iterator<Item = Constraint> {
        self.columns.iter().map(|column| match column {
            Column::Vm => Constraint::Length(self.name),
            _ => Constraint::Length(column.width(self.is_direct)),
        })
    }
}

fn row(vm: &VmDelta, rooms: &Rooms<'_>, figures: &Figures, palette: Palette) -> Row<'static> {
    let cells = rooms.columns.iter().map(|column| {
        let text = column.cell(vm, &figures.delta, &figures.known).text();
        cell(*column, if *column == Column::Vm { shorten(&text, usize::from(rooms.name)) } else { text })
    });
    Row::new(cells).style(if vm.alive { palette.plain() } else { palette.dim() })
}

fn cell(column: Column, text: String) -> Cell<'static> {
    let alignment = if column == Column::Vm { Alignment::Left } else { Alignment::Right };
    Cell::new(Text::from(text).alignment(alignment))
}

fn render_sparkline(view: &View, palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let Some(figures) = &view.figures else { return };
    let rates = view.history.of(view.selected.as_ref());
    let (now, peak) = (rates.last().copied().unwrap_or(0.0), rates.iter().copied().fold(0.0, f64::max));
    let title = if figures.known.has(Figure::Refaults) {
        format!(" refaults/s of {}: now {}, peak {} ", whose(view), rate(now), rate(peak))
    } else {
        " refaults/s: unknown, see mmu-trace doctor ".to_owned()
    };
    // The newest is on the right; thousandths, because bars are whole numbers.
    let bars: Vec<u64> = rates.iter().rev().map(|rate| (rate * 1e3) as u64).collect();
    let block = Block::new().borders(Borders::TOP).title(title).border_style(palette.dim());
    let sparkline =
        Sparkline::default().data(&bars).direction(RenderDirection::RightToLeft).style(palette.bars());
    frame.render_widget(sparkline.block(block), area);
}

fn whose(view: &View) -> String {
    view.selected_vm().map_or_else(|| "all VMs".to_owned(), name)
}

fn render_causes(view: &View, palette: Palette, frame: &mut Frame<'_>, area: Rect) {
    let Some(figures) = &view.figures else { return };
    let title = format!(" invalidations of {}, the most zapping first ", whose(view));
    let block = Block::new().borders(Borders::TOP).title(title).border_style(palette.dim());
    let text = causes(view, figures, area.width);
    let lines = text.lines().enumerate().map(|(at, line)| {
        Line::styled(line.to_owned(), if at == 0 { palette.head() } else { palette.plain() })
    });
    frame.render_widget(Paragraph::new(Text::from_iter(lines)).block(block), area);
}

fn causes(view: &View, figures: &Figures, width: u16) -> String {
    if !figures.known.has(Figure::Invalidations) {
        return "unknown, see mmu-trace doctor".to_owned();
    }
    let rows = |counters: fn(&VmDelta) -> &Counters| -> Vec<Invalidation> {
        let vms: Vec<&VmDelta> = match view.selected_vm() {
            Some(vm) => vec![vm],
            None => figures.delta.vms.iter().collect(),
        };
        let invalidations = vms.iter().flat_map(|vm| counters(vm).invalidations.clone()).collect();
        // Those of several VMs are taken together.
        Counters { invalidations, ..Counters::default() }.since(None).invalidations
    };
    let (all, counted) = (rows(|vm| &vm.total), rows(|vm| &vm.counted));
    detail::invalidations(&all, &counted, &figures.delta).render_within("", usize::from(width))
}
