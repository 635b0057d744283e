//! The terminal, taken and given back: after a quit, an error and a panic alike.

use std::{io, thread, time::Duration};

use anyhow::Context;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::sync::mpsc::Sender;

use super::state::{Event, Key};

/// How often the reader of the keys looks whether anybody still wants them.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The terminal in raw mode, showing its other screen. Dropping it gives the terminal back; so does a panic,
/// before its message is printed.
pub(super) struct Screen {
    pub(super) terminal: DefaultTerminal,
}

impl Screen {
    pub(super) fn open() -> anyhow::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore());
        Ok(Self { terminal: terminal.context("cannot take over the terminal")? })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Leaving the other screen a second time would put the cursor above the panic's message.
        if !thread::panicking() {
            // The terminal may be gone, and then there is nobody to tell.
            _ = ratatui::try_restore();
        }
    }
}

/// Sends keys and sizes until nobody wants them any more, or the terminal is gone.
pub(super) fn read_keys(events: Sender<Event>) {
    thread::spawn(move || {
        while !events.is_closed() {
            let event = match read_event() {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(_) => Event::Key(Key::Interrupt),
            };
            if events.blocking_send(event).is_err() {
                break;
            }
        }
    });
}

fn read_event() -> io::Result<Option<Event>> {
    if !event::poll(LOOK_EVERY)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        event::Event::Key(key) => parse_key(key).map(Event::Key),
        event::Event::Resize(columns, lines) => Some(Event::Resized(columns, lines)),
        _ => None,
    })
}

fn parse_key(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        return is_interrupt.then_some(Key::Interrupt);
    }
    match key.code {
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown => Some(Key::PageDown),
        KeyCode::Home => Some(Key::Home),
        KeyCode::End => Some(Key::End),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Esc),
        KeyCode::Backspace => Some(Key::Backspace),
        KeyCode::Char(c) => Some(Key::Char(c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_keys_are_no_letters() {
        let key = |c, modifiers| parse_key(KeyEvent::new(KeyCode::Char(c), modifiers));
        assert_eq!(key('c', KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(key('q', KeyModifiers::CONTROL), None);
        assert_eq!(key('G', KeyModifiers::SHIFT), Some(Key::Char('G')));
        assert_eq!(key('c', KeyModifiers::ALT), None);
    }
}
