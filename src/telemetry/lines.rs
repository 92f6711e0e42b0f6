//! Lines on their way out, written by a thread of its own: as many at a time as have come.
//!
//! Who logs pays for a lock and a copy. The thread is woken for the first line of several and then
//! waits a moment for more, so that a busy proxy makes a few large writes and no wake-up a line.
//! None is lost: who logs faster than can be written waits.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How long the first line of several waits for the others.
const LINGER: Duration = Duration::from_millis(10);

/// How many bytes of lines may wait; who comes with more waits too.
const ROOM: usize = 1024 * 1024;

/// Where lines are handed in.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

/// Writes what was handed in; dropping it writes what is left. Keep it to the end of the process.
#[must_use = "what is still to be written is lost without it"]
pub struct Writing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or it is the end.
    wanted: Condvar,
    /// There is room again.
    room: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    ending: bool,
}

/// Starts writing to `out`.
///
/// # Errors
/// If the system gives no thread.
pub(super) fn write_to(out: impl Write + Send + 'static) -> io::Result<(Lines, Writing)> {
    let shared = Arc::new(Shared::default());
    let lines = Lines(Arc::clone(&shared));
    let writer = Arc::clone(&shared);
    let thread = thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer.write_all(out))?;
    let thread = Some(thread);
    Ok((lines, Writing { shared, thread }))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // a panic elsewhere leaves nothing half done in here
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_in(&self, line: &[u8]) {
        let full = |state: &mut State| state.waiting.len() > ROOM && !state.ending;
        let state = self.room.wait_while(self.lock(), full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() {
            self.wanted.notify_one();
        }
        state.waiting.extend_from_slice(line);
    }

    fn write_all(&self, mut out: impl Write) {
        let mut taken = Vec::new();
        loop {
            let nothing = |state: &mut State| state.waiting.is_empty() && !state.ending;
            let state = self.wanted.wait_while(self.lock(), nothing);
            let state = state.unwrap_or_else(PoisonError::into_inner);
            let lingering = |state: &mut State| !state.ending && state.waiting.len() < ROOM / 2;
            let lingered = self.wanted.wait_timeout_while(state, LINGER, lingering);
            let (mut state, _) = lingered.unwrap_or_else(PoisonError::into_inner);
            if state.waiting.is_empty() {
                return;
            }
            std::mem::swap(&mut state.waiting, &mut taken);
            drop(state);
            self.room.notify_all();
            // nobody could be told that nothing can be told
            let _ = out.write_all(&taken).and_then(|()| out.flush());
            taken.clear();
        }
    }
}

impl Write for &Lines {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.hand_in(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.wanted.notify_one();
        self.shared.room.notify_all();
        if let Some(thread) = self.thread.take() {
            // it has written what it could, even if it panicked
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Tells of every write, and waits to be told that it may go on.
    struct Slow {
        written: mpsc::Sender<Vec<u8>>,
        go_on: mpsc::Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(bytes.to_vec()).unwrap();
            let _ = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Slow, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let (written, writes) = mpsc::channel();
        let (may, go_on) = mpsc::channel();
        (Slow { written, go_on }, writes, may)
    }

    #[test]
    fn what_came_meanwhile_is_written_at_once_and_in_order() {
        let (out, writes, may) = slow();
        let (lines, writing) = write_to(out).unwrap();
        (&lines).write_all(b"1\n").unwrap();
        assert_eq!(writes.recv().unwrap(), b"1\n");
        for line in ["2\n", "3\n", "4\n"] {
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        drop(may);
        assert_eq!(writes.recv().unwrap(), b"2\n3\n4\n");
        drop(writing);
    }

    #[test]
    fn the_end_writes_what_is_left() {
        let (out, writes, may) = slow();
        drop(may);
        let (lines, writing) = write_to(out).unwrap();
        (&lines).write_all(b"last\n").unwrap();
        drop(writing);
        let all: Vec<u8> = writes.try_iter().flatten().collect();
        assert_eq!(all, b"last\n");
    }

    #[test]
    fn who_is_too_fast_waits_and_nothing_is_lost() {
        let (out, writes, may) = slow();
        let (lines, writing) = write_to(out).unwrap();
        let line = vec![b'x'; ROOM / 2];
        let fast = {
            let line = line.clone();
            thread::spawn(move || {
                for _ in 0..8 {
                    (&lines).write_all(&line).unwrap();
                }
            })
        };
        let first = writes.recv().unwrap();
        assert!(
            !fast.is_finished(),
            "one is written, and no more than three have room"
        );
        drop(may);
        fast.join().unwrap();
        drop(writing);
        let all: usize = first.len() + writes.try_iter().map(|bytes| bytes.len()).sum::<usize>();
        assert_eq!(all, 8 * line.len());
    }
}
