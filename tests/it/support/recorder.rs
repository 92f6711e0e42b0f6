//! A Collibra that records the bytes of every request, parses it with the strict reader only, and
//! checks what must hold for every forwarded request.
//!
//! Each caller puts a *mark* into its request ([`mark`]). The response repeats every mark of the
//! request, so that a caller can check that it got its own response.

use std::collections::HashMap;
use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use kit::listener::Listener;

use super::lenient;
use super::strict::{self, Read, Strict};

const TOKEN_PATH: &str = "/rest/oauth/v2/token";

/// The paths that are never forwarded, in any reading: client management and the token endpoint.
pub(crate) const DENIED: [&str; 2] = ["/rest/auth/v1", TOKEN_PATH];

/// The header that marks its responses.
pub(crate) const HEADER: &str = "x-recorder";

/// A running origin.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _listener: Listener,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    requests: Vec<Strict>,
    of_mark: HashMap<String, Vec<usize>>,
    tokens: Vec<String>,
    faults: Vec<String>,
}

/// The mark of the nth caller, for its target or a header.
pub(crate) fn mark(nth: usize) -> String {
    // far from every other mark, so that a flipped bit does not make another one
    let spread = (nth as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("~{spread:016x}~")
}

/// All marks in `text`, in order.
pub(crate) fn marks(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('~') {
        let is_mark = |piece: &&str| {
            piece.ends_with('~') && piece[1..17].chars().all(|c| c.is_ascii_hexdigit())
        };
        found.extend(text.get(at..at + 18).filter(is_mark).map(str::to_owned));
    }
    found
}

impl Recorder {
    /// Starts one.
    pub(crate) fn start() -> Recorder {
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let listener = Listener::start(move |stream| {
            let address = stream.local_addr()?;
            served.connection(stream, address)
        });
        Recorder {
            address: listener.address,
            shared,
            _listener: listener,
        }
    }

    /// Its address as an instance's URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of API calls it has parsed.
    pub(crate) fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().requests.len()
    }

    /// All API calls so far.
    pub(crate) fn requests(&self) -> Vec<Strict> {
        self.shared.seen.lock().unwrap().requests.clone()
    }

    /// The API calls that contain this mark.
    pub(crate) fn with_mark(&self, mark: &str) -> Vec<Strict> {
        let record = self.shared.seen.lock().unwrap();
        let of_mark = record.of_mark.get(mark).cloned().unwrap_or_default();
        of_mark
            .into_iter()
            .map(|at| record.requests[at].clone())
            .collect()
    }

    /// The faults so far, without the requests' bytes.
    pub(crate) fn faults(&self) -> std::collections::BTreeSet<String> {
        let faults = self.shared.seen.lock().unwrap().faults.clone();
        let why = |fault: &String| fault.lines().next().unwrap_or_default().to_owned();
        faults.iter().map(why).collect()
    }

    /// Asserts that nothing forbidden arrived.
    pub(crate) fn assert_no_faults(&self) {
        let faults = self.shared.seen.lock().unwrap().faults.clone();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

impl Shared {
    fn connection(&self, mut stream: TcpStream, own: SocketAddr) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut raw = Vec::new();
        let mut bytes = [0; 16 * 1024];
        let mut continued = false;
        loop {
            match strict::read(&raw) {
                Err(why) => {
                    self.fault(&why, &raw);
                    return Ok(());
                }
                Ok(Read::Whole(request, taken)) => {
                    let answer = self.answer(request, &raw[..taken], own);
                    raw.drain(..taken);
                    continued = false;
                    stream.write_all(&answer)?;
                }
                Ok(Read::Part(head_is_whole)) => {
                    let waits = |raw: &[u8]| {
                        String::from_utf8_lossy(raw)
                            .to_ascii_lowercase()
                            .contains("\r\nexpect:")
                    };
                    if head_is_whole && !continued && waits(&raw) {
                        continued = true;
                        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                    }
                    let n = stream.read(&mut bytes)?;
                    if n == 0 {
                        return Ok(());
                    }
                    raw.extend_from_slice(&bytes[..n]);
                }
            }
        }
    }

    fn fault(&self, why: &str, raw: &[u8]) {
        let fault = format!("{why} in\n  {:?}", String::from_utf8_lossy(raw));
        self.seen.lock().unwrap().faults.push(fault);
    }

    fn answer(&self, request: Strict, raw: &[u8], own: SocketAddr) -> Vec<u8> {
        if request.target == TOKEN_PATH && request.method == "POST" && is_token_request(&request) {
            let mut record = self.seen.lock().unwrap();
            let token = format!("recorded-{}", record.tokens.len() + 1);
            record.tokens.push(token.clone());
            let body =
                format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":299}}"#);
            return ok("application/json", &body, false);
        }
        for why in self.held_against(&request, own) {
            self.fault(&why, raw);
        }
        let text: String = raw.iter().copied().map(char::from).collect();
        let marks = marks(&text);
        let mut record = self.seen.lock().unwrap();
        let nth = record.requests.len();
        for mark in &marks {
            let of_mark = record.of_mark.entry(mark.clone()).or_default();
            if of_mark.last() != Some(&nth) {
                of_mark.push(nth);
            }
        }
        let is_head = request.method == "HEAD";
        record.requests.push(request);
        ok("text/plain", &marks.join("\n"), is_head)
    }

    /// The rules that a forwarded request violates.
    fn held_against(&self, request: &Strict, own: SocketAddr) -> Vec<String> {
        let mut faults = Vec::new();
        let shown = request.values("authorization");
        let tokens = self.seen.lock().unwrap().tokens.clone();
        let is_ours = |shown: &String| tokens.iter().any(|t| *shown == format!("Bearer {t}"));
        if shown.len() != 1 || !shown.iter().all(is_ours) {
            faults.push(format!("authorization {shown:?}"));
        }
        let hosts = request.values("host");
        if hosts != [own.to_string()] {
            faults.push(format!("host {hosts:?}"));
        }
        for (name, _) in &request.fields {
            let left_behind = [
                "cookie",
                "x-csrf-token",
                "proxy-authorization",
                "proxy-connection",
                "keep-alive",
                "forwarded",
                "te",
                "trailer",
                "x-original-url",
                "x-rewrite-url",
                "x-remote-user",
            ];
            if left_behind.contains(&name.as_str())
                || name.starts_with("x-forwarded-")
                || name.contains('_')
            {
                faults.push(format!("the field {name:?}"));
            }
        }
        for denied in DENIED {
            for reading in lenient::at_or_below(&request.target, denied) {
                faults.push(format!("the path {reading:?}"));
            }
        }
        if ["TRACE", "TRACK", "CONNECT"].contains(&request.method.as_str()) {
            faults.push(format!("the method {}", request.method));
        }
        faults
    }
}

/// Returns whether it is the proxy's own token request, which no caller can make: it has the
/// client's credentials.
fn is_token_request(request: &Strict) -> bool {
    request.body == b"grant_type=client_credentials"
        && request
            .values("authorization")
            .iter()
            .all(|shown| shown.starts_with("Basic "))
}

fn ok(content_type: &str, body: &str, is_head: bool) -> Vec<u8> {
    let length = body.len();
    let body = if is_head { "" } else { body };
    format!(
        "HTTP/1.1 200 OK\r\n{HEADER}: seen\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
