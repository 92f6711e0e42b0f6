//! One accepted connection as pingora sees it: its bytes, with the limits that pingora does not
//! have.
//!
//! pingora gives each *read* of a head its own 60 s and takes heads of up to 1 MiB. Here the whole
//! head has one deadline and one size, from its first byte on, and that byte has a deadline too
//! where the connection is new. A body, and whatever is sent to the caller, has to move at the
//! listener's pace. It is also here that the few answers which pingora makes itself, before any hook
//! is called, are exchanged for this program's own.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::time::Sleep;

use super::pace::Pace;
use super::phase::{AtomicBody, AtomicPhase, Body, Phase};
use super::respond::{self, Refusal};
use super::transport::Transport;
use crate::telemetry::{self, ListenerMetrics};

/// How long a refused caller is listened to, so that it reads its answer.
const LINGER: Duration = Duration::from_secs(1);

/// How long the end of a connection may take to be told.
const FAREWELL: Duration = Duration::from_secs(5);

/// What is collected before it is sent, so that a short answer leaves in one piece, head and body;
/// pingora's own listener has a buffer of this size. Nothing waits in it: pingora flushes at the end
/// of an answer, and listens for the caller whenever it has nothing to write, which flushes too.
const WRITE_BUFFER: usize = 1460;

/// The limits on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) header_timeout: Duration,
    pub(crate) max_header_bytes: usize,
    pub(crate) min_body_rate: Option<NonZeroU32>,
}

/// An accepted connection.
pub(crate) struct Connection {
    inner: BufWriter<Transport>,
    digest: Option<Arc<ProxyDigest>>,
    limits: Limits,
    listener: Arc<ListenerMetrics>,
    phase: AtomicPhase,
    header_bytes: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The caller's pace in sending a body.
    sending: Pace,
    body: AtomicBody,
    /// What was waited for last was not the caller.
    forgiven: AtomicBool,
    /// It has sent its body too slowly.
    is_slow: AtomicBool,
    /// The caller's pace in taking what is sent to it.
    taking: Pace,
    /// What the other side had confirmed when its pace was last looked at.
    confirmed: Option<u64>,
    /// What its socket has taken, for where nothing is confirmed.
    written: u64,
    _open: telemetry::Connection,
}

impl Connection {
    pub(crate) fn new(
        inner: Transport,
        limits: Limits,
        listener: Arc<ListenerMetrics>,
        open: telemetry::Connection,
    ) -> Connection {
        let peer = inner.peer();
        let phase = if inner.is_http2() {
            Phase::Frames
        } else {
            Phase::Opened
        };
        Connection {
            // what is known of a caller without TLS is nothing
            digest: if peer.tls { peer.into_digest() } else { None },
            inner: BufWriter::with_capacity(WRITE_BUFFER, inner),
            limits,
            phase: AtomicPhase::new(phase),
            header_bytes: 0,
            deadline: None,
            sending: Pace::of(limits.min_body_rate),
            body: AtomicBody::new(Body::Nothing),
            forgiven: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            taking: Pace::of(limits.min_body_rate),
            confirmed: None,
            written: 0,
            _open: open,
            listener,
        }
    }

    /// Whether it speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.phase.get() == Phase::Frames
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The hooks have a request: its head is complete.
    pub(crate) fn head_is_complete(&self, body: Body) {
        self.body.set(body);
        self.phase.set(Phase::Request);
    }

    /// Nothing more of the request's body is waited for.
    pub(crate) fn body_is_complete(&self) {
        self.body.set(Body::Nothing);
    }

    /// Until it is read from again, nobody waits for the caller.
    pub(crate) fn is_not_waited_for(&self) {
        self.forgiven.store(true, Ordering::Relaxed);
    }

