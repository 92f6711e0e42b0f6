//! The routes of the admin address, and the headers of every response.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio_util::sync::CancellationToken;

use super::actions;
use super::events;
use super::guard::guard;
use super::page::{DOCUMENTS, page};
use super::ready;
use super::response::costly;
use super::view::View;
use crate::telemetry::metrics::Format;

/// The response to an unknown path.
const PATHS: &str = "\
/             the status page
/api/status   the same, as JSON
/api/history  the last 15 minutes and the last day of each client, as JSON
/api/events   both as they change, as server-sent events
/livez        whether the process responds
/readyz       whether every client holds a usable token; /readyz?verbose says more
/metrics      for Prometheus

From this machine only:
/api/config                  the configuration in force, without its secrets, as JSON
/api/clients/NAME/renew      POST: request a new token for a client, if its pool allows it
/api/log-level?level=LEVEL   POST: change what is logged
/drain                       POST: finish requests in flight and exit
";

/// The headers of every response. The page loads only its own style and script, and reads only this
/// address; no other site may frame it or read it.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
];

/// The routes of the admin address.
pub(super) fn routes(view: Arc<View>, closing: CancellationToken) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/history", get(history))
        .route("/api/events", get(events::events))
        .route("/api/config", get(actions::config))
        .route("/api/clients/{name}/renew", post(actions::renew))
        .route(
            "/api/log-level",
            get(actions::log_level).post(actions::set_log_level),
        )
        .route("/drain", post(actions::drain))
        .route("/", get(status_page))
        .merge(documents())
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(&view), guard))
        .layer(map_response(with_headers))
        .layer(Extension(closing))
        .with_state(view)
}

/// Routes the parts of the page that are the same for every caller.
fn documents() -> Router<Arc<View>> {
    let documents = DOCUMENTS.iter();
    documents.fold(Router::new(), |router, (path, content_type, text)| {
        let response = ([(CONTENT_TYPE, *content_type)], *text);
        router.route(path, get(async move || response))
    })
}

async fn status_page(State(view): State<Arc<View>>) -> impl IntoResponse {
    Html(costly(move || page(&view.report())).await)
}

