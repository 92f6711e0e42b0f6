//! The corpora, each with its instance.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::cases::{Call, Sent};
use super::outcome::{Message, Outcome};
use super::responses::{self, RESPONSES};
use super::sides::{Build, Instance, OverHttp2, Side, both};
use super::{Report, Trial};
use crate::hostile::{self, case::expand, mutations};
use crate::support::Origin;
use crate::support::origin::After;
use crate::support::raw_origin::{Line, RawOrigin};
use crate::support::recorder::{Recorder, mark};

/// Trials in parallel.
const AT_ONCE: usize = 16;

/// The proxy's and the instance's address in requests: the same for both builds, so that both get
/// the same bytes. The proxy accepts any port of an accepted host.
const HOST: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 18080);
const INSTANCE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 19400);

pub(super) fn all(other: &Path, report: &Report) {
    tables(other, report);
    mutated(other, report);
    over_http2(other, report);
    to_http2(other, report);
    answered(other, report);
    early(other, report);
    websockets(other, report);
}

/// The hostile tables and the fuzzer's request heads.
fn requests() -> Vec<(String, Sent)> {
    let cases = hostile::cases().into_iter().enumerate();
    let of_tables = cases.map(|(nth, (name, sent, ..))| {
        let bytes = expand(sent, &mark(nth), HOST, INSTANCE);
        let ends = sent.ends_with("{end}");
        (
            name.to_owned(),
            Sent {
                ends,
                ..Sent::all(bytes)
            },
        )
    });
    let mut requests: Vec<(String, Sent)> = of_tables.collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/request_head");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.ends_with(b"\r\n\r\n") {
            bytes.truncate(bytes.len() - 2);
        }
        bytes.extend(format!("X-Mark: {}\r\n\r\n", mark(requests.len())).bytes());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        requests.push((name, Sent::all(bytes)));
    }
    requests
}

/// HTTP/1 trials, each with a name and the number of its mark.
fn over_http1<'a, I: Instance + Sync>(
    sides: &'a [Side<I>; 2],
    requests: impl Iterator<Item = (String, usize, Sent)>,
) -> Vec<Trial<'a>> {
    let trial = |(name, nth, sent): (String, usize, Sent)| Trial {
        name,
        run: Box::new(move |side, silence| sides[side].over_http1(&sent, nth, silence)),
    };
    requests.map(trial).collect()
}

/// HTTP/1 callers, HTTP/1 and HTTP/2 instances.
fn tables(other: &Path, report: &Report) {
    let numbered = || {
        let requests = requests().into_iter().enumerate();
        requests.map(|(nth, (name, sent))| (name, nth, sent))
    };
    let sides = both(other, |build| {
        Side::start(build, Recorder::start(), "header_timeout = \"2s\"")
    });
    report.compare("tables", AT_ONCE, &over_http1(&sides, numbered()));
    faults(&sides, report, "tables");
    let sides = both(other, |build| {
        Side::start(build, OverHttp2::start(), "header_timeout = \"2s\"")
    });
    let trials = over_http1(&sides, numbered());
    report.compare("tables to HTTP/2", AT_ONCE, &trials);
}

fn mutated(other: &Path, report: &Report) {
    let sides = both(other, |build| {
        Side::start(build, Recorder::start(), "header_timeout = \"2s\"")
    });
    let corpus = mutations::corpus(HOST, INSTANCE);
    let make = |nth| {
        let bytes = mutations::request(nth, &corpus);
        (
            String::from_utf8_lossy(&bytes).into_owned(),
            nth,
            Sent::all(bytes),
        )
    };
    let requests = (0..mutations::REQUESTS).map(make);
    report.compare("mutations", AT_ONCE, &over_http1(&sides, requests));
    faults(&sides, report, "mutations");
}

/// Compares the recorders' complaints about the requests that reached them.
fn faults(sides: &[Side<Recorder>; 2], report: &Report, corpus: &str) {
    let [old, new] = sides.each_ref().map(|side| side.instance.faults());
    for fault in new.difference(&old) {
        report.note(format!("fault at the instance: {fault}"), corpus.to_owned());
    }
    for fault in old.difference(&new) {
        report.note(
            format!("fault gone at the instance: {fault}"),
            corpus.to_owned(),
        );
    }
}

/// HTTP/2 callers, HTTP/1 and HTTP/2 instances.
fn over_http2(other: &Path, report: &Report) {
    fn trials<'a, I: Instance + Sync>(sides: &'a [Side<I>; 2]) -> Vec<Trial<'a>> {
        let trial = |(nth, (name, call)): (usize, (String, Call))| Trial {
            name,
            run: Box::new(move |side, _| sides[side].over_http2(&call, nth)),
        };
        calls().into_iter().enumerate().map(trial).collect()
    }
    let sides = both(other, |build| Side::start(build, Recorder::start(), ""));
    report.compare("HTTP/2 to HTTP/1", AT_ONCE, &trials(&sides));
    faults(&sides, report, "HTTP/2 to HTTP/1");
    let sides = both(other, |build| Side::start(build, OverHttp2::start(), ""));
    report.compare("HTTP/2 to HTTP/2", AT_ONCE, &trials(&sides));
}

