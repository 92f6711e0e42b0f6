//! Thousands of random mutations of the tables' requests, from many concurrent callers.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::case::{Rig, expand};
use super::cases;
use super::mutate::mutate;
use crate::support::PATIENCE;
use crate::support::recorder::{HEADER, mark, marks};
use crate::support::wait::now;

const SEEDS: [u64; 3] = [0x05ee_d001, 0x05ee_d002, 0x05ee_d003];

/// The number of requests for all seeds.
pub(crate) const REQUESTS: usize = 20_001;

/// The number of concurrent connections: few enough for the tests that run beside this one.
const CALLERS: usize = 24;

/// A caller without a response by then closes its own side.
const GIVES_UP: Duration = Duration::from_millis(200);

/// The number whose mark is the placeholder of the caller's in mutated requests.
const STANDS: usize = 1 << 40;

/// Added to a caller's number for its probe's mark.
const PROBE: usize = 1 << 41;

/// The responses to one caller.
#[derive(Default)]
struct Heard {
    /// Responses of the origin to mutated requests.
    answered: usize,
    /// Responses of the proxy itself.
    refused: usize,
    /// Whether a response may be missing: the caller left early, or was cut because of bytes after
    /// a request.
    gave_up: bool,
    /// A violated invariant.
    fault: Option<String>,
}

#[test]
fn no_mutation_turns_the_proxy() {
    let mut rig = Rig::with("header_timeout = \"2s\"");
    let corpus = corpus(rig.proxy.address, rig.recorder.address);
    let make = |nth: usize| request(nth, &corpus);
    // marks that no caller has are flipped ones of the caller's own
    let given: HashSet<String> = (0..REQUESTS)
        .flat_map(|nth| [mark(nth), mark(nth + PROBE)])
        .collect();
    let next = AtomicUsize::new(0);
    let all: Mutex<HashMap<usize, Heard>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= REQUESTS {
                        return;
                    }
                    let heard = call(rig.proxy.address, nth, &make(nth), &given);
                    all.lock().unwrap().insert(nth, heard);
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    let sum = |figure: fn(&Heard) -> usize| all.values().map(figure).sum::<usize>();
    let (answered, refused) = (sum(|heard| heard.answered), sum(|heard| heard.refused));
    let gave_up = sum(|heard| usize::from(heard.gave_up));
    println!("{answered} answered, {refused} refused, {gave_up} without an answer");

    let mut faults: Vec<String> = all
        .values()
        .filter_map(|heard| heard.fault.clone())
        .collect();
    for (nth, heard) in &all {
        let understood = rig.recorder.with_mark(&mark(*nth)).len();
        if understood > heard.answered + usize::from(heard.gave_up) {
            let sent = String::from_utf8_lossy(&make(*nth)).into_owned();
            let answered = heard.answered;
            faults.push(format!(
                "{understood} understood, {answered} answered of {sent:?}"
            ));
        }
    }
    let few: Vec<&str> = faults.iter().take(5).map(String::as_str).collect();
    assert!(
        few.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        few.join("\n")
    );
    // requests whose mark did not survive count too
    let understood = rig.recorder.requests();
    let understood = understood
        .iter()
        .filter(|it| !it.target.starts_with("/probe"))
        .count();
    assert!(understood <= answered + gave_up);
    rig.recorder.assert_no_faults();

    // the proxy still works
    assert!(rig.proxy.process.runs());
    let open = "collibra_auth_proxy_connections{listener=\"local\"}";
    rig.proxy.metric_becomes(open, 0.0);
    let peak = rig.proxy.process.memory_kib("VmHWM");
    assert!(peak < 256 * 1024, "{peak} KiB");
    assert_eq!(rig.proxy.get("/probe").status, 200);
    let logged = rig.proxy.process.err.all();
    assert!(!logged.contains("panicked"), "{logged}");
    // and it was really exercised
    assert!(understood > REQUESTS / 10, "{understood} were requests");
}

/// The nth request, with the nth mark.
pub(crate) fn request(nth: usize, corpus: &[Vec<u8>]) -> Vec<u8> {
    let each = REQUESTS / SEEDS.len();
    let seed = SEEDS[nth / each].rotate_left(32) ^ (nth % each) as u64;
    let mutated = mutate(seed, corpus, &mark(STANDS));
    with_mark(&mutated, &mark(nth))
}

/// The corpus to mutate: the small cases, with forwarded ones more often.
pub(crate) fn corpus(host: SocketAddr, origin: SocketAddr) -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    for (_, sent, answer, _) in cases() {
        let sent = expand(sent, &mark(STANDS), host, origin);
        let times = if answer.starts_with("200") { 8 } else { 1 };
        if sent.len() < 4096 {
            corpus.extend(std::iter::repeat_n(sent, times));
        }
    }
    corpus
}

