//! Each line equals the line from `tracing`, and contains nothing that a terminal interprets.

use super::super::lines;
use super::*;
use prometheus::IntCounter;
use std::io;
use std::sync::Mutex;

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

const TEXT: Form = Form {
    format: Format::Text,
    colour: false,
};

const JSON: Form = Form {
    format: Format::Json,
    colour: false,
};

/// Returns the log's content after `act`.
fn logged(form: Form, act: impl FnOnce(&AccessLog, &Lines)) -> String {
    let sink = Sink::default();
    let dropped = IntCounter::new("dropped", "dropped").unwrap();
    let (lines, writing) = lines::write_to(sink.clone(), form, dropped, |_| {}).unwrap();
    act(&AccessLog(lines.clone()), &lines);
    drop(writing);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn whole() -> Record {
    Record {
        at: UNIX_EPOCH + Duration::from_micros(1_795_953_281_000_042),
        listener: "local".into(),
        peer: Some(([192, 0, 2, 7], 50_000).into()),
        forwarded: Some([2, 3, 4, 5].into()),
        client: "catalog".into(),
        app: Some("nightly export".into()),
        claimed_app: Some("lineage".into()),
        request_id: Some(RequestId::Generated(0xff)),
        trace_id: Some([0xab; 16]),
        method: Method::GET,
        uri: "https://example.com/rest/2.0/assets?secret=1"
            .parse()
            .unwrap(),
        user_agent: Some(HeaderValue::from_static("curl/8 \"x\"")),
        status: 200,
        bytes: 1_024,
        took: Duration::from_nanos(12_345_678),
        upstream: Some(Duration::from_millis(12)),
        generation: Some(3),
        replayed: true,
        refused: Some("no-token"),
        cut: Some(Cut::UpstreamReset),
        error: Some("ConnectRefused".to_owned()),
    }
}

fn bare() -> Record {
    Record {
        peer: None,
        forwarded: None,
        app: None,
        claimed_app: None,
        user_agent: None,
        cut: None,
        request_id: None,
        trace_id: None,
        upstream: None,
        generation: None,
        replayed: false,
        refused: None,
        error: None,
        ..whole()
    }
}

/// Returns the line from `tracing` for the same fields.
fn traced(form: Form, record: &Record) -> String {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = super::super::logging::tests::subscriber_to(form, move || writer.clone());
    let millis = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
    let id = record.request_id.as_ref().map(|id| match id {
        RequestId::Given(id) => id.to_str().unwrap().to_owned(),
        RequestId::Generated(id) => format!("{id:032x}"),
    });
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(
            target: "access",
            listener = %record.listener,
            peer = record.peer.map(tracing::field::display),
            forwarded = record.forwarded.map(tracing::field::display),
            client = %record.client,
            app = record.app.as_deref(),
            claimed_app = record.claimed_app.as_deref(),
            request_id = id,
            trace_id = record.trace_id.map(|_| "ab".repeat(16)),
            method = %record.method,
            path = record.uri.path(),
            user_agent = record.user_agent.as_ref().map(|value| value.to_str().unwrap()),
            status = record.status,
            bytes = record.bytes,
            milliseconds = millis(record.took),
            upstream_milliseconds = record.upstream.map(millis),
            token_generation = record.generation,
            replayed = record.replayed.then_some(true),
            refused = record.refused,
            cut = record.cut.map(Cut::label),
            error = record.error.as_deref(),
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
    let colours = Form {
        colour: true,
        ..TEXT
    };
    let spans = [0, 1, 499, 500, 1_000, 999_999, 1_000_000, 59_999_999_499];
    let mut records = vec![whole(), bare()];
    records.extend(spans.map(|nanos| Record {
        took: Duration::from_nanos(nanos),
        request_id: Some(RequestId::Given(HeaderValue::from_static("a-b_c.1"))),
        ..whole()
    }));
    records.push(Record {
        uri: "/a%20b/\"'\\/?x".parse().unwrap(),
        app: Some("späte \u{202e}\u{7}".into()),
        error: Some("two\nlines".to_owned()),
        method: Method::from_bytes(b"PROPFIND").unwrap(),
        ..whole()
    });
    for form in [TEXT, colours, JSON] {
        for record in &records {
            let line = logged(form, |log, _| log.write(record.clone()));
            let of_tracing = traced(form, record);
            let (line, of_tracing) = (without_time(&line), without_time(&of_tracing));
            if form.format == Format::Json {
                let value = |line: &str| serde_json::from_str::<serde_json::Value>(line);
                assert_eq!(value(&line).unwrap(), value(&of_tracing).unwrap());
            }
            if form.format == Format::Text || line.is_ascii() && !line.contains("\\u") {
                assert_eq!(line, of_tracing);
            }
        }
    }
}

#[test]
fn a_line_for_people_and_one_for_collectors() {
    assert_eq!(
        logged(TEXT, |log, _| log.write(whole())),
        "2026-11-29T11:54:41.000042Z  INFO access: listener=local peer=192.0.2.7:50000 \
         forwarded=2.3.4.5 client=catalog app=\"nightly export\" claimed_app=\"lineage\" request_id=\"000000000000000000000000000000ff\" \
         trace_id=\"abababababababababababababababab\" method=GET \
         path=\"/rest/2.0/assets\" user_agent=\"curl/8 \\\"x\\\"\" status=200 bytes=1024 milliseconds=12.346 \
         upstream_milliseconds=12.0 token_generation=3 replayed=true refused=\"no-token\" \
         cut=\"upstream_reset\" error=\"ConnectRefused\"\n"
    );
    assert_eq!(
        logged(JSON, |log, _| log.write(bare())),
        "{\"timestamp\":\"2026-11-29T11:54:41.000042Z\",\"level\":\"INFO\",\
         \"listener\":\"local\",\"client\":\"catalog\",\"method\":\"GET\",\
         \"path\":\"/rest/2.0/assets\",\"status\":200,\"bytes\":1024,\
         \"milliseconds\":12.346,\"target\":\"access\"}\n"
    );
}

#[test]
fn nothing_in_a_line_ends_it_or_steers_a_terminal() {
    let canary = "a\nb\r\u{1b}[2J\u{7f}\u{85}\u{9b}2J\u{202e}\u{2028}\0";
    let record = Record {
        listener: canary.into(),
        app: Some(canary.into()),
        error: Some(canary.to_owned()),
        ..whole()
    };
    for form in [TEXT, JSON] {
        let text = logged(form, |log, _| log.write(record.clone()));
        let line = text.strip_suffix('\n').unwrap();
        assert!(line.chars().all(is_printable), "{line:?}");
        if form.format == Format::Json {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["error"], canary);
            assert_eq!(value["listener"], canary);
        }
    }
}

#[test]
fn records_and_other_lines_stay_in_order() {
    let text = logged(TEXT, |log, mut lines| {
        for turn in 0..1_000 {
            log.write(Record {
                status: turn,
                ..whole()
            });
            lines
                .write_all(format!("turn {turn}\n").as_bytes())
                .unwrap();
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