/// Requests over HTTP/2.
fn calls() -> Vec<(String, Call)> {
    let of_tables = hostile::cases().into_iter();
    let mut calls: Vec<(String, Call)> = of_tables
        .enumerate()
        .filter_map(|(nth, (name, sent, ..))| {
            let call = Call::of(&expand(sent, &mark(nth), HOST, INSTANCE))?;
            Some((name.to_owned(), call))
        })
        .collect();
    let sum = HeaderMap::from_iter([(
        HeaderName::from_static("x-sum"),
        HeaderValue::from_static("1"),
    )]);
    let large = Bytes::from(vec![b'x'; 300_000]);
    for (name, pieces, trailers) in [
        ("a body without a length", vec!["hello"], None),
        ("an empty frame last", vec!["hello", ""], None),
        ("empty frames between", vec!["a", "", "b", ""], None),
        ("an empty frame alone", vec![""], None),
        ("trailers", vec!["hello"], Some(sum.clone())),
        ("trailers, and no body", vec![""], Some(sum)),
    ] {
        let pieces = pieces.into_iter().map(Bytes::from).collect();
        calls.push((name.to_owned(), posted(pieces, trailers)));
    }
    calls.push(("a large body".to_owned(), posted(vec![large; 4], None)));
    // the mark says which trial a request at the instance belongs to
    for (nth, (_, call)) in calls.iter_mut().enumerate() {
        call.fields.push(("x-mark".to_owned(), mark(nth)));
    }
    calls
}

fn posted(pieces: Vec<Bytes>, trailers: Option<HeaderMap>) -> Call {
    Call {
        method: "POST".to_owned(),
        pieces,
        trailers,
        ..Call::get("/x")
    }
}

/// Every behaviour of the HTTP/2 instance, for callers of both protocols.
fn to_http2(other: &Path, report: &Report) {
    let sides = both(other, |build| Side::start(build, OverHttp2::start(), ""));
    let paths = [
        "/x",
        "/bytes/0",
        "/bytes/1",
        "/bytes/300000",
        "/cut",
        "/reset",
        "/trailers",
        "/early",
        "/status/204",
        "/status/204/5",
        "/status/304",
        "/status/304/5",
        "/status/401",
        "/status/500",
        "/status/200/0",
    ];
    let mut trials = Vec::new();
    let sides = &sides;
    for path in paths {
        for line in ["GET", "HEAD", "POST", "GET 1.0"] {
            let (method, version) = line.split_once(' ').unwrap_or((line, "1.1"));
            let length = if method == "POST" {
                "Content-Length: 5\r\n"
            } else {
                ""
            };
            let body = if method == "POST" { "hello" } else { "" };
            let sent = Sent::all(format!(
                "{method} {path} HTTP/{version}\r\nHost: {HOST}\r\n{length}\r\n{body}"
            ));
            trials.push(Trial {
                name: format!("{line} {path}"),
                run: Box::new(move |side, silence| sides[side].over_http1(&sent, 0, silence)),
            });
        }
        for (name, call) in [
            ("GET", Call::get(path)),
            (
                "HEAD",
                Call {
                    method: "HEAD".to_owned(),
                    ..Call::get(path)
                },
            ),
            (
                "POST",
                Call {
                    target: path.to_owned(),
                    ..posted(vec![Bytes::from("hello")], None)
                },
            ),
        ] {
            trials.push(Trial {
                name: format!("{name} {path} over HTTP/2"),
                run: Box::new(move |side, _| sides[side].over_http2(&call, 0)),
            });
        }
    }
    report.compare("from HTTP/2", AT_ONCE, &trials);
}

/// An instance that records nothing.
struct Plain<O>(O, String);

impl<O> Instance for Plain<O> {
    fn url(&self) -> String {
        self.1.clone()
    }

    fn with_mark(&self, _: &str) -> Vec<Message> {
        Vec::new()
    }
}

/// Each response of the table to each kind of request.
fn answered(other: &Path, report: &Report) {
    let start = |build: Build<'_>| {
        let origin = Origin::start(|request, stream| {
            let nth = request
                .target()
                .strip_prefix("/r/")
                .map(|nth| nth.parse().unwrap());
            let Some(nth) = nth else {
                let mark = request.header("x-mark").unwrap_or_default();
                let length = mark.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{mark}"
                )?;
                return Ok(After::Keep);
            };
            stream.write_all(&responses::bytes(nth))?;
            Ok(if RESPONSES[nth].2 {
                After::Close
            } else {
                After::Keep
            })
        });
        let url = origin.url();
        Side::start(build, Plain(origin, url), "")
    };
    let sides = both(other, start);
    let sides = &sides;
    let mut trials = Vec::new();
    for (nth, (name, ..)) in RESPONSES.iter().enumerate() {
        for request in ["GET", "HEAD", "POST", "GET 1.0"] {
            let (method, version) = request.split_once(' ').unwrap_or((request, "1.1"));
            let length = if method == "POST" {
                "Content-Length: 0\r\n"
            } else {
                ""
            };
            let sent = Sent::all(format!(
                "{method} /r/{nth} HTTP/{version}\r\nHost: {HOST}\r\n{length}\r\n"
            ));
            trials.push(Trial {
                name: format!("{name}, to {request}"),
                run: Box::new(move |side, silence| sides[side].over_http1(&sent, 0, silence)),
            });
        }
        for method in ["GET", "HEAD"] {
            let call = Call {
                method: method.to_owned(),
                ..Call::get(&format!("/r/{nth}"))
            };
            trials.push(Trial {
                name: format!("{name}, to {method} over HTTP/2"),
                run: Box::new(move |side, _| sides[side].over_http2(&call, 0)),
            });
        }
    }
    report.compare("responses", AT_ONCE, &trials);
}