/// Sends `bytes`, then a probe on the same connection, and reads to the end.
fn call(proxy: SocketAddr, nth: usize, bytes: &[u8], given: &HashSet<String>) -> Heard {
    let (own, probe) = (mark(nth), mark(nth + PROBE));
    let mut line = Line::to(proxy, bytes);
    let answered = |line: &Line| line.answers().iter().any(|answer| answer.status >= 200);
    let probed = |line: &Line| line.answers().iter().any(|it| it.marks == [probe.clone()]);
    let mut end = line.hear(GIVES_UP, answered);
    if end == End::Met {
        line.send(
            format!("GET /probe HTTP/1.1\r\nHost: {proxy}\r\nX-Mark: {probe}\r\n\r\n").as_bytes(),
        );
        end = line.hear(GIVES_UP, probed);
    }
    let mut heard = Heard::default();
    if end == End::Silent {
        heard.gave_up = true;
        let _ = line.stream.shutdown(Shutdown::Write);
        if line.hear(PATIENCE, |_| false) != End::Closed {
            heard.fault = Some(format!("neither answered nor closed: {:?}", line.sent));
        }
    }
    let answers = line.answers();
    heard.gave_up |= end == End::Reset || answers.iter().all(|answer| answer.status < 200);
    for answer in answers {
        match answer.by_origin {
            true if answer.marks == [probe.clone()] => {}
            true => heard.answered += 1,
            false => heard.refused += usize::from(answer.status >= 200),
        }
        let foreign = answer
            .marks
            .iter()
            .find(|mark| ![&own, &probe].contains(mark) && given.contains(*mark));
        if let Some(foreign) = foreign {
            heard.fault = Some(format!("{own} got {foreign}'s answer to {:?}", line.sent));
        }
    }
    heard
}

/// A connection, and everything received on it.
struct Line {
    stream: TcpStream,
    sent: String,
    received: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Met,
    Silent,
    Closed,
    /// Closed with unread data, which may lose a response in transit.
    Reset,
}

struct Answer {
    status: u16,
    by_origin: bool,
    marks: Vec<String>,
}

impl Line {
    fn to(proxy: SocketAddr, bytes: &[u8]) -> Line {
        let stream = TcpStream::connect_timeout(&proxy, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut line = Line {
            stream,
            sent: String::from_utf8_lossy(bytes).into_owned(),
            received: Vec::new(),
        };
        line.send(bytes);
        line
    }

    fn send(&mut self, bytes: &[u8]) {
        // a closed connection is noticed when reading
        let _ = self.stream.write_all(bytes);
    }

    /// Reads until `met`, or until nothing arrives for `limit`.
    fn hear(&mut self, limit: Duration, met: impl Fn(&Line) -> bool) -> End {
        let start = now();
        let mut bytes = [0; 16 * 1024];
        loop {
            if met(self) {
                return End::Met;
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return End::Silent;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut bytes) {
                Ok(0) => return End::Closed,
                Ok(n) => self.received.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return End::Silent,
                Err(_) => return End::Reset,
            }
        }
    }

    /// The complete responses so far. A response to HEAD has a length and no body: what follows is
    /// nothing, or another response.
    fn answers(&self) -> Vec<Answer> {
        let text: String = self.received.iter().copied().map(char::from).collect();
        let mut rest = text.as_str();
        let mut answers = Vec::new();
        while let Some((head, after)) = rest.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let field = |name: &str| {
                let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
                lines.find(|(n, _)| *n == name).map(|(_, value)| value)
            };
            let status = head.get(9..12).and_then(|status| status.parse().ok());
            let status = status.unwrap_or_else(|| panic!("{head:?} to {:?}", self.sent));
            let length = field("content-length").map_or(0, |length| length.parse().unwrap());
            let no_body = status < 200 || after.starts_with("HTTP/1.");
            let to_head = after.is_empty() && self.sent.contains("HEAD");
            let body = if no_body || to_head {
                ""
            } else if let Some(body) = after.get(..length) {
                body
            } else {
                return answers;
            };
            rest = &after[body.len()..];
            answers.push(Answer {
                status,
                by_origin: field(HEADER).is_some(),
                marks: marks(body),
            });
        }
        answers
    }
}

/// Replaces the placeholder mark in `bytes` by the caller's.
fn with_mark(bytes: &[u8], own: &str) -> Vec<u8> {
    let stands = mark(STANDS);
    let mut marked = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(stands.as_bytes()) {
            marked.extend_from_slice(own.as_bytes());
            at += stands.len();
        } else {
            marked.push(bytes[at]);
            at += 1;
        }
    }
    marked
}
