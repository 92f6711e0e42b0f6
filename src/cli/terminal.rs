//! The terminal: its size, and a full screen that is restored afterwards.
//!
//! The code that draws cuts lines at the edge of the screen, so that none wraps.

use std::io::{self, IsTerminal, Read, Write};
use std::thread;

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The size if the terminal does not report one: a VT100's.
const USUAL: Size = Size {
    columns: 80,
    rows: 24,
};

/// Enters the alternate screen, hides the cursor and disables wrapping (xterm's private modes 1049,
/// 25 and 7).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";

/// Restores the screen, with the default colours.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Moves the cursor to the upper left corner (ECMA-48, CUP).
const HOME: &str = "\x1b[H";

/// Clears the rest of the line, and of the screen (ECMA-48, EL and ED).
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

/// The keys to quit and to redraw: `q` and Ctrl-L.
const QUIT: u8 = b'q';
const REDRAW: u8 = 0x0c;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// The width for lines on standard output. A terminal has a width; a pipe has none, unless the
/// variable `COLUMNS` sets it, as `watch` does.
pub(super) fn width() -> Option<usize> {
    let columns = std::env::var("COLUMNS").ok();
    let columns = columns.and_then(|columns| columns.parse().ok());
    let columns = columns.filter(|&columns: &usize| columns > 0);
    match io::stdout().is_terminal() {
        true => Some(own_size().map_or(columns.unwrap_or(USUAL.columns), |size| size.columns)),
        false => columns,
    }
}

/// The size reported by the terminal at standard output, if any.
fn own_size() -> Option<Size> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    let size = Size {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    };
    (size.columns > 0 && size.rows > 0).then_some(size)
}

/// The full screen of the terminal at standard output. Dropping it restores the terminal.
#[derive(Debug)]
pub(super) struct Screen {
    /// The terminal's previous input mode; none if standard input is no terminal.
    before: Option<Termios>,
    /// The keys that were pressed, and for each signal the key with the same meaning.
    keys: UnboundedReceiver<u8>,
}

impl Screen {
    /// Enters the full screen.
    ///
    /// # Errors
    /// The terminal's error.
    pub(super) fn enter() -> io::Result<Screen> {
        let has_keys = io::stdin().is_terminal();
        let before = has_keys.then(|| tcgetattr(io::stdin())).transpose()?;
        let (pressed, keys) = unbounded_channel();
        for (kind, key) in [
            (SignalKind::interrupt(), QUIT),
            (SignalKind::terminate(), QUIT),
            (SignalKind::hangup(), QUIT),
            (SignalKind::window_change(), REDRAW),
        ] {
            let (mut signals, pressed) = (signal(kind)?, pressed.clone());
            tokio::spawn(async move {
                while signals.recv().await.is_some() && pressed.send(key).is_ok() {}
            });
        }
        if has_keys {
            // it ends with the process, because a read cannot be interrupted
            thread::spawn(move || {
                let keys = io::stdin().lock().bytes();
                keys.map_while(Result::ok)
                    .all(|key| pressed.send(key).is_ok())
            });
        }
        let mut screen = Screen { before, keys };
        screen.take()?;
        Ok(screen)
    }

    /// Its current size.
    pub(super) fn size(&self) -> Size {
        own_size().unwrap_or(USUAL)
    }

    /// Draws `lines` over the previous ones, as many as fit. None may be wider than the screen.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let lines = &lines[..lines.len().min(self.size().rows)];
        // clear before each line: clearing after a line as wide as the screen would erase its last
        // character; and no line break after the last line, which would scroll
        let Some((last, lines)) = lines.split_last() else {
            return Ok(());
        };
        let lines = lines.iter().map(|line| format!("{REST_OF_LINE}{line}\r\n"));
        let lines: String = lines.collect();
        write(&format!("{HOME}{lines}{REST_OF_SCREEN}{last}"))
    }

    /// Waits for the next event. Returns whether the command should end; if not, it should redraw,
    /// because the size changed or another program used the screen.
    pub(super) async fn quits(&mut self) -> io::Result<bool> {
        while let Some(key) = self.keys.recv().await {
            match key {
                // Ctrl-C and Ctrl-D
                QUIT | b'Q' | 0x03 | 0x04 => break,
                REDRAW => return Ok(false),
                // Ctrl-Z
                0x1a => {
                    self.give_back()?;
                    // continues when the shell resumes it
                    kill_process(getpid(), Signal::TSTP)?;
                    self.take()?;
                    return Ok(false);
                }
                _ => {}
            }
        }
        Ok(true)
    }

    fn take(&mut self) -> io::Result<()> {
        if let Some(before) = &self.before {
            // read keys one by one without echo, Ctrl-C included
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        }
        write(ENTER)
    }

    fn give_back(&mut self) -> io::Result<()> {
        write(LEAVE)?;
        if let Some(before) = &self.before {
            tcsetattr(io::stdin(), OptionalActions::Now, before)?;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // a terminal that is gone needs no restoring
        let _ = self.give_back();
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