/// Responses before the end of the upload.
fn early(other: &Path, report: &Report) {
    const ANSWER: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n";
    fn answer(head: &str, line: &mut Line) -> std::io::Result<After> {
        let way = head.split(' ').nth(1).unwrap_or_default();
        match way {
            "/keep" => line.say(format!("{ANSWER}\r\ntoo large"))?,
            "/close" => line.say(format!("{ANSWER}Connection: close\r\n\r\ntoo large"))?,
            "/cut" => line.say(format!("{ANSWER}\r\ntoo "))?,
            "/gone" => return Ok(After::Close),
            _ => {
                line.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
                return Ok(After::Keep);
            }
        }
        if way == "/keep" {
            line.read_to_end()?;
        }
        Ok(After::Close)
    }
    let sides = both(other, |build| {
        let origin = RawOrigin::start(answer);
        let url = origin.url();
        Side::start(build, Plain(origin, url), "")
    });
    let sides = &sides;
    let mut trials = Vec::new();
    for path in ["/keep", "/close", "/cut", "/gone"] {
        for (framing, piece) in [
            ("Content-Length: 200000", "x".repeat(100_000)),
            (
                "Transfer-Encoding: chunked",
                format!("186a0\r\n{}\r\n", "x".repeat(100_000)),
            ),
        ] {
            let last = if framing.contains("chunked") {
                "0\r\n\r\n"
            } else {
                ""
            };
            for rest in [String::new(), format!("{piece}{last}")] {
                let head = format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n");
                let sent = Sent {
                    bytes: (head + &piece).into_bytes(),
                    rest: rest.clone().into_bytes(),
                    ends: false,
                };
                trials.push(Trial {
                    name: format!("{path}, {framing}, goes on: {}", !rest.is_empty()),
                    run: Box::new(move |side, silence| sides[side].over_http1(&sent, 0, silence)),
                });
            }
        }
        let call = Call {
            target: path.to_owned(),
            ..posted(vec![Bytes::from(vec![b'x'; 50_000]); 20], None)
        };
        trials.push(Trial {
            name: format!("{path} over HTTP/2"),
            run: Box::new(move |side, _| sides[side].over_http2(&call, 0)),
        });
    }
    report.compare("early answers", 4, &trials);
}

/// Upgrades: requested or not, granted or not, allowed or not.
fn websockets(other: &Path, report: &Report) {
    const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    fn answer(head: &str, line: &mut Line) -> std::io::Result<After> {
        let way = head.split(' ').nth(1).unwrap_or_default();
        let asked = head.to_ascii_lowercase().contains("\r\nupgrade: ");
        let head = match way {
            "/refuses" => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            "/ignores" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "/other" => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"
            }
            _ if !asked => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot asked",
            _ => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            }
        };
        line.say(head)?;
        if !head.contains(" 101 ") {
            return Ok(After::Keep);
        }
        if line.read_through(b"bye")? {
            line.say("echo: bye")?;
        }
        Ok(After::Close)
    }
    for listener in ["", "upgrades = true"] {
        let sides = both(other, |build| {
            let origin = RawOrigin::start(answer);
            let url = origin.url();
            Side::start(build, Plain(origin, url), listener)
        });
        let sides = &sides;
        let mut trials = Vec::new();
        for path in ["/opens", "/refuses", "/ignores", "/other"] {
            for (what, fields) in [
                ("asked", ASK.to_owned()),
                ("not asked", String::new()),
                ("h2c", ASK.replace("websocket", "h2c")),
                ("not named", ASK.replace("Connection: Upgrade\r\n", "")),
                ("with a length", format!("{ASK}Content-Length: 0\r\n")),
            ] {
                for version in ["1.1", "1.0"] {
                    let sent = Sent {
                        rest: b"hello, bye".to_vec(),
                        ..Sent::all(format!(
                            "GET {path} HTTP/{version}\r\nHost: {HOST}\r\n{fields}\r\n"
                        ))
                    };
                    trials.push(Trial {
                        name: format!("{path}, {what}, HTTP/{version}, {listener:?}"),
                        run: Box::new(move |side, silence: Duration| -> Outcome {
                            sides[side].over_http1(&sent, 0, silence)
                        }),
                    });
                }
            }
        }
        report.compare("WebSocket", 4, &trials);
    }
}
