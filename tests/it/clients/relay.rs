//! A relay between a rotation and its servers. It passes everything on, and holds one chosen
//! request for ever, before or after it takes effect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use kit::listener::Listener;

use crate::support::PATIENCE;
use crate::support::request::{Request, read};

/// A running relay.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _listener: Listener,
}

/// A request, and whether it is held before or after it takes effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// Its type: `list`, `register`, `delete`, `token`, `probe`, `status`.
    pub(super) what: &'static str,
    /// Its number among those of its type, from 1.
    pub(super) nth: usize,
    pub(super) carried_out: bool,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    held: Condvar,
}

#[derive(Default)]
struct State {
    seen: Vec<&'static str>,
    hold: Option<Point>,
    is_held: bool,
}

impl Relay {
    /// Starts one in front of `target`.
    pub(super) fn to(target: SocketAddr) -> Relay {
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
            held: Condvar::new(),
        });
        let served = Arc::clone(&shared);
        // the sender may be killed meanwhile
        let listener = Listener::start(move |stream| served.connection(stream));
        Relay {
            address: listener.address,
            shared,
            _listener: listener,
        }
    }

    /// Holds the request `point` from now on.
    pub(super) fn hold(&self, point: Point) {
        let mut state = self.shared.state.lock().unwrap();
        *state = State {
            hold: Some(point),
            ..State::default()
        };
    }

    /// Waits until a request is held.
    pub(super) fn is_held(&self, what: &str) {
        let state = self.shared.state.lock().unwrap();
        let held = &self.shared.held;
        let (state, _) = held
            .wait_timeout_while(state, PATIENCE, |state| !state.is_held)
            .unwrap();
        assert!(state.is_held, "{what} was not asked for: {:?}", state.seen);
    }

    /// Passes everything again.
    pub(super) fn pass(&self) {
        *self.shared.state.lock().unwrap() = State::default();
    }
}

impl Shared {
    fn connection(&self, mut caller: TcpStream) -> std::io::Result<()> {
        caller.set_nodelay(true)?;
        let mut unread = Vec::new();
        let Some(request) = read(&mut caller, &mut unread)? else {
            return Ok(());
        };
        let hold = self.take_note(kind(&request));
        if hold.is_some_and(|point| !point.carried_out) {
            return self.keep(caller);
        }
        let answer = self.carry_out(&request)?;
        if hold.is_some() {
            return self.keep(caller);
        }
        caller.write_all(&answer)
    }

    /// Returns the point if this request is the one to hold.
    fn take_note(&self, what: &'static str) -> Option<Point> {
        let mut state = self.state.lock().unwrap();
        state.seen.push(what);
        let nth = state.seen.iter().filter(|seen| **seen == what).count();
        let hold = state.hold;
        hold.filter(|point| point.what == what && point.nth == nth)
    }

    /// Reports that the request is held, and waits until its sender is gone.
    fn keep(&self, mut caller: TcpStream) -> std::io::Result<()> {
        self.state.lock().unwrap().is_held = true;
        self.held.notify_all();
        caller.read_to_end(&mut Vec::new()).map(|_| ())
    }

    /// Forwards one request on a new connection; returns the response.
    fn carry_out(&self, request: &Request) -> std::io::Result<Vec<u8>> {
        let mut lines = request.head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let kept = lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let kept: Vec<&str> = kept.collect();
        let head = format!(
            "{first}\r\n{}\r\nConnection: close\r\n\r\n",
            kept.join("\r\n")
        );
        let mut target = TcpStream::connect(self.target)?;
        target.write_all(head.as_bytes())?;
        target.write_all(&request.body)?;
        let mut answer = Vec::new();
        target.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn kind(request: &Request) -> &'static str {
    match (request.method(), request.target()) {
        ("GET", "/api/status") => "status",
        ("GET", "/rest/auth/v1/clients") => "list",
        ("POST", "/rest/auth/v1/clients") => "register",
        ("DELETE", target) if target.starts_with("/rest/auth/v1/clients/") => "delete",
        ("POST", "/rest/oauth/v2/token") => "token",
        ("GET", "/rest/2.0/users/current") => "probe",
        other => panic!("a rotation does not ask for {other:?}"),
    }
}
