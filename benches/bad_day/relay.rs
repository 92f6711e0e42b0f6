//! The two addresses of the instance: relays to the simulated Collibra, each of which can go down
//! or swallow connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use kit::caller;

/// How many connections wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long a connection attempt may take before the backlog counts as full.
const FULL: Duration = Duration::from_millis(500);

/// What an address does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It leads to the server.
    Open,
    /// It refuses connections, and has cut those that there were.
    Down,
    /// It swallows every attempt to connect, and has closed the connections that there were, each
    /// between two calls.
    Blackhole,
}

/// One address.
pub(crate) struct Relay {
    /// Where it is.
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    mode: watch::Sender<Mode>,
    /// Raised when every connection is to be closed after its call.
    closing: watch::Sender<u64>,
    answers: AtomicU64,
}

impl Relay {
    /// One at `ip` and `port`, 0 for any, that leads to `server`.
    pub(crate) async fn start(ip: IpAddr, port: u16, server: SocketAddr) -> Relay {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Open),
            closing: watch::Sender::new(0),
            answers: AtomicU64::new(0),
        });
        tokio::spawn(serve(listener, address, server, Arc::clone(&state)));
        Relay { address, state }
    }

    /// Has it do something else from now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
        self.close_connections();
    }

    /// Closes its connections, each between two calls.
    pub(crate) fn close_connections(&self) {
        self.state.closing.send_modify(|n| *n += 1);
    }

    /// How many answers it has carried.
    pub(crate) fn answers(&self) -> u64 {
        self.state.answers.load(Ordering::Relaxed)
    }
}

async fn serve(
    mut listener: TcpListener,
    address: SocketAddr,
    server: SocketAddr,
    state: Arc<State>,
) {
    let mut mode = state.mode.subscribe();
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Open => {
                tokio::select! {
                    accepted = listener.accept() => {
                        if let Ok((caller, _)) = accepted {
                            tokio::spawn(carry(caller, server, Arc::clone(&state)));
                        }
                    }
                    _ = mode.changed() => {}
                }
            }
            Mode::Down => {
                drop(listener);
                let _ = mode.wait_for(|mode| *mode != Mode::Down).await;
                listener = loop {
                    match TcpListener::bind(address).await {
                        Ok(listener) => break listener,
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                };
            }
            Mode::Blackhole => {
                // with a full backlog, the kernel drops every further SYN
                rustix::net::listen(&listener, 0).unwrap();
                let mut filling = Vec::new();
                while let Ok(Ok(stream)) =
                    tokio::time::timeout(FULL, TcpStream::connect(address)).await
                {
                    filling.push(stream);
                }
                let _ = mode.wait_for(|mode| *mode != Mode::Blackhole).await;
                rustix::net::listen(&listener, BACKLOG).unwrap();
            }
        }
    }
}

/// Carries calls and answers between two connections, to the end of either.
async fn carry(mut caller: TcpStream, server: SocketAddr, state: Arc<State>) -> io::Result<()> {
    let mut mode = state.mode.subscribe();
    let mut closing = state.closing.subscribe();
    let mut server = TcpStream::connect(server).await?;
    for stream in [&caller, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut asked, mut answer) = (vec![0; 16 * 1024], Vec::with_capacity(16 * 1024));
    let mut is_idle = true;
    loop {
        if *mode.borrow_and_update() == Mode::Down
            || (is_idle && closing.has_changed().unwrap_or(true))
        {
            return Ok(());
        }
        tokio::select! {
            read = caller.read(&mut asked) => match read? {
                0 => return Ok(()),
                n => {
                    is_idle = false;
                    server.write_all(&asked[..n]).await?;
                }
            },
            read = server.read_buf(&mut answer) => match read? {
                0 => return Ok(()),
                n => {
                    caller.write_all(&answer[answer.len() - n..]).await?;
                    if is_whole(&answer) {
                        answer.clear();
                        is_idle = true;
                        state.answers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            },
            _ = mode.changed() => {}
            _ = closing.changed(), if is_idle => return Ok(()),
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    caller::head_end(answer).is_some_and(|end| {
        caller::content_length(&answer[..end]).is_ok_and(|length| answer.len() >= end + length)
    })
}
