//! A terminal taken over for a live view, and given back whatever happens: at the end, at a panic, at a signal.

use super::text::Line;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// The other screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";
/// Terminals that know it draw what stands between the two at once.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
/// A terminal that does not tell its size has this one.
const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// How the terminal was, while it is taken over.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Keys that mean something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// `q` or Ctrl-C.
    Quit,
    /// Up or `k`.
    Up,
    /// Down or `j`.
    Down,
    /// A page up.
    PageUp,
    /// A page down, or space.
    PageDown,
    /// Enter, or right.
    Open,
    /// Escape, left or backspace.
    Back,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Redraw,
}

/// The terminal while it is taken over.
pub struct Screen {
    shown: Vec<String>,
    colours: bool,
}

impl Screen {
    /// Takes the terminal over. Fails where standard input and output are not both one.
    pub fn enter() -> io::Result<Screen> {
        if !is_terminal() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // First, so that what is said about the panic can be read.
            leave();
            hook(info);
        }));
        take_over()?;
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        Ok(Screen { shown: Vec::new(), colours })
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(rustix::stdio::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => SIZE_DEFAULT,
        }
    }

    /// Forgets what is shown: the next drawing writes every line.
    pub fn forget(&mut self) {
        self.shown.clear();
    }

    /// Shows these lines from the top, and nothing else. Only lines that differ are written.
    pub fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let (width, height) = self.size();
        let mut next: Vec<String> =
            lines.iter().take(height).map(|line| line.render(width, self.colours)).collect();
        next.resize(height, String::new());
        let fresh = self.shown.len() != next.len();
        let mut frame = String::from(BEGIN);
        if fresh {
            frame.push_str("\x1b[2J");
        }
        for (row, line) in next.iter().enumerate() {
            if fresh || self.shown.get(row) != Some(line) {
                frame.push_str(&format!("\x1b[{};1H\x1b[K{line}", row + 1));
            }
        }
        frame.push_str(END);
        self.shown = next;
        let mut stdout = io::stdout().lock();
        stdout.write_all(frame.as_bytes())?;
        stdout.flush()
    }

    /// Gives the terminal back and stops, as Ctrl-Z does elsewhere; goes on when it is told to.
    pub fn suspend(&mut self) -> io::Result<()> {
        leave();
        kill_process(getpid(), Signal::TSTP)?;
        self.forget();
        take_over()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Whether a person sits at both ends.
pub fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn take_over() -> io::Result<()> {
    let before = tcgetattr(rustix::stdio::stdin())?;
    let mut raw = before.clone();
    raw.make_raw();
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(ENTER.as_bytes())?;
    stdout.flush()
}

fn leave() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(before) = before else { return };
    let mut stdout = io::stdout();
    // A terminal that is gone needs nothing back.
    _ = stdout.write_all(LEAVE.as_bytes()).and_then(|()| stdout.flush());
    _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
}

/// Keys as they are typed, until the terminal is gone.
pub fn keys() -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        loop {
            let count = match io::stdin().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            for key in typed(&buffer[..count]) {
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// The keys in what a terminal sends at a time.
fn typed(mut bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&[u8], Key); 10] = [
        (b"\x1b[A", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1b[C", Key::Open),
        (b"\x1b[D", Key::Back),
        (b"\x1bOA", Key::Up),
        (b"\x1bOB", Key::Down),
        (b"\x1bOC", Key::Open),
        (b"\x1bOD", Key::Back),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
    ];
    let mut keys = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
            keys.push(*key);
            bytes = &bytes[sequence.len()..];
            continue;
        }
        if let [0x1b, b'[' | b'O', others @ ..] = bytes {
            // One that means nothing here: up to the letter that ends it.
            let end = others.iter().position(|byte| (0x40..0x7f).contains(byte));
            bytes = end.map_or(&[][..], |end| &others[end + 1..]);
            continue;
        }
        bytes = rest;
        keys.extend(match first {
            b'q' | b'Q' | 0x03 => Some(Key::Quit),
            b'k' => Some(Key::Up),
            b'j' => Some(Key::Down),
            b' ' => Some(Key::PageDown),
            b'b' => Some(Key::PageUp),
            b'\r' | b'\n' | b'l' => Some(Key::Open),
            0x1b | 0x7f | 0x08 | b'h' => Some(Key::Back),
            0x1a => Some(Key::Suspend),
            0x0c => Some(Key::Redraw),
            _ => None,
        });
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(typed(b"\x1b[A\x1b[Bq"), [Key::Up, Key::Down, Key::Quit]);
        assert_eq!(typed(b"\x1b"), [Key::Back]);
        assert_eq!(typed(b"\x1b[1;5Cx\x03"), [Key::Quit], "an unknown sequence is passed over");
        assert_eq!(typed(b"\x1b["), []);
        assert_eq!(typed("ä\r".as_bytes()), [Key::Open]);
    }
}
