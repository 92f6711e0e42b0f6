//! Each line equals the line from `tracing`, and contains nothing that a terminal interprets.

use super::super::ended::tests::ENDED;
use super::super::lines;
use super::super::printable::is_printable;
use super::super::requests::Cut;
use super::*;
use http::Method;
use prometheus::IntCounter;
use std::io;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// When every request here ended.
fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(1_795_953_281_000_042)
}

/// Returns the log's content after `act`.
fn logged(form: Form, act: impl FnOnce(&Lines)) -> String {
    let sink = Sink::default();
    let dropped = IntCounter::new("dropped", "dropped").unwrap();
    let (lines, writing) = lines::write_to(sink.clone(), form, dropped, |_| {}).unwrap();
    act(&lines);
    drop(lines);
    drop(writing);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn whole() -> Ended<'static> {
    static REQUEST_ID: HeaderValue = HeaderValue::from_static("a-b_c.1");
    static USER_AGENT: HeaderValue = HeaderValue::from_static("curl/8 \"x\"");
    Ended {
        peer: Some(([192, 0, 2, 7], 50_000).into()),
        forwarded: Some([2, 3, 4, 5].into()),
        app: Some("nightly export"),
        claimed_app: Some("lineage"),
        request_id: Some(&REQUEST_ID),
        trace_id: Some(u128::MAX / 0xff * 0xab),
        user_agent: Some(&USER_AGENT),
        took: Duration::from_nanos(12_345_678),
        upstream: Some(Duration::from_millis(12)),
        generation: Some(3),
        replayed: true,
        refused: Some("no-token"),
        cut: Some(Cut::UpstreamReset),
        error: Some("ConnectRefused"),
        ..ENDED
    }
}

fn bare() -> Ended<'static> {
    Ended {
        took: whole().took,
        upstream: None,
        ..ENDED
    }
}

/// Returns the line from `tracing` for the same fields.
fn traced(form: Form, request: &Ended<'_>) -> String {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = super::super::logging::tests::subscriber_to(form, move || writer.clone());
    let millis = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(
            target: "access",
            listener = %request.listener,
            peer = request.peer.map(tracing::field::display),
            forwarded = request.forwarded.map(tracing::field::display),
            client = %request.client,
            app = request.app,
            claimed_app = request.claimed_app,
            request_id = request.request_id.map(|id| id.to_str().unwrap()),
            trace_id = request.trace_id.map(|_| "ab".repeat(16)),
            method = %request.method,
            path = request.path,
            user_agent = request.user_agent.map(|value| value.to_str().unwrap()),
            status = request.status,
            bytes = request.response_bytes,
            milliseconds = millis(request.took),
            upstream_milliseconds = request.upstream.map(millis),
            token_generation = request.generation,
            replayed = request.replayed.then_some(true),
            refused = request.refused,
            cut = request.cut.map(|cut| cut.label()),
            error = request.error,
        );
    });
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// Returns `line` without its timestamp.
fn without_time(line: &str) -> String {
    let at = line.find("20").unwrap();
    let end = at + line[at..].find('Z').unwrap();
    assert_eq!(end - at, "2026-11-29T11:54:41.000042".len(), "{line}");
    format!("{}TIME{}", &line[..at], &line[end..])
}

#[test]
fn a_line_is_the_one_that_tracing_makes() {
    let spans = [0, 1, 499, 500, 1_000, 999_999, 1_000_000, 59_999_999_499];
    let mut requests = vec![whole(), bare()];
    requests.extend(spans.map(|nanos| Ended {
        took: Duration::from_nanos(nanos),
        ..whole()
    }));
    let method = Method::from_bytes(b"PROPFIND").unwrap();
    requests.push(Ended {
        path: "/a%20b/\"'\\/",
        app: Some("späte \u{202e}\u{7}"),
        error: Some("two\nlines"),
        method: &method,
        ..whole()
    });
    for form in [Form::Plain, Form::Coloured, Form::Json] {
        for request in &requests {
            let line = logged(form, |log| log.request(request, at()));
            let of_tracing = traced(form, request);
            let (line, of_tracing) = (without_time(&line), without_time(&of_tracing));
            if form == Form::Json {
                let value = |line: &str| serde_json::from_str::<serde_json::Value>(line);
                assert_eq!(value(&line).unwrap(), value(&of_tracing).unwrap());
            }
            if form != Form::Json || line.is_ascii() && !line.contains("\\u") {
                assert_eq!(line, of_tracing);
            }
        }
    }
}