    /// Whether the request's body came too slowly.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
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
        if matches!(self.phase.get(), Phase::Opened | Phase::Idle) {
            self.phase.set(Phase::Head);
            self.header_bytes = 0;
            self.deadline = None;
            self.sending.reset();
            self.taking.reset();
            self.confirmed = None;
        }
        self.header_bytes += n;
        let fits = self.header_bytes <= self.limits.max_header_bytes;
        if !fits {
            self.refuse(cx, &Refusal::LargeHeader);
        }
        fits
    }

    /// Reads on after a head.
    fn poll_read_on(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.forgiven.swap(false, Ordering::Relaxed) {
            self.sending.forgive();
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() {
            self.sending.resume();
            let n = buf.filled().len() - before;
            self.sending.moved(n.try_into().unwrap_or(u64::MAX));
        } else if self.body.get() == Body::Due && self.sending.wait(cx).is_ready() {
            self.is_slow.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        polled
    }

    /// What a write came to; one that waits on for a caller that is too slow fails.
    fn paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.taking.resume();
            return polled;
        }
        // meanwhile nobody reads
        self.sending.resume();
        let transport = self.inner.get_ref();
        let confirmed = || transport.confirmed().unwrap_or(self.written);
        let mut before = *self.confirmed.get_or_insert_with(confirmed);
        while self.taking.wait(cx).is_ready() {
            let now = confirmed();
            if now == before {
                transport.cut();
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            self.taking.resume();
            self.taking.moved(now.saturating_sub(before));
            before = now;
            self.confirmed = Some(now);
        }
        Poll::Pending
    }

    /// Sends what is collected, at the caller's pace.
    fn poll_flush_paced(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.paced(cx, polled)
    }

    /// What a write of bytes came to. A caller that is told to go on has to send its body.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.body.get() == Body::Announced {
            self.body.set(Body::Due);
        }
        if let Poll::Ready(Ok(n)) = polled {
            self.written += u64::try_from(n).unwrap_or(0);
        }
        self.paced(cx, polled)
    }

    /// Whether what is waited for, a head or the first byte of a new connection, is out of time.
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
            // until it is through, this task is woken for it
            ready_err(this.poll_flush_paced(cx))?;
        }
        match this.phase.get() {
            Phase::Request | Phase::Frames => return this.poll_read_on(cx, buf),
            Phase::Refused => return Poll::Ready(Ok(())),
            Phase::Opened | Phase::Idle | Phase::Head => {}
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
                let phase = this.phase.get();
                if phase == Phase::Idle || !this.is_late(cx) {
                    return Poll::Pending;
                }
                if phase == Phase::Head {
                    this.refuse(cx, &Refusal::SlowHeader);
                } else {
                    // who has asked nothing is answered nothing
                    this.phase.set(Phase::Refused);
                }
                Poll::Ready(Ok(()))
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
            Phase::Request | Phase::Frames | Phase::Idle | Phase::Opened => {
                let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
                self.written(cx, polled)
            }
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
        self.poll_flush_paced(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.paced(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !matches!(self.phase.get(), Phase::Head | Phase::Refused) {
            let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
            return self.written(cx, polled);
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
        let farewell = async {
            let _ = self.inner.flush().await;
            Shutdown::shutdown(self.inner.get_mut()).await;
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        if self.phase.get() == Phase::Refused || self.is_slow() {
            // closing with bytes unread resets the connection, and the answer with it
            let _ = tokio::time::timeout(LINGER, discard(self.inner.get_mut())).await;
        }
    }
}

/// Reads to the end, a mebibyte at most.
async fn discard(stream: &mut Transport) {
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
        self.inner.get_ref().socket().as_raw_fd()
    }
}

impl Ssl for Connection {}

#[async_trait]
impl Peek for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest::default())]
    }
}

impl GetProxyDigest for Connection {
    /// Who the caller is ([`super::peer::Peer`]): no proxy is known, and this is carried along.
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone()
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        let socket = self.inner.get_ref().socket();
        Some(Arc::new(SocketDigest::from_raw_fd(socket.as_raw_fd())))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("phase", &self.phase.get())
            .finish_non_exhaustive()
    }
}

/// The error of what is ready; nothing if it is not, or went well.
fn ready_err<T>(polled: Poll<io::Result<T>>) -> io::Result<()> {
    match polled {
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
    }
}
