//! Callers on keep-alive connections, in one thread that costs as little as possible. It shares the
//! processor that is not measured with the origin.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use kit::caller::{content_length, head_end};
use kit::wait::now;

/// The size of a read.
const BUFFER: usize = 256 * 1024;

/// The timeout of a response.
const PATIENCE: Duration = Duration::from_secs(10);

/// The timer's id in epoll; connections are numbered from 0.
const TIMER: u64 = u64::MAX;

/// Connections to a proxy.
pub(crate) struct Load {
    epoll: OwnedFd,
    callers: Vec<Caller>,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

/// One connection, and the state of its response.
struct Caller {
    stream: TcpStream,
    /// The response's head until it is complete.
    head: Vec<u8>,
    /// The missing bytes of its body; `None` until the head is complete.
    left: Option<usize>,
}

/// The result of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// Complete responses, each with status 200.
    pub(crate) count: u64,
    /// The duration.
    pub(crate) span: Duration,
}

impl Load {
    /// Opens `connections` to `address` that send `request`.
    pub(crate) fn open(
        address: SocketAddr,
        connections: usize,
        request: Vec<u8>,
    ) -> io::Result<Load> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut callers = Vec::with_capacity(connections);
        for nth in 0..connections {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(nth as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            callers.push(Caller {
                stream,
                head: Vec::new(),
                left: None,
            });
        }
        Ok(Load {
            epoll,
            callers,
            request,
            buffer: vec![0; BUFFER],
        })
    }

    /// Runs a closed loop for `span`: each connection sends a request as soon as the last is
    /// answered. Waits for the requests in flight at the end.
    ///
    /// # Errors
    /// A connection that ends, a response that is not 200, or none for ten seconds.
    pub(crate) fn closed_loop(&mut self, span: Duration) -> io::Result<Answered> {
        let begin = now();
        for caller in &mut self.callers {
            caller.stream.write_all(&self.request)?;
        }
        let mut under_way = self.callers.len();
        let mut count = 0;
        let mut events = Vec::with_capacity(1024);
        while under_way > 0 {
            self.wait(&mut events)?;
            let goes_on = now() - begin < span;
            for event in events.drain(..) {
                let caller = &mut self.callers[event.data.u64() as usize];
                if caller.read(&mut self.buffer)? {
                    count += 1;
                    match goes_on {
                        true => caller.stream.write_all(&self.request)?,
                        false => under_way -= 1,
                    }
                }
            }
        }
        let span = now() - begin;
        Ok(Answered { count, span })
    }

    /// Sends `rate` requests a second for `span`, evenly, each on a free connection. Returns the
    /// latencies in ascending order, counted from when each request was due. A proxy that delays
    /// its callers then cannot hide behind them.
    ///
    /// # Errors
    /// As for [`Load::closed_loop`].
    pub(crate) fn paced(&mut self, rate: u32, span: Duration) -> io::Result<Vec<Duration>> {
        let every = Duration::from_secs(1) / rate;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        epoll::add(
            &self.epoll,
            &timer,
            epoll::EventData::new_u64(TIMER),
            epoll::EventFlags::IN,
        )?;
        let interval = Timespec::try_from(every).map_err(io::Error::other)?;
        let interval = Itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &interval)?;

        let begin = now();
        let total = (span.as_secs_f64() * f64::from(rate)) as u32;
        let mut free: VecDeque<usize> = (0..self.callers.len()).collect();
        let mut due_at: Vec<Instant> = vec![begin; self.callers.len()];
        let mut sent = 0;
        let mut took = Vec::with_capacity(total as usize);
        let mut events = Vec::with_capacity(1024);
        while took.len() < total as usize {
            while sent < total {
                let due = begin + every * sent;
                if due > now() {
                    break;
                }
                let Some(caller) = free.pop_front() else {
                    break;
                };
                due_at[caller] = due;
                self.callers[caller].stream.write_all(&self.request)?;
                sent += 1;
            }
            self.wait(&mut events)?;
            for event in events.drain(..) {
                if event.data.u64() == TIMER {
                    let mut expirations = [0; 8];
                    // the timer may have been read already
                    let _ = rustix::io::read(&timer, &mut expirations);
                    continue;
                }
                let caller = event.data.u64() as usize;
                if self.callers[caller].read(&mut self.buffer)? {
                    took.push(now() - due_at[caller]);
                    free.push_back(caller);
                }
            }
        }
        epoll::delete(&self.epoll, &timer)?;
        took.sort();
        Ok(took)
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let patience = Timespec::try_from(PATIENCE).unwrap();
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&patience)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Caller {
    /// Reads what is available; returns whether the response is complete.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let read = match self.stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let (left, came) = match self.left {
            Some(left) => (left, read),
            None => {
                self.head.extend_from_slice(&buffer[..read]);
                let Some(end) = head_end(&self.head) else {
                    return Ok(false);
                };
                if !self.head.starts_with(b"HTTP/1.1 200") {
                    let head = String::from_utf8_lossy(&self.head[..end]).into_owned();
                    return Err(io::Error::other(format!(
                        "the response is not 200 OK: {head}"
                    )));
                }
                let came = self.head.len() - end;
                let length = content_length(&self.head[..end])?;
                self.head.clear();
                (length, came)
            }
        };
        match left.checked_sub(came) {
            Some(0) => {
                self.left = None;
                Ok(true)
            }
            Some(left) => {
                self.left = Some(left);
                Ok(false)
            }
            None => Err(io::Error::other("the response is longer than announced")),
        }
    }
}
