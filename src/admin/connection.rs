//! The connections of the admin address: tracks their progress, closes the longest idle one when
//! room is needed, and limits how long a caller may leave its response unread.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, Id};
use tokio::time::{Instant, Sleep, sleep};

use crate::clock::timers;

/// How long a connection counts as just accepted, because its request is in flight. Callers of this
/// address are close, so that is short.
pub(super) const NEW: Duration = Duration::from_millis(50);

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Connections(HashMap<Id, Open>);

/// An open connection.
#[derive(Debug)]
struct Open {
    task: AbortHandle,
    progress: Progress,
    since: Instant,
}

/// When a connection last sent or received bytes, in turns shared by all connections.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<AtomicU64>);

/// The last turn.
static TURNS: AtomicU64 = AtomicU64::new(0);

impl Connections {
    /// Adds the connection that `task` serves, with its `progress`.
    pub(super) fn add(&mut self, task: AbortHandle, progress: Progress) {
        let open = Open {
            progress,
            since: timers(),
            task,
        };
        self.0.insert(open.task.id(), open);
    }

    /// Removes the connection of the task with this `id`, which has ended.
    pub(super) fn remove(&mut self, id: Id) {
        self.0.remove(&id);
    }

    /// The number of open connections.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Closes the connection that has been idle longest, unless all were just accepted; returns
    /// whether it closed one. Its descriptor becomes free when its task ends, shortly afterwards.
    pub(super) fn shed(&mut self) -> bool {
        let now = timers();
        let old = self.0.iter().filter(|(_, open)| now - open.since >= NEW);
        let stillest = old.min_by_key(|(_, open)| open.progress.0.load(Ordering::Relaxed));
        let open = stillest
            .map(|(id, _)| *id)
            .and_then(|id| self.0.remove(&id));
        open.inspect(|open| open.task.abort()).is_some()
    }
}

impl Progress {
    /// Returns the progress of a connection that was just accepted.
    pub(super) fn new() -> Progress {
        let progress = Progress(Arc::default());
        progress.mark();
        progress
    }

    fn mark(&self) {
        let turn = TURNS.fetch_add(1, Ordering::Relaxed);
        self.0.store(turn, Ordering::Relaxed);
    }
}

/// A connection that records its progress, and fails once its caller has read nothing for too long.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    progress: Progress,
    patience: Duration,
    /// The deadline of a pending write.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    /// Wraps `stream`: a write that is pending for longer than `patience` fails.
    pub(super) fn new(stream: S, progress: Progress, patience: Duration) -> Guarded<S> {
        Guarded {
            stream,
            progress,
            patience,
            deadline: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.progress.mark();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.progress.mark();
            self.deadline = None;
            return written;
        }
        let patience = self.patience;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        let deadline = deadline.as_mut().poll(cx);
        deadline.map(|()| Err(ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_just_accepted_is_not_closed_for_another() {
        let mut connections = Connections::default();
        let probe = tokio::spawn(pending::<()>());
        connections.add(probe.abort_handle(), Progress::new());
        // others come at the same moment, and are accepted before the probe's request is read
        let later = tokio::spawn(pending::<()>());
        connections.add(later.abort_handle(), Progress::new());
        assert!(!connections.shed());
        advance(NEW).await;
        assert!(connections.shed());
        assert!(probe.await.is_err_and(|ended| ended.is_cancelled()));
        assert!(connections.shed() && !connections.shed());
        assert!(later.await.is_err_and(|ended| ended.is_cancelled()));
    }
}
