//! What `top` shows, and how keys and snapshots change it. Pure: no terminal, no clock, no kernel.
//!
//! ```text
//!            h, ?                        Enter
//!   Help <--------- any but Filter  List -----> Detail
//!    '-- any key --> where it was   | ^  <-----
//!                                 / | |  Esc, q
//!                                   v | Enter (keeps), Esc (clears)
//!                                 Filter
//! ```
//!
//! Esc goes one step back: from Help, Filter and Detail to the list, there from the filter to all VMs, from
//! a selected VM to none, and from the bare list out. `q` leaves at once, but for Detail and Help, which it
//! closes. While the view is paused no snapshot is taken, and the next figures are the mean over the pause.

use super::{
    column::{Column, Known, name},
    detail,
    history::History,
    summary::Summary,
};
use crate::model::{Delta, Snapshot, VmDelta, VmKey};

/// Longest filter, in characters.
const MAX_FILTER: usize = 40;
/// Snapshots that a message outlives, if no key is pressed.
const MESSAGE_SNAPSHOTS: u32 = 5;
/// Lines that Page Up and Page Down go.
const PAGE: usize = 10;

/// What happens to the view.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Key(Key),
    /// The terminal has another size: columns, lines.
    Resized(u16, u16),
    /// There are new figures.
    Snapshot(Box<Snapshot>),
    /// The capture has no further figures.
    Over,
    /// The user should know this, for a while.
    Told(String),
    /// The source does not work, or works again.
    Failed(Option<String>),
}

/// A key, as far as it means anything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Esc,
    Backspace,
    Char(char),
    /// Ctrl-C.
    Interrupt,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Quit,
}

/// What the keys act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    List,
    /// The filter is being written.
    Filter,
    Detail,
}

/// Everything from the last snapshot that is shown.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) summary: Summary,
    pub(super) known: Known,
    pub(super) delta: Delta,
}

/// The state of the view.
#[derive(Debug)]
pub(super) struct View {
    pub(super) mode: Mode,
    pub(super) is_helping: bool,
    pub(super) is_paused: bool,
    pub(super) is_over: bool,
    pub(super) sort: Column,
    pub(super) is_reversed: bool,
    pub(super) selected: Option<VmKey>,
    pub(super) filter: String,
    pub(super) message: Option<String>,
    /// Why the source does not work.
    pub(super) failure: Option<String>,
    pub(super) figures: Option<Figures>,
    pub(super) history: History,
    /// First line of the detail that is shown.
    pub(super) scroll: usize,
    /// Columns and lines of the terminal.
    pub(super) size: (u16, u16),
    last: Option<Box<Snapshot>>,
    /// Snapshots since the message came.
    message_age: u32,
}

impl View {
    pub(super) fn new(size: (u16, u16)) -> Self {
        Self {
            mode: Mode::List,
            is_helping: false,
            is_paused: false,
            is_over: false,
            sort: Column::Vcpu,
            is_reversed: false,
            selected: None,
            filter: String::new(),
            message: None,
            failure: None,
            figures: None,
            history: History::default(),
            scroll: 0,
            size,
            last: None,
            message_age: 0,
        }
    }

    /// Takes in what happened.
    pub(super) fn update(&mut self, event: Event) -> Flow {
        match event {
            Event::Key(key) => return self.press(key),
            Event::Resized(columns, lines) => self.size = (columns, lines),
            Event::Snapshot(snapshot) => self.show(snapshot),
            Event::Over => self.is_over = true,
            Event::Told(message) => {
                self.message = Some(message);
                self.message_age = 0;
            }
            Event::Failed(failure) => self.failure = failure,
        }
        self.scroll_by(0);
        Flow::Continue
    }

    /// Whether a snapshot would be shown now.
    pub(super) fn wants_snapshot(&self) -> bool {
        !self.is_paused && !self.is_over
    }

