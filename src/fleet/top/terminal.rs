//! The terminal of `fleet top`: another screen for as long as it is open, keys as they are typed, and lines drawn in place.
//!
//! Whatever ends the view leaves the terminal as it was.

use std::io::{self, Stdin, Write as _};
use std::os::fd::AsFd as _;
use std::panic;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::screen::{Line, Tone};

/// Another screen, without a cursor, and without going on in the next line where wide letters make one too long.
const OPEN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
/// The screen and the cursor from before.
const CLOSE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// The size of a terminal that does not say how large it is.
const USUAL: (usize, usize) = (80, 24);

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Sort,
    /// The view of that number, from zero on.
    View(usize),
    NextView,
}

/// A terminal that shows the view.
pub(super) struct Terminal {
    input: Stdin,
    before: Termios,
    drawn: Vec<Line>,
    size: (usize, usize),
}

impl Terminal {
    /// Turns to the other screen.
    ///
    /// # Errors
    /// When standard input is no terminal, or cannot be written to.
    pub(super) fn open() -> io::Result<Self> {
        let input = io::stdin();
        let before = tcgetattr(&input)?;
        restore_on_panic(before.clone());
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw)?;
        let terminal = Self {
            input,
            before,
            drawn: Vec::new(),
            size: USUAL,
        };
        write(OPEN)?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub(super) fn size(&mut self) -> (usize, usize) {
        let size = tcgetwinsize(io::stdout()).map_or(USUAL, |size| {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        });
        let size = if size.0 == 0 || size.1 == 0 {
            USUAL
        } else {
            size
        };
        if size != self.size {
            // What was drawn is not where it was.
            self.drawn.clear();
            self.size = size;
        }
        size
    }

    /// Draws the lines that have changed.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = String::new();
        if self.drawn.is_empty() {
            text.push_str("\x1b[2J");
        }
        for (place, line) in lines.iter().enumerate() {
            if self.drawn.get(place) == Some(line) {
                continue;
            }
            let tone = match line.tone {
                Tone::Plain => "\x1b[0m",
                Tone::Strong => "\x1b[0;1m",
                Tone::Head => "\x1b[0;7m",
                Tone::Bad => "\x1b[0;1;31m",
                Tone::Warning => "\x1b[0;33m",
            };
            let row = place + 1;
            text.push_str(&format!("\x1b[{row};1H{tone}{}\x1b[0m\x1b[K", line.text));
        }
        self.drawn = lines.to_vec();
        if text.is_empty() {
            return Ok(());
        }
        write(&text)
    }

    /// The next key that asks for something, if one comes within `patience`.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn key(&self, patience: Duration) -> io::Result<Option<Key>> {
        let mut inputs = [PollFd::new(&self.input, PollFlags::IN)];
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        match poll(&mut inputs, Some(&patience)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            // A window that changes its size, say.
            Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 64];
        // Past the buffer of standard input, which would hide from the poll what it holds.
        match rustix::io::read(self.input.as_fd(), &mut bytes)? {
            0 => Ok(Some(Key::Quit)),
            count => Ok(key(&bytes[..count])),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

/// A program that ends at a panic drops nothing, so the terminal is put right before the panic is told.
fn restore_on_panic(before: Termios) {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        restore(&before);
        tell(panicked);
    }));
}

fn restore(before: &Termios) {
    // It may be gone.
    let _ = write(CLOSE);
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What was typed, of which the first key counts.
fn key(bytes: &[u8]) -> Option<Key> {
    const CTRL_C: u8 = 3;
    match bytes {
        [b'q' | b'Q' | CTRL_C, ..] | [0x1b] => Some(Key::Quit),
        [b's', ..] => Some(Key::Sort),
        [b'\t', ..] => Some(Key::NextView),
        [b'k', ..] | [0x1b, b'[' | b'O', b'A', ..] => Some(Key::Up),
        [b'j', ..] | [0x1b, b'[' | b'O', b'B', ..] => Some(Key::Down),
        [b' ', ..] | [0x1b, b'[', b'6', b'~', ..] => Some(Key::PageDown),
        [b'b', ..] | [0x1b, b'[', b'5', b'~', ..] => Some(Key::PageUp),
        [b'g', ..] | [0x1b, b'[' | b'O', b'H', ..] => Some(Key::First),
        [digit @ b'1'..=b'4', ..] => Some(Key::View(usize::from(digit - b'1'))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_as_terminals_send_them() {
        for (typed, meant) in [
            (&b"q"[..], Some(Key::Quit)),
            (b"\x03", Some(Key::Quit)),
            (b"\x1b", Some(Key::Quit)),
            (b"\x1b[A", Some(Key::Up)),
            (b"\x1bOB", Some(Key::Down)),
            (b"\x1b[6~", Some(Key::PageDown)),
            (b"3", Some(Key::View(2))),
            (b"s", Some(Key::Sort)),
            (b"\x1b[15~", None),
            (b"x", None),
        ] {
            assert_eq!(key(typed), meant, "{typed:?}");
        }
    }
}
