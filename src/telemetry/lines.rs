//! The queue between the threads that log and the thread that writes the log.
//!
//! Logging costs the caller a short lock and a copy, and never waits. The first of several lines
//! wakes the thread, which then waits briefly for more, so that a busy proxy makes few large writes
//! and no wake-up per line. If the log is written too slowly, lines are dropped and counted instead
//! of delaying the program.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

use super::access::{Entry, Form, Formatter};
use super::ended::Ended;
use super::printable::{clean_lines, escape_json};

/// How long the first of several lines waits for the others.
const LINGER: Duration = Duration::from_millis(10);

/// The pause before retrying a write for which a non-blocking pipe had no room.
const PIPE_PAUSE: Duration = Duration::from_millis(50);

/// The capacity of the queue, in bytes.
const ROOM: usize = 8 * 1024 * 1024;

/// The part of it for requests, so that a busy proxy does not displace its own warnings.
const ROOM_FOR_REQUESTS: usize = ROOM / 8 * 7;

/// The size of a write, in bytes.
const PIECE: usize = 64 * 1024;

/// The capacity that a buffer keeps. Only a backlog makes it larger.
const KEPT: usize = 512 * 1024;

/// How long the process waits for unwritten lines when it exits.
const FAREWELL: Duration = Duration::from_secs(1);

/// The sending end, for lines and requests.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

/// The thread that writes the log. Dropping this waits until the queue is empty, for at most a
/// second. Keep it until the process exits.
#[derive(Debug)]
#[must_use = "lines that are not written yet are lost without it"]
pub struct Writing {
    shared: Arc<Shared>,
    /// Disconnected when the thread has ended, even if it panicked.
    ended: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signals that there are entries, or that the thread should end.
    wanted: Condvar,
    form: Form,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    /// Lines dropped since `waiting` was last taken.
    lost: u64,
    ending: bool,
}

/// The queued entries, in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// The texts of the entries, concatenated.
    pub(super) text: Vec<u8>,
}

impl Batch {
    fn size(&self) -> usize {
        self.text.len() + self.entries.len() * size_of::<Entry>()
    }

    fn add_lines(&mut self, lines: &[u8]) {
        self.text.extend_from_slice(lines);
        self.entries.push(Entry::Lines(lines.len()));
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEPT / size_of::<Entry>());
        self.text.clear();
        self.text.shrink_to(KEPT);
    }
}

/// Starts writing to `out`, with requests in the form `form`. Lost lines are added to
/// `dropped`. When writing works again, `report` is called with the number of lost lines; it may
/// log.
///
/// # Errors
/// If the system cannot create a thread.
pub(super) fn write_to(
    out: impl Write + Send + 'static,
    form: Form,
    dropped: IntCounter,
    report: impl Fn(u64) + Send + 'static,
) -> io::Result<(Lines, Writing)> {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        wanted: Condvar::new(),
        form,
        dropped,
    });
    let lines = Lines(Arc::clone(&shared));
    let writer = Arc::clone(&shared);
    let (ends, ended) = mpsc::channel::<()>();
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            let _ends = ends;
            writer.write_all(out, report);
        })?;
    Ok((lines, Writing { shared, ended }))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // a panic elsewhere leaves nothing inconsistent here
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `add` if the queue has room for more within `limit`.
    fn hand_in(&self, limit: usize, add: impl FnOnce(&mut Batch)) {
        let mut state = self.lock();
        if state.waiting.size() >= limit {
            state.lost += 1;
            drop(state);
            self.dropped.inc();
            return;
        }
        let is_first = state.waiting.entries.is_empty();
        add(&mut state.waiting);
        drop(state);
        if is_first {
            self.wanted.notify_one();
        }
    }

    fn write_all(&self, mut out: impl Write, report: impl Fn(u64)) {
        let mut taken = Batch::default();
        let mut piece = Vec::with_capacity(2 * PIECE);
        let mut lines = Formatter::new(self.form);
        let mut unreported = 0;
        let mut is_sound = true;
        while let Some(lost) = self.take(&mut taken) {
            unreported += lost;
            // the queue is empty now, so the report follows the lines before the loss
            if is_sound && unreported > 0 {
                report(std::mem::take(&mut unreported));
            }
            let mut text = &*taken.text;
            let mut write_piece = |piece: &mut Vec<u8>| {
                let unwritten = write(&mut out, piece);
                is_sound = unwritten == 0;
                self.dropped.inc_by(unwritten);
                unreported += unwritten;
                piece.clear();
            };
            for entry in &taken.entries {
                text = lines.write(entry, text, &mut piece);
                if piece.len() >= PIECE && piece.ends_with(b"\n") {
                    write_piece(&mut piece);
                }
            }
            write_piece(&mut piece);
            piece.shrink_to(2 * PIECE);
            taken.clear();
            if is_sound && unreported > 0 {
                report(std::mem::take(&mut unreported));
            }
        }
    }

    /// Waits for entries and takes all of them, with the number of lines lost meanwhile; `None` at
    /// the end.
    fn take(&self, taken: &mut Batch) -> Option<u64> {
        let nothing = |state: &mut State| state.waiting.entries.is_empty() && !state.ending;
        let state = self.wanted.wait_while(self.lock(), nothing);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let lingering = |state: &mut State| !state.ending;
        let lingered = self.wanted.wait_timeout_while(state, LINGER, lingering);
        let (mut state, _) = lingered.unwrap_or_else(PoisonError::into_inner);
        if state.waiting.entries.is_empty() {
            return None;
        }
        std::mem::swap(&mut state.waiting, taken);
        Some(std::mem::take(&mut state.lost))
    }
}