    /// The VMs that pass the filter, sorted.
    pub(super) fn rows(&self) -> Vec<&VmDelta> {
        let Some(Figures { delta, known, .. }) = &self.figures else { return Vec::new() };
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<&VmDelta> =
            delta.vms.iter().filter(|vm| name(vm).to_lowercase().contains(&filter)).collect();
        rows.sort_by(|a, b| self.sort.compare(a, b, delta, known));
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    /// Where the selected VM is among [`View::rows`].
    pub(super) fn selected_row(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.rows().iter().position(|vm| vm.key.is_same(selected))
    }

    /// The selected VM, if it still lives.
    pub(super) fn selected_vm(&self) -> Option<&VmDelta> {
        let (selected, figures) = (self.selected.as_ref()?, self.figures.as_ref()?);
        figures.delta.vms.iter().find(|vm| vm.key.is_same(selected))
    }

    fn show(&mut self, snapshot: Box<Snapshot>) {
        let delta = Delta::between(self.last.as_deref(), &snapshot);
        self.history.add(&delta);
        self.figures = Some(Figures { summary: Summary::of(&snapshot), known: Known::of(&snapshot), delta });
        self.last = Some(snapshot);
        self.message_age += 1;
        if self.message_age >= MESSAGE_SNAPSHOTS {
            self.message = None;
        }
        // The detail of a VM says that it is gone; in the list there is nothing to say it of.
        if self.mode != Mode::Detail && self.selected_vm().is_none() {
            self.selected = None;
        }
    }

    fn press(&mut self, key: Key) -> Flow {
        self.message = None;
        match key {
            Key::Interrupt => return Flow::Quit,
            _ if self.is_helping => self.is_helping = false,
            _ if self.mode == Mode::Filter => self.edit_filter(key),
            Key::Char('h' | '?') => self.is_helping = true,
            Key::Char(' ') => self.is_paused = !self.is_paused,
            _ if self.mode == Mode::Detail => self.press_in_detail(key),
            _ => return self.press_in_list(key),
        }
        Flow::Continue
    }

    fn press_in_list(&mut self, key: Key) -> Flow {
        match key {
            Key::Up | Key::Char('k') => self.select(|row| row.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(|row| row + 1),
            Key::PageUp => self.select(|row| row.saturating_sub(PAGE)),
            Key::PageDown => self.select(|row| row + PAGE),
            Key::Home | Key::Char('g') => self.select(|_| 0),
            Key::End | Key::Char('G') => self.select(|_| usize::MAX),
            Key::Enter => self.open(),
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Char('r') => self.is_reversed = !self.is_reversed,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('q') => return Flow::Quit,
            Key::Esc => return self.back(),
            Key::Backspace | Key::Char(_) | Key::Interrupt => {}
        }
        Flow::Continue
    }

    fn press_in_detail(&mut self, key: Key) {
        match key {
            Key::Up | Key::Char('k') => self.scroll_by(-1),
            Key::Down | Key::Char('j') => self.scroll_by(1),
            Key::PageUp => self.scroll_by(-(PAGE as isize)),
            Key::PageDown => self.scroll_by(PAGE as isize),
            Key::Home | Key::Char('g') => self.scroll = 0,
            Key::End | Key::Char('G') => self.scroll_by(isize::MAX),
            Key::Esc | Key::Char('q') => self.close(),
            Key::Enter | Key::Backspace | Key::Char(_) | Key::Interrupt => {}
        }
    }

    fn edit_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.mode = Mode::List,
            Key::Esc => {
                self.filter.clear();
                self.mode = Mode::List;
            }
            Key::Backspace => _ = self.filter.pop(),
            Key::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            _ => {}
        }
        if self.selected_row().is_none() {
            self.selected = None;
        }
    }

    /// Selects the row that `step` makes of the selected one. Where none is, the first step only leads
    /// onto the list.
    fn select(&mut self, step: impl Fn(usize) -> usize) {
        let rows = self.rows();
        let row = self.selected_row().map_or_else(|| step(0).saturating_sub(1), &step);
        let row = row.min(rows.len().saturating_sub(1));
        self.selected = rows.get(row).map(|vm| vm.key.clone());
    }

