//! Runs one trial over HTTP/1 or HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};

use super::heard::{Line, has_answer};
use super::outcome::{Message, Outcome};
use super::sides::{Instance, Side, pairs};
use crate::support::h2_caller::{self, Heard, Served, runtime, send_piece};
use crate::support::recorder::mark;
use crate::support::strict::{self, Read, Strict};
use crate::support::{PATIENCE, Proxy};

/// Added to a trial's number for the mark of its probe.
const PROBE: usize = 1 << 41;

/// The bytes that an HTTP/1 caller sends.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    /// Sent after the response, or after a silence.
    pub(super) rest: Vec<u8>,
    /// Whether the caller then closes its side.
    pub(super) ends: bool,
}

impl Sent {
    pub(super) fn all(bytes: impl Into<Vec<u8>>) -> Sent {
        Sent {
            bytes: bytes.into(),
            rest: Vec::new(),
            ends: false,
        }
    }

    /// Sends it to `proxy`, and a probe request after a response; reads up to the end or a silence.
    pub(super) fn to(&self, proxy: &Proxy, nth: usize, silence: Duration) -> Outcome {
        let probe = mark(nth + PROBE);
        let mut line = Line::to(proxy.address, self.bytes.starts_with(b"HEAD "));
        line.send(&self.bytes);
        if self.ends {
            line.ends();
        }
        let mut answered = line.hear(silence, has_answer);
        if !self.rest.is_empty() {
            line.send(&self.rest);
            answered = line.hear(silence, has_answer);
        }
        let answers = line.messages();
        let is_probed =
            |messages: &[Message]| messages.iter().any(|it| it.body == probe.as_bytes());
        if answered {
            line.send(
                format!(
                    "GET /probe HTTP/1.1\r\nHost: {}\r\nX-Mark: {probe}\r\n\r\n",
                    proxy.address
                )
                .as_bytes(),
            );
            line.hear(silence, is_probed);
        }
        let end = match (is_probed(&line.messages()), line.is_closed()) {
            (true, _) => "kept",
            (false, true) => "closed",
            (false, false) => {
                line.ends();
                line.hear(4 * silence, |_| false);
                if line.is_closed() { "waiting" } else { "stuck" }
            }
        };
        let later = line.messages();
        let answers = if later.len() > answers.len() {
            later
        } else {
            answers
        };
        let answers = answers.into_iter();
        let mut answers: Vec<Message> = answers.filter(|it| it.body != probe.as_bytes()).collect();
        // timing decides whether the instance sends a 100 for a body that is on its way, and how
        // often a request is retried
        answers.retain(|it| it.is != "100");
        answers.dedup_by(|next, last| next.is.starts_with('1') && next.is == last.is);
        Outcome {
            answers,
            end: end.to_owned(),
            seen: Vec::new(),
        }
    }
}

impl<I: Instance> Side<I> {
    /// Runs an HTTP/1 trial; `nth` is the number of its mark.
    pub(super) fn over_http1(&self, sent: &Sent, nth: usize, silence: Duration) -> Outcome {
        let own = mark(nth);
        let before = self.instance.with_mark(&own).len();
        let mut outcome = sent.to(&self.plain, nth, silence);
        outcome.seen = self.instance.with_mark(&own).split_off(before);
        self.common(&mut outcome.answers, &own);
        self.common(&mut outcome.seen, &own);
        outcome
    }

    /// Runs an HTTP/2 trial; `nth` is the number of its mark.
    pub(super) fn over_http2(&self, sent: &Call, nth: usize) -> Outcome {
        let own = mark(nth);
        let before = self.instance.with_mark(&own).len();
        let mut outcome = sent.to(&self.tls);
        outcome.seen = self.instance.with_mark(&own).split_off(before);
        self.common(&mut outcome.answers, &own);
        self.common(&mut outcome.seen, &own);
        outcome
    }
}

/// A request over HTTP/2, its body in pieces of one DATA frame or more.
#[derive(Clone, Default)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) pieces: Vec<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Call {
    pub(super) fn get(target: &str) -> Call {
        Call {
            method: "GET".to_owned(),
            target: target.to_owned(),
            ..Call::default()
        }
    }

    /// The HTTP/2 form of a valid HTTP/1.1 request.
    pub(super) fn of(bytes: &[u8]) -> Option<Call> {
        let Ok(Read::Whole(
            Strict {
                method,
                target,
                fields,
                body,
            },
            _,
        )) = strict::read(bytes)
        else {
            return None;
        };
        let of_http1 = [
            "connection",
            "host",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
            "te",
        ];
        let kept = fields
            .into_iter()
            .filter(|(name, _)| !of_http1.contains(&&**name));
        let call = Call {
            method,
            target,
            fields: kept.collect(),
            pieces: Some(Bytes::from(body))
                .filter(|it| !it.is_empty())
                .into_iter()
                .collect(),
            trailers: None,
        };
        call.request("https://localhost").is_some().then_some(call)
    }

    fn request(&self, origin: &str) -> Option<Request<()>> {
        let uri = format!("{origin}{}", self.target);
        let mut builder = Request::builder().method(&*self.method).uri(&*uri);
        for (name, value) in &self.fields {
            let value: Vec<u8> = value
                .chars()
                .map(|c| u8::try_from(c).unwrap_or(b'?'))
                .collect();
            builder = builder.header(&**name, value);
        }
        let request = builder.body(()).ok()?;
        // the library changes some targets: that would be another request
        let same = request.uri().path_and_query().map(|it| it.as_str()) == Some(&*self.target);
        same.then_some(request)
    }

    fn to(&self, served: &Served<()>) -> Outcome {
        let request = self.request(&served.uri("")).unwrap();
        runtime().block_on(async {
            let mut requests = served.connect().await;
            let (response, mut stream) =
                match requests.send_request(request, self.pieces.is_empty()) {
                    Ok(sent) => sent,
                    Err(error) => return ended(&error),
                };
            let pieces = async {
                for (nth, piece) in self.pieces.iter().enumerate() {
                    let ends = nth + 1 == self.pieces.len() && self.trailers.is_none();
                    send_piece(&mut stream, piece.clone(), ends).await?;
                }
                match &self.trailers {
                    Some(trailers) => stream.send_trailers(trailers.clone()),
                    None => Ok(()),
                }
            };
            let exchange = async {
                // the response may come before the body is sent
                let (_, heard) = tokio::join!(pieces, h2_caller::hear(response));
                heard
            };
            let heard = tokio::time::timeout(PATIENCE, exchange).await;
            match heard {
                Ok(Ok(heard)) => Outcome {
                    answers: vec![answer(heard)],
                    end: "ended".to_owned(),
                    seen: Vec::new(),
                },
                Ok(Err(error)) => ended(&error),
                Err(_) => Outcome {
                    end: "stuck".to_owned(),
                    ..Outcome::default()
                },
            }
        })
    }
}

/// The outcome of an exchange without a response.
fn ended(error: &h2::Error) -> Outcome {
    Outcome {
        end: format!("{:?}", error.reason()),
        ..Outcome::default()
    }
}

fn answer(heard: Heard) -> Message {
    Message {
        is: heard.head.status.as_str().to_owned(),
        target: String::new(),
        fields: pairs(&heard.head.headers),
        body: heard.body,
        whole: true,
        trailers: heard.trailers.as_ref().map(pairs).unwrap_or_default(),
    }
}