/// Writes whole lines; returns how many could not be written.
fn write(out: &mut impl Write, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => break,
            Ok(written) => lines = &lines[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // another process made the pipe non-blocking, which applies to all of its writers
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PIPE_PAUSE),
            Err(_) => break,
        }
    }
    // there is nowhere to report an error
    let _ = out.flush();
    lines.iter().filter(|b| **b == b'\n').count() as u64
}

impl Lines {
    /// Queues the line of a request, which ended `at`.
    pub(super) fn request(&self, request: &Ended<'_>, at: SystemTime) {
        self.0
            .hand_in(ROOM_FOR_REQUESTS, |batch| batch.add_request(request, at));
    }
}

impl Write for &Lines {
    /// Queues a line. In JSON, escapes the characters that a terminal interprets and `tracing`
    /// leaves: control characters beyond ASCII, and those that reverse the writing direction.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_plain = |b: &u8| (0x20..0x7f).contains(b) || *b == b'\n';
        if self.0.form == Form::Json && !line.iter().all(is_plain) {
            let escaped = escape_json(&String::from_utf8_lossy(line));
            self.0
                .hand_in(ROOM, |batch| batch.add_lines(escaped.as_bytes()));
        } else {
            self.0.hand_in(ROOM, |batch| batch.add_lines(line));
        }
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

impl Writing {
    /// Writes `text` and a line break after everything logged before.
    pub fn say(&self, text: &dyn fmt::Display) {
        let lines = format!("{}\n", clean_lines(&text.to_string()));
        self.shared
            .hand_in(ROOM, |batch| batch.add_lines(lines.as_bytes()));
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.wanted.notify_one();
        let _ = self.ended.recv_timeout(FAREWELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    /// The time limit of everything here on a working machine.
    const SOON: Duration = Duration::from_secs(30);

    /// Reports each write, and waits until the test lets it continue.
    struct Slow {
        written: Sender<Vec<u8>>,
        go_on: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // the test may have ended
            let _ = self.written.send(bytes.to_vec());
            let _ = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Log {
        lines: Lines,
        writing: Writing,
        dropped: IntCounter,
        /// The reported numbers of lost lines.
        reports: Receiver<u64>,
    }

    fn log(out: impl Write + Send + 'static) -> Log {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (report, reports) = mpsc::channel();
        let (lines, writing) = write_to(out, Form::Plain, dropped.clone(), move |lost| {
            let _ = report.send(lost);
        })
        .unwrap();
        Log {
            lines,
            writing,
            dropped,
            reports,
        }
    }

    fn slow() -> (Log, Receiver<Vec<u8>>, Sender<()>) {
        let (written, writes) = mpsc::channel();
        let (may, go_on) = mpsc::channel();
        (log(Slow { written, go_on }), writes, may)
    }

    fn next(writes: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(writes.recv_timeout(SOON).unwrap()).unwrap()
    }

    #[test]
    fn lines_that_came_during_a_write_are_written_at_once_and_in_order() {
        let (log, writes, may) = slow();
        (&log.lines).write_all(b"1\n").unwrap();
        assert_eq!(next(&writes), "1\n");
        for line in ["2\n", "3\n", "4\n"] {
            (&log.lines).write_all(line.as_bytes()).unwrap();
        }
        drop(may);
        assert_eq!(next(&writes), "2\n3\n4\n");
    }

    #[test]
    fn the_end_writes_what_is_left() {
        let (log, writes, may) = slow();
        drop(may);
        (&log.lines).write_all(b"last\n").unwrap();
        log.writing.say(&"said");
        drop(log.writing);
        let all: Vec<u8> = writes.try_iter().flatten().collect();
        assert_eq!(all, b"last\nsaid\n");
    }

    #[test]
    fn a_log_that_hangs_loses_lines_and_holds_nobody_up() {
        let (log, writes, may) = slow();
        (&log.lines).write_all(b"first\n").unwrap();
        assert_eq!(next(&writes), "first\n");
        // the thread takes nothing from the queue until the write continues
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let fit = ROOM.div_ceil(line.len() + size_of::<Entry>()) as u64;
        for _ in 0..fit + 7 {
            (&log.lines).write_all(&line).unwrap();
        }
        assert_eq!(log.dropped.get(), 7);
        assert!(log.reports.try_recv().is_err(), "nobody could read it");

        drop(may);
        assert_eq!(log.reports.recv_timeout(SOON).unwrap(), 7);
        drop(log.writing);
        let all: usize = writes.try_iter().map(|bytes| bytes.len()).sum();
        assert_eq!(all as u64, fit * line.len() as u64);
        assert_eq!(log.dropped.get(), 7);
    }

    #[test]
    fn the_end_waits_a_moment_for_a_log_that_hangs() {
        let (log, writes, may) = slow();
        (&log.lines).write_all(b"first\n").unwrap();
        assert_eq!(next(&writes), "first\n");
        let (gone, is_gone) = mpsc::channel();
        let writing = log.writing;
        thread::spawn(move || {
            drop(writing);
            gone.send(())
        });
        is_gone.recv_timeout(SOON).unwrap();
        drop(may);
    }

    /// Accepts some bytes, and then fails until it is told to work again.
    struct Broken {
        takes: usize,
        written: Sender<Vec<u8>>,
        failed: Sender<()>,
        is_well: Receiver<()>,
        well: bool,
    }

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.well = self.well || self.is_well.try_recv().is_ok();
            let taken = if self.well {
                bytes.len()
            } else {
                self.takes.min(bytes.len())
            };
            if taken == 0 {
                let _ = self.failed.send(());
                return Err(ErrorKind::StorageFull.into());
            }
            self.takes -= taken.min(self.takes);
            let _ = self.written.send(bytes[..taken].to_vec());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_reported_once_lines_can() {
        let (written, writes) = mpsc::channel();
        let (failed, failures) = mpsc::channel();
        let (mend, is_well) = mpsc::channel();
        let log = log(Broken {
            takes: 6,
            written,
            failed,
            is_well,
            well: false,
        });
        log.writing.say(&"whole\ncut\nlost");
        assert_eq!(next(&writes), "whole\n");
        failures.recv_timeout(SOON).unwrap();
        mend.send(()).unwrap();
        (&log.lines).write_all(b"well\n").unwrap();
        assert_eq!(next(&writes), "well\n");
        assert_eq!(log.reports.recv_timeout(SOON).unwrap(), 2);
        assert_eq!(log.dropped.get(), 2);
    }

    #[test]
    fn a_pipe_that_has_no_room_is_tried_again() {
        struct Full(bool, Sender<Vec<u8>>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if std::mem::take(&mut self.0) {
                    return Err(ErrorKind::WouldBlock.into());
                }
                let _ = self.1.send(bytes.to_vec());
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, writes) = mpsc::channel();
        let log = log(Full(true, written));
        (&log.lines).write_all(b"kept\n").unwrap();
        assert_eq!(next(&writes), "kept\n");
        assert_eq!(log.dropped.get(), 0);
    }
}
