//! The syntax of the tables' lines, and how they are executed.
//!
//! A case is `(name, sent, answer, seen)`:
//! - *sent*: the request; a line feed stands for CRLF. `{host}` is the proxy's address, `{port}`
//!   its port, `{origin}` the instance's address, `{m}` the case's mark, `{lf}` a bare LF, `{cr}` a
//!   bare CR, `{e9}` the byte 0xE9, `{x*100}` a hundred times x. `{end}` at the end: the caller
//!   closes its side.
//! - *answer*: `200 kept`, `400 bad-request closed`: the status, the proxy's reason if the response
//!   is its own, and whether the connection stays open. `none closed`: no response. `none waiting`:
//!   the body is incomplete and the proxy waits.
//! - *seen*: the requests that Collibra parsed, `METHOD target body`, joined by ` & `; exactly
//!   these.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::recorder::{self, HEADER, Recorder};
use crate::support::{Connection, Proxy};

/// `(name, sent, answer, seen)`.
pub(crate) type Case = (&'static str, &'static str, &'static str, &'static str);

/// How long nothing must arrive while the proxy waits for more.
const SILENCE: Duration = Duration::from_millis(300);

/// A proxy in front of a recording origin.
pub(super) struct Rig {
    pub(super) recorder: Recorder,
    pub(super) proxy: Proxy,
}

impl Rig {
    pub(super) fn start() -> Rig {
        Rig::with("")
    }

    /// With additional keys in the listener's table.
    pub(super) fn with(listener: &str) -> Rig {
        let recorder = Recorder::start();
        let proxy = Proxy::configured(&recorder.url(), "", listener).start();
        proxy.has_token();
        Rig { recorder, proxy }
    }

    /// Runs a case; returns how the result differs from it, if it does.
    pub(super) fn differs(&self, nth: usize, case: &Case) -> Option<String> {
        let (name, sent, answer, seen) = *case;
        let mark = recorder::mark(nth);
        let expand = |text| expand(text, &mark, self.proxy.address, self.recorder.address);
        let before = self.recorder.count();
        let waits = answer == "none waiting";
        let got = self.answer(waits, sent.ends_with("{end}"), &expand(sent), &mark);
        let arrived = self.recorder.requests().split_off(before);
        let arrived: Vec<String> = arrived
            .iter()
            .filter(|request| !request.target.starts_with("/probe"))
            .map(|it| {
                let body: String = it.body.iter().copied().map(char::from).collect();
                format!("{} {} {body}", it.method, it.target)
                    .trim_end()
                    .to_owned()
            })
            .collect();
        let arrived = arrived.join(" & ");
        let expected: String = expand(seen).into_iter().map(char::from).collect();
        (got != answer || arrived != expected)
            .then(|| format!("{name}: ({answer:?}, {expected:?}) is ({got:?}, {arrived:?})"))
    }

    fn answer(&self, waits: bool, ends: bool, bytes: &[u8], mark: &str) -> String {
        let mut connection = self.proxy.connect();
        // a response may come, and the connection end, before everything is sent
        let _ = connection.try_send(bytes);
        if ends {
            connection.ends();
        } else if waits && connection.is_silent_for(SILENCE) {
            return "none waiting".to_owned();
        }
        let method = if bytes.starts_with(b"HEAD ") {
            "HEAD "
        } else {
            ""
        };
        let Some(answer) = connection.answer_or_end(method) else {
            return "none closed".to_owned();
        };
        let mut told = answer.status.to_string();
        match (
            answer.header("x-collibra-auth-proxy"),
            answer.header(HEADER),
        ) {
            (Some(reason), None) => {
                told += &format!(" {reason}");
                if method.is_empty() {
                    answer.assert_refused(answer.status, reason);
                }
            }
            (None, Some(_)) => {
                let own = recorder::marks(&answer.text());
                assert!(own.iter().all(|m| m == mark), "{mark} got {own:?}");
            }
            other => told += &format!(" of nobody: {other:?}"),
        }
        told + if answers_a_probe(&mut connection, self.proxy.address, mark) {
            " kept"
        } else {
            " closed"
        }
    }
}

/// Sends one more request; returns whether it is answered. The response must be its own.
pub(super) fn answers_a_probe(connection: &mut Connection, host: SocketAddr, mark: &str) -> bool {
    let probe = format!("GET /probe HTTP/1.1\r\nHost: {host}\r\nX-Mark: {mark}\r\n\r\n");
    if connection.try_send(probe).is_err() {
        return false;
    }
    let Some(answer) = connection.answer_or_end("GET") else {
        return false;
    };
    if let Some(reason) = answer.header("x-collibra-auth-proxy") {
        // bytes beyond the request were parsed as the next one, and are answered before the
        // probe
        answer.assert_refused(answer.status, reason);
        return false;
    }
    assert_eq!(answer.status, 200, "to the probe: {answer:?}");
    // surplus bytes that form a method's name turn the probe into another request
    let own = recorder::marks(&answer.text());
    assert!(own.iter().all(|m| m == mark), "to the probe: {own:?}");
    !own.is_empty()
}

/// Replaces the placeholders in `text`.
pub(crate) fn expand(text: &str, mark: &str, host: SocketAddr, origin: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        bytes.extend(before.replace('\n', "\r\n").bytes());
        let (name, next) = after.split_once('}').unwrap();
        rest = next;
        match name {
            "host" => bytes.extend(host.to_string().bytes()),
            "port" => bytes.extend(host.port().to_string().bytes()),
            "origin" => bytes.extend(origin.to_string().bytes()),
            "m" => bytes.extend(mark.bytes()),
            "lf" => bytes.push(b'\n'),
            "cr" => bytes.push(b'\r'),
            "end" => {}
            _ => match name.split_once('*') {
                Some((piece, times)) => {
                    let piece = piece.replace('\n', "\r\n");
                    bytes.extend(piece.repeat(times.parse().unwrap()).bytes());
                }
                None => bytes.push(u8::from_str_radix(name, 16).unwrap()),
            },
        }
    }
    bytes.extend(rest.replace('\n', "\r\n").bytes());
    bytes
}