async fn readyz(
    State(view): State<Arc<View>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> impl IntoResponse {
    let report = view.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let text = if query.contains_key("verbose") {
        ready::verbose(&report)
    } else {
        ready::brief(&report)
    };
    (status, text)
}

async fn metrics(State(view): State<Arc<View>>, headers: HeaderMap) -> impl IntoResponse {
    let format = metrics_format(&headers);
    let is_compressed = accepts_gzip(&headers);
    let made = costly(move || {
        let text = view.metrics(format);
        if is_compressed {
            gzip(text.as_bytes())
        } else {
            text.into_bytes()
        }
    });
    let headers = [
        (CONTENT_TYPE, format.content_type()),
        (VARY, "accept, accept-encoding"),
    ];
    let coding = is_compressed.then_some([(CONTENT_ENCODING, "gzip")]);
    (headers, coding, made.await)
}

/// Returns OpenMetrics if the scraper accepts it. Its preferences are ignored: Prometheus lists
/// OpenMetrics only if it wants it.
fn metrics_format(headers: &HeaderMap) -> Format {
    let asks = |value: &str| value.contains("application/openmetrics-text");
    if values(headers, &ACCEPT).any(asks) {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Returns whether the caller accepts gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings = values(headers, &ACCEPT_ENCODING).flat_map(|value| value.split(','));
    codings.map(str::trim).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok())
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("a Vec takes everything")
}

async fn status(State(view): State<Arc<View>>) -> impl IntoResponse {
    Json(costly(move || view.report()).await)
}

async fn history(State(view): State<Arc<View>>) -> impl IntoResponse {
    Json(costly(move || view.past().report()).await)
}

async fn not_found() -> impl IntoResponse {
    let text = format!("there is nothing here; try one of\n\n{PATHS}");
    (StatusCode::NOT_FOUND, text)
}

async fn not_allowed(uri: Uri) -> impl IntoResponse {
    let text = match uri.path() {
        "/drain" => "only POST: this ends the proxy\n",
        "/api/log-level" => "only GET, HEAD and POST\n",
        path if path.ends_with("/renew") => "only POST: this requests a new token\n",
        _ => "only GET and HEAD: nothing is changed by this path\n",
    };
    (StatusCode::METHOD_NOT_ALLOWED, text)
}

async fn with_headers(response: Response) -> impl IntoResponse {
    (HEADERS, response)
}

#[cfg(test)]
mod tests {
    use super::super::serve;
    use super::super::view::Parts;
    use super::super::view::tests::{CANARY, holds, refused, slot, view};
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::socket::Socket;
    use crate::token::cache::{NextAttempt, Status};
    use crate::token::service::{NotNow, Order};
    use std::net::SocketAddr;
    use std::sync::atomic::Ordering;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// A view that is served until the test ends.
    async fn served() -> (SocketAddr, Arc<View>, ManualClock) {
        let (view, clock) = view();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(
            Arc::new(Socket::Tcp(listener)),
            Arc::clone(&view),
            std::future::pending(),
        ));
        (address, view, clock)
    }

    /// One exchange, as it goes over the wire: the head in lower case, and the body.
    async fn exchange(address: SocketAddr, method: &str, target: &str) -> (String, String) {
        exchange_with(address, method, target, "").await
    }

    /// As [`exchange`], with more header lines.
    async fn exchange_with(
        address: SocketAddr,
        method: &str,
        target: &str,
        more: &str,
    ) -> (String, String) {
        let (head, body) = exchange_bytes(address, method, target, more).await;
        (head, String::from_utf8(body).unwrap())
    }

    async fn exchange_bytes(
        address: SocketAddr,
        method: &str,
        target: &str,
        more: &str,
    ) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{more}Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).unwrap().to_lowercase(), body)
    }

    async fn get(address: SocketAddr, target: &str) -> (u16, String) {
        let (head, body) = exchange(address, "GET", target).await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    #[tokio::test]
    async fn readiness_follows_the_token_and_not_the_issuer() {
        let (address, view, clock) = served().await;
        let slot = slot(&view);
        let not_ready = (503, "not ready: no usable token for catalog\n".to_owned());
        assert_eq!(get(address, "/readyz").await, not_ready);
        assert_eq!(get(address, "/livez").await, (200, "ok\n".to_owned()));

        let asked = clock.now();
        slot.publish(holds(asked));
        assert_eq!(get(address, "/readyz").await, (200, "ready\n".to_owned()));

        clock.advance(Duration::from_secs(200));
        slot.publish(refused(holds(asked), clock.now()));
        assert_eq!(
            get(address, "/readyz").await.0,
            200,
            "the token is still good"
        );

        clock.advance(Duration::from_secs(97));
        assert_eq!(
            get(address, "/readyz").await,
            not_ready,
            "it died without an event"
        );
        assert_eq!(get(address, "/livez").await.0, 200);

        slot.publish(holds(clock.now()));
        view.draining.store(true, Ordering::Relaxed);
        let draining = (503, "not ready: draining\n".to_owned());
        assert_eq!(get(address, "/readyz").await, draining);
    }

    #[tokio::test]
    async fn verbose_says_why() {
        let (address, view, clock) = served().await;
        let slot = slot(&view);
        slot.publish(refused(holds(clock.now()), clock.now()));
        for query in ["verbose", "verbose=1", "a=b&verbose"] {
            let (status, text) = get(address, &format!("/readyz?{query}")).await;
            assert_eq!(status, 200);
            assert!(text.contains("says that the pool is empty"), "{text}");
        }
        assert_eq!(get(address, "/readyz?quiet").await.1, "ready\n");
    }

    #[tokio::test]
    async fn metrics_and_status_are_of_this_moment() {
        let (address, view, clock) = served().await;
        slot(&view).publish(holds(clock.now()));
        let (head, text) = exchange(address, "GET", "/metrics").await;
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
        assert!(text.contains("collibra_auth_proxy_token_usable{client=\"catalog\"} 1\n"));
        clock.advance(Duration::from_secs(298));
        let (_, text) = get(address, "/metrics").await;
        assert!(text.contains("collibra_auth_proxy_token_usable{client=\"catalog\"} 0\n"));

        let (head, json) = exchange(address, "GET", "/api/status").await;
        assert!(head.contains("content-type: application/json"));
        let report: super::super::report::StatusReport = serde_json::from_str(&json).unwrap();
        assert_eq!(report, view.report());
    }

    #[tokio::test]
    async fn a_watcher_is_sent_the_status_and_the_history() {
        let (address, view, clock) = served().await;
        slot(&view).publish(holds(clock.now()));
        view.sample();
        view.sample();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut said = Vec::new();
        let both = |said: &[u8]| {
            let said = String::from_utf8_lossy(said);
            let of =
                |event: &str, data: &str| said.contains(&format!("event: {event}\ndata: {data}"));
            of("status", "{\"version\"") && of("history", "{\"clients\":{\"catalog\":{\"recent\"")
        };
        let reading = async {
            while !both(&said) {
                assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reading)
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("content-type: text/event-stream"), "{said}");
        assert!(!said.contains(CANARY));
    }

    #[tokio::test]
    async fn a_scraper_chooses_the_format_and_the_coding() {
        let (address, ..) = served().await;
        let scrape = |more: &'static str| exchange_bytes(address, "GET", "/metrics", more);
        let (head, plain) = scrape("Accept-Encoding: gzip;q=0, br\r\n").await;
        assert!(!head.contains("content-encoding"), "{head}");
        let openmetrics = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n\
                           Accept-Encoding: deflate, gzip\r\n";
        let (head, packed) = scrape(openmetrics).await;
        assert!(head.contains("content-encoding: gzip"), "{head}");
        assert!(head.contains("vary: accept, accept-encoding"), "{head}");
        let content_type =
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(head.contains(content_type), "{head}");
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&packed[..]);
        std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        assert!(plain.len() > 1_000 && packed.len() * 3 < text.len());
    }

    #[tokio::test]
    async fn every_answer_is_closed_to_other_sites_and_shows_no_token() {
        let (address, view, clock) = served().await;
        slot(&view).publish(holds(clock.now()));
        for path in [
            "/",
            "/status.css",
            "/status.js",
            "/cards.js",
            "/plots.js",
            "/tables.js",
            "/text.js",
            "/livez",
            "/readyz?verbose",
            "/metrics",
            "/api/status",
            "/api/history",
            "/none",
        ] {
            let (head, body) = exchange(address, "GET", path).await;
            for header in [
                "content-security-policy: default-src 'none'",
                "cache-control: no-store",
                "x-content-type-options: nosniff",
                "content-type: ",
            ] {
                assert!(head.contains(header), "{path}: no {header} in {head}");
            }
            assert!(!head.contains("access-control"), "{path}");
            assert!(!head.contains(CANARY) && !body.contains(CANARY), "{path}");
        }
    }

    #[tokio::test]
    async fn a_page_that_makes_its_name_lead_here_reads_nothing() {
        let (address, view, clock) = served().await;
        slot(&view).publish(holds(clock.now()));
        let foreign = |target| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "GET {target} HTTP/1.1\r\nHost: attacker.example:9902\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        for target in ["/", "/api/status", "/metrics", "/readyz?verbose", "/none"] {
            let answer = foreign(target).await;
            assert!(answer.starts_with("HTTP/1.1 421 "), "{target}: {answer}");
            assert!(!answer.contains("catalog"), "{target}: {answer}");
        }
        assert!(foreign("/livez").await.starts_with("HTTP/1.1 200 "));
        view.parts.rcu(|parts| Parts {
            hosts: vec!["attacker.example".to_owned()],
            ..Parts::clone(parts)
        });
        assert!(foreign("/api/status").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_what_is() {
        let (address, ..) = served().await;
        let (status, text) = get(address, "/status").await;
        assert_eq!(status, 404);
        for path in ["/api/status", "/livez", "/readyz", "/metrics"] {
            assert!(text.contains(path), "{text}");
        }
        let (head, text) = exchange(address, "POST", "/readyz").await;
        assert!(head.starts_with("http/1.1 405 "), "{head}");
        assert!(head.contains("allow: get,head"), "{head}");
        assert!(text.starts_with("only GET and HEAD"), "{text}");
    }

    #[tokio::test]
    async fn a_program_of_this_machine_may_end_the_proxy_and_no_web_page() {
        let (address, view, _clock) = served().await;
        for sign in [
            "Origin: https://evil.example\r\n",
            "Origin: null\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-origin\r\n",
            "X-Forwarded-For: 192.0.2.1\r\n",
        ] {
            let (head, text) = exchange_with(address, "POST", "/drain", sign).await;
            assert!(head.starts_with("http/1.1 403 "), "{sign}: {head}");
            assert!(text.contains("SIGTERM"), "{text}");
        }
        let (head, text) = exchange(address, "GET", "/drain").await;
        assert!(head.starts_with("http/1.1 405 "), "{head}");
        assert!(head.contains("allow: post"), "{head}");
        assert!(text.starts_with("only POST"), "{text}");
        let asked = tokio::time::timeout(Duration::ZERO, view.drain.notified());
        assert!(asked.await.is_err(), "nobody was allowed to ask");

        let (head, text) = exchange(address, "POST", "/drain").await;
        assert!(head.starts_with("http/1.1 202 "), "{head}");
        assert_eq!(text, "draining\n");
        view.drain.notified().await;
    }

    /// Puts an engine in place that answers every order by `answer`.
    fn with_engine(view: &View, answer: Result<(), NotNow>) {
        let (engine, mut orders) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Order::Renew { reply, .. }) = orders.recv().await {
                reply.send(answer).unwrap();
            }
        });
        view.parts.rcu(|parts| {
            let mut parts = Parts::clone(parts);
            parts.clients[0].engine = engine.clone();
            parts
        });
    }

    #[tokio::test]
    async fn a_renewal_is_begun_or_refused_with_the_time_to_try_again() {
        let (address, view, clock) = served().await;
        let renew = || exchange(address, "POST", "/api/clients/catalog/renew");
        let (head, text) = renew().await;
        assert!(head.starts_with("http/1.1 409 "), "{head}");
        assert_eq!(text, "the client is no longer configured\n");

        with_engine(&view, Ok(()));
        slot(&view).publish(holds(clock.now()));
        let (head, text) = renew().await;
        assert!(head.starts_with("http/1.1 202 "), "{head}");
        assert_eq!(text, r#"{"client":"catalog","generation":7}"#);

        let retry_after = Duration::from_millis(17_200);
        with_engine(&view, Err(NotNow::Pool { retry_after }));
        let (head, text) = renew().await;
        assert!(head.starts_with("http/1.1 429 "), "{head}");
        assert!(head.contains("retry-after: 18\r\n"), "{head}");
        assert!(text.contains("no request for another 18 s"), "{text}");

        slot(&view).publish(Status {
            next: NextAttempt::InFlight,
            ..holds(clock.now())
        });
        let (head, text) = renew().await;
        assert!(head.starts_with("http/1.1 409 "), "{head}");
        assert!(text.contains("already in flight"), "{text}");

        let (head, text) = exchange(address, "POST", "/api/clients/none/renew").await;
        assert!(head.starts_with("http/1.1 404 "), "{head}");
        assert!(text.ends_with("there is catalog\n"), "{text}");
        let (head, text) = exchange(address, "GET", "/api/clients/catalog/renew").await;
        assert!(head.starts_with("http/1.1 405 "), "{head}");
        assert!(text.starts_with("only POST"), "{text}");
    }

    #[tokio::test]
    async fn what_is_for_this_machine_is_not_for_a_web_page() {
        let (address, view, _clock) = served().await;
        view.parts.rcu(|parts| Parts {
            config: serde_json::json!({"server": {"threads": 2}}),
            ..Parts::clone(parts)
        });
        with_engine(&view, Ok(()));
        for (method, path) in [
            ("GET", "/api/config"),
            ("POST", "/api/clients/catalog/renew"),
            ("POST", "/api/log-level?level=debug"),
            ("POST", "/drain"),
        ] {
            for sign in [
                "Origin: http://127.0.0.1:9902\r\n",
                "Sec-Fetch-Site: same-origin\r\n",
                "Forwarded: for=192.0.2.1\r\n",
            ] {
                let (head, text) = exchange_with(address, method, path, sign).await;
                assert!(head.starts_with("http/1.1 403 "), "{path} {sign}: {head}");
                assert!(text.starts_with("only a program on this machine"), "{text}");
            }
        }
        let (head, text) = exchange(address, "GET", "/api/config").await;
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(text, r#"{"server":{"threads":2}}"#);
        // nothing logs in this process
        let (status, text) = get(address, "/api/log-level").await;
        assert_eq!((status, &*text), (200, r#"{"level":"off"}"#));
        for (query, expected) in [
            ("?level=loud", "\"loud\" is no log level"),
            ("?level=debug", "logging has not been started"),
            ("", "say which level"),
        ] {
            let path = format!("/api/log-level{query}");
            let (head, text) = exchange(address, "POST", &path).await;
            assert!(head.starts_with("http/1.1 400 "), "{query}: {head}");
            assert!(text.starts_with(expected), "{text}");
        }
    }
}