#[test]
fn a_line_for_people_and_one_for_collectors() {
    assert_eq!(
        logged(Form::Plain, |log| log.request(&whole(), at())),
        "2026-11-29T11:54:41.000042Z  INFO access: listener=local peer=192.0.2.7:50000 \
         forwarded=2.3.4.5 client=catalog app=\"nightly export\" claimed_app=\"lineage\" request_id=\"a-b_c.1\" \
         trace_id=\"abababababababababababababababab\" method=GET \
         path=\"/rest/2.0/assets\" user_agent=\"curl/8 \\\"x\\\"\" status=200 bytes=1000 milliseconds=12.346 \
         upstream_milliseconds=12.0 token_generation=3 replayed=true refused=\"no-token\" \
         cut=\"upstream_reset\" error=\"ConnectRefused\"\n"
    );
    assert_eq!(
        logged(Form::Json, |log| log.request(&bare(), at())),
        "{\"timestamp\":\"2026-11-29T11:54:41.000042Z\",\"level\":\"INFO\",\
         \"listener\":\"local\",\"client\":\"catalog\",\"method\":\"GET\",\
         \"path\":\"/rest/2.0/assets\",\"status\":200,\"bytes\":1000,\
         \"milliseconds\":12.346,\"target\":\"access\"}\n"
    );
}

#[test]
fn nothing_in_a_line_ends_it_or_steers_a_terminal() {
    let canary = "a\nb\r\u{1b}[2J\u{7f}\u{85}\u{9b}2J\u{202e}\u{2028}\0";
    let request = Ended {
        listener: canary,
        app: Some(canary),
        error: Some(canary),
        ..whole()
    };
    for form in [Form::Plain, Form::Json] {
        let text = logged(form, |log| log.request(&request, at()));
        let line = text.strip_suffix('\n').unwrap();
        assert!(line.chars().all(is_printable), "{line:?}");
        if form == Form::Json {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["error"], canary);
            assert_eq!(value["listener"], canary);
        }
    }
}

#[test]
fn requests_and_other_lines_stay_in_order() {
    let text = logged(Form::Plain, |mut log| {
        for turn in 0..1_000 {
            let request = Ended {
                status: turn,
                ..whole()
            };
            log.request(&request, at());
            log.write_all(format!("turn {turn}\n").as_bytes()).unwrap();
        }
    });
    for (turn, pair) in text.lines().collect::<Vec<_>>().chunks(2).enumerate() {
        assert!(pair[0].contains(&format!(" status={turn} ")), "{pair:?}");
        assert_eq!(pair[1], format!("turn {turn}"));
    }
    assert_eq!(text.lines().count(), 2_000);
}

#[test]
fn time_stamps_follow_the_calendar() {
    let mut stamp = Stamp::default();
    let mut at = |seconds: u64, micros: u32| {
        let mut out = Vec::new();
        let at = UNIX_EPOCH + Duration::new(seconds, micros * 1_000 + 999);
        stamp.write(at, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
    assert_eq!(at(0, 1), "1970-01-01T00:00:00.000001Z");
    assert_eq!(at(951_782_399, 999_999), "2000-02-28T23:59:59.999999Z");
    assert_eq!(at(951_782_400, 500_000), "2000-02-29T00:00:00.500000Z");
    assert_eq!(at(2_147_483_648, 0), "2038-01-19T03:14:08.000000Z");
    assert_eq!(at(u64::from(u32::MAX), 0), "2106-02-07T06:28:15.000000Z");
}