    fn open(&mut self) {
        if self.selected_row().is_none() {
            self.select(|_| 0);
        }
        if self.selected.is_some() {
            self.mode = Mode::Detail;
            self.scroll = 0;
        }
    }

    fn close(&mut self) {
        self.mode = Mode::List;
        if self.selected_vm().is_none() {
            self.selected = None;
        }
    }

    fn back(&mut self) -> Flow {
        if !self.filter.is_empty() {
            self.filter.clear();
        } else if self.selected.is_some() {
            self.selected = None;
        } else {
            return Flow::Quit;
        }
        Flow::Continue
    }

    /// Scrolls the detail, never beyond what there is.
    fn scroll_by(&mut self, lines: isize) {
        if self.mode == Mode::Detail {
            let last = detail::lines(self).len().saturating_sub(detail::height(self));
            self.scroll = self.scroll.saturating_add_signed(lines).min(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    /// A view after two snapshots of three VMs.
    fn view() -> View {
        let mut view = View::new((80, 24));
        for snapshot in fixture::interval() {
            view.update(Event::Snapshot(Box::new(snapshot)));
        }
        view
    }

    fn press(view: &mut View, keys: &[Key]) -> Flow {
        keys.iter().map(|key| view.update(Event::Key(*key))).last().unwrap_or(Flow::Continue)
    }

    fn typed(view: &mut View, text: &str) {
        press(view, &text.chars().map(Key::Char).collect::<Vec<_>>());
    }

    fn names(view: &View) -> Vec<String> {
        view.rows().into_iter().map(name).collect()
    }

    fn selected(view: &View) -> Option<String> {
        view.selected_vm().map(name)
    }

    #[test]
    fn the_costliest_vm_comes_first() {
        assert_eq!(names(&view()), ["web1", "db-primary", "idle"]);
    }

    #[test]
    fn s_and_r_change_the_order_and_not_the_selection() {
        let mut view = view();
        press(&mut view, &[Key::Down]);
        typed(&mut view, "r");
        assert_eq!(
            (names(&view), selected(&view)),
            (["idle", "db-primary", "web1"].map(str::to_owned).to_vec(), Some("web1".into()))
        );
        typed(&mut view, "r");
        while view.sort != Column::Vm {
            typed(&mut view, "s");
        }
        assert_eq!(names(&view), ["db-primary", "idle", "web1"]);
    }

    #[test]
    fn arrows_stay_in_the_list() {
        let mut view = view();
        assert_eq!(selected(&view), None);
        let steps = [
            (Key::Down, "web1"),
            (Key::Char('j'), "db-primary"),
            (Key::Down, "idle"),
            (Key::Down, "idle"),
            (Key::Char('k'), "db-primary"),
            (Key::Home, "web1"),
            (Key::Up, "web1"),
            (Key::End, "idle"),
            (Key::PageUp, "web1"),
            (Key::PageDown, "idle"),
        ];
        for (n, (key, vm)) in steps.into_iter().enumerate() {
            press(&mut view, &[key]);
            assert_eq!(selected(&view).as_deref(), Some(vm), "step {n}");
        }
    }

    #[test]
    fn esc_goes_back_step_by_step_and_then_out() {
        let mut view = view();
        typed(&mut view, "/web");
        press(&mut view, &[Key::Enter, Key::Enter]);
        assert_eq!((view.mode, selected(&view).as_deref()), (Mode::Detail, Some("web1")));
        assert_eq!(press(&mut view, &[Key::Esc]), Flow::Continue);
        assert_eq!((view.mode, view.filter.as_str()), (Mode::List, "web"));
        assert_eq!(press(&mut view, &[Key::Esc]), Flow::Continue);
        assert_eq!((view.filter.as_str(), selected(&view).is_some()), ("", true));
        assert_eq!(press(&mut view, &[Key::Esc]), Flow::Continue);
        assert_eq!(selected(&view), None);
        assert_eq!(press(&mut view, &[Key::Esc]), Flow::Quit);
    }

    #[test]
    fn q_closes_what_is_open_and_quits_the_list() {
        let mut view = view();
        assert_eq!(press(&mut view, &[Key::Enter, Key::Char('h'), Key::Char('q')]), Flow::Continue);
        assert_eq!((view.is_helping, view.mode), (false, Mode::Detail));
        assert_eq!(press(&mut view, &[Key::Char('q')]), Flow::Continue);
        assert_eq!(press(&mut view, &[Key::Char('q')]), Flow::Quit);
    }

    #[test]
    fn ctrl_c_quits_from_everywhere() {
        for keys in [&[][..], &[Key::Enter], &[Key::Char('h')], &[Key::Char('/')]] {
            let mut view = view();
            press(&mut view, keys);
            assert_eq!(press(&mut view, &[Key::Interrupt]), Flow::Quit, "{keys:?}");
        }
    }

    #[test]
    fn a_filter_takes_every_letter_and_hides_what_it_is_not() {
        let mut view = view();
        press(&mut view, &[Key::Down]);
        typed(&mut view, "/qDBx");
        press(&mut view, &[Key::Backspace]);
        assert_eq!((view.filter.as_str(), names(&view).len()), ("qDB", 0));
        assert_eq!(selected(&view), None, "what is hidden is not selected");
        press(&mut view, &[Key::Esc]);
        typed(&mut view, "/DB");
        press(&mut view, &[Key::Enter]);
        assert_eq!(names(&view), ["db-primary"]);
    }

    #[test]
    fn a_pause_takes_no_snapshots() {
        let mut view = view();
        assert!(view.wants_snapshot());
        typed(&mut view, " ");
        assert!(!view.wants_snapshot());
        typed(&mut view, " ");
        assert!(view.wants_snapshot());
        view.update(Event::Over);
        assert!(!view.wants_snapshot());
    }

    #[test]
    fn a_vm_that_goes_is_no_longer_selected() {
        let mut view = view();
        press(&mut view, &[Key::Down, Key::Enter]);
        let [_, mut later] = fixture::interval();
        later.window.seconds += 1.0;
        later.vms.remove(0);
        view.update(Event::Snapshot(Box::new(later)));
        assert_eq!(detail::lines(&view), ["This VM is gone. Esc goes back."]);
        press(&mut view, &[Key::Esc]);
        assert_eq!((view.selected.clone(), view.mode), (None, Mode::List));
    }

    #[test]
    fn scrolling_ends_with_the_text() {
        let mut view = view();
        press(&mut view, &[Key::Down, Key::Enter, Key::End]);
        let end = view.scroll;
        assert!(end > 0 && end < detail::lines(&view).len());
        press(&mut view, &[Key::Down]);
        assert_eq!(view.scroll, end);
        view.update(Event::Resized(80, 200));
        assert_eq!(view.scroll, 0);
    }

    #[test]
    fn a_message_stays_until_the_next_key_or_for_a_while() {
        let mut view = view();
        let told = || Event::Told("kvm was loaded: tracing".to_owned());
        view.update(told());
        assert!(view.message.is_some());
        press(&mut view, &[Key::Down]);
        assert_eq!(view.message, None);
        view.update(told());
        for _ in 0..MESSAGE_SNAPSHOTS {
            assert!(view.message.is_some());
            let [_, snapshot] = fixture::interval();
            view.update(Event::Snapshot(Box::new(snapshot)));
        }
        assert_eq!(view.message, None);
    }

    #[test]
    fn a_failure_stays_until_it_is_over() {
        let mut view = view();
        view.update(Event::Failed(Some("a map cannot be read".to_owned())));
        press(&mut view, &[Key::Down]);
        assert!(view.failure.is_some());
        view.update(Event::Failed(None));
        assert_eq!(view.failure, None);
    }

    #[test]
    fn keys_before_the_first_figures_do_nothing() {
        let mut view = View::new((80, 24));
        press(&mut view, &[Key::Down, Key::Enter, Key::End, Key::Char('s'), Key::Char('r')]);
        assert_eq!((view.mode, view.selected.clone()), (Mode::List, None));
    }
}
