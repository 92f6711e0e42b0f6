//! One accepted connection as pingora sees it: its bytes, with the limits on a request's head that
//! pingora does not have.
//!
//! pingora gives each *read* of a head its own 60 s and takes heads of up to 1 MiB. Here the whole
//! head has one deadline and one size, from its first byte on. It is also here that the few answers
//! which pingora makes itself, before any hook is called, are exchanged for this program's own.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::time::Sleep;

use super::respond::{self, Refusal};
use crate::telemetry::{self, ListenerMetrics};

/// How long a refused caller is listened to, so that it reads its answer.
const LINGER: Duration = Duration::from_secs(1);

/// What is collected before it is sent, so that a short answer leaves in one piece, head and body;
/// pingora's own listener has a buffer of this size. Nothing waits in it: pingora flushes at the end
/// of an answer, and listens for the caller whenever it has nothing to write, which flushes too.
const WRITE_BUFFER: usize = 1460;

/// The limits on a request's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) header_timeout: Duration,
    pub(crate) max_header_bytes: usize,
}

/// An accepted connection.
pub(crate) struct Connection {
    inner: BufWriter<Stream>,
    limits: Limits,
    listener: Arc<ListenerMetrics>,
    phase: AtomicPhase,
    header_bytes: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    _open: telemetry::Connection,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests: no byte of the next one has come.
    Idle,
    /// A head is coming in.
    Head,
    /// The head is read: the hooks have the request.
    Request,
    /// Refused: nothing more is read, and what pingora would say is dropped.
    Refused,
}

impl Connection {
    pub(crate) fn new(inner: Stream, limits: Limits, listener: Arc<ListenerMetrics>) -> Connection {
        Connection {
            inner: BufWriter::with_capacity(WRITE_BUFFER, inner),
            limits,
            phase: AtomicPhase::new(Phase::Idle),
            header_bytes: 0,
            deadline: None,
            _open: listener.connection(),
            listener,
        }
    }

    /// The hooks have a request: its head is complete.
    pub(crate) fn head_is_complete(&self) {
        self.phase.set(Phase::Request);
    }

    /// The hooks are done with the request: the next byte begins another.
    pub(crate) fn request_is_done(&self) {
        self.phase.set(Phase::Idle);
    }

    /// Answers and closes for reading, in place of a head that will not be taken.
    fn refuse(&mut self, cx: &mut Context<'_>, refusal: &Refusal) {
        self.phase.set(Phase::Refused);
        self.listener.refused(refusal.reason());
        // the socket's buffer is empty here, so the answer goes out whole or the caller is gone
        let answer = respond::answer(refusal).raw();
        let _ = Pin::new(&mut self.inner).poll_write(cx, &answer);
        let _ = Pin::new(&mut self.inner).poll_flush(cx);
    }

    /// Takes note of `n` bytes of a head; refuses it if it is too large.
    fn count(&mut self, cx: &mut Context<'_>, n: usize) -> bool {
        if self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Head);
            self.header_bytes = 0;
            self.deadline = None;
        }
        self.header_bytes += n;
        let fits = self.header_bytes <= self.limits.max_header_bytes;
        if !fits {
            self.refuse(cx, &Refusal::LargeHeader);
        }
        fits
    }

    /// Whether the head that is coming in is out of time.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.limits.header_timeout;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        deadline.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.inner.buffer().is_empty() {
            // an error shows at the next write; until it is through, this task is woken for it
            let _ = Pin::new(&mut this.inner).poll_flush(cx);
        }
        match this.phase.get() {
            Phase::Request => return Pin::new(&mut this.inner).poll_read(cx, buf),
            Phase::Refused => return Poll::Ready(Ok(())),
            Phase::Idle | Phase::Head => {}
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let n = buf.filled().len() - before;
                if n > 0 && !this.count(cx, n) {
                    buf.set_filled(before);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                if this.phase.get() == Phase::Head && this.is_late(cx) {
                    this.refuse(cx, &Refusal::SlowHeader);
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.phase.get() {
            Phase::Request | Phase::Idle => Pin::new(&mut self.inner).poll_write(cx, buf),
            Phase::Refused => Poll::Ready(Ok(buf.len())),
            Phase::Head => {
                // no hook has been called, so this is pingora's own answer to the head
                let refusal = if buf.get(8..12) == Some(b" 405") {
                    Refusal::Method
                } else {
                    Refusal::Unreadable
                };
                self.refuse(cx, &refusal);
                Poll::Ready(Ok(buf.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.phase.get(), Phase::Request | Phase::Idle) {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|b| !b.is_empty());
        let _ = ready!(self.as_mut().poll_write(cx, first.map_or(&[], |b| b)))?;
        Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // who is gone needs no answer
        let _ = self.inner.flush().await;
        Shutdown::shutdown(self.inner.get_mut()).await;
        if self.phase.get() == Phase::Refused {
            // closing with bytes unread resets the connection, and the answer with it
            let _ = tokio::time::timeout(LINGER, discard(self.inner.get_mut())).await;
        }
    }
}

/// Reads to the end, a mebibyte at most.
async fn discard(stream: &mut Stream) {
    let mut scratch = [0; 16 * 1024];
    for _ in 0..64 {
        match stream.read(&mut scratch).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.inner.get_ref().id()
    }
}

impl Ssl for Connection {}

#[async_trait]
impl Peek for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_ref().get_timing_digest()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_ref().get_socket_digest()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("phase", &self.phase.get())
            .finish_non_exhaustive()
    }
}

/// A [`Phase`] that the hooks can set through a shared reference.
struct AtomicPhase(AtomicU8);

impl AtomicPhase {
    const ALL: [Phase; 4] = [Phase::Idle, Phase::Head, Phase::Request, Phase::Refused];

    fn new(phase: Phase) -> AtomicPhase {
        AtomicPhase(AtomicU8::new(phase as u8))
    }

    fn get(&self) -> Phase {
        Self::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }
}
