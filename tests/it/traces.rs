//! Traces: a span for each request and each token request reaches a collector, as children of what
//! the callers say; without a collector nothing changes.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use crate::support::{Origin, Proxy, http};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Sends a request with `traceparent`, if it is not empty.
fn call(proxy: &Proxy, path: &str, traceparent: &str) {
    let more = if traceparent.is_empty() {
        String::new()
    } else {
        format!("traceparent: {traceparent}\n")
    };
    let answer = proxy.ask(&format!("GET {path} HTTP/1.1\nHost: {{host}}\n{more}\n"));
    assert_eq!(answer.status, 200);
}

/// Ends `proxy`, which sends what it has left, and gives all the spans that `collector` received.
fn spans(mut proxy: Proxy, collector: &Origin) -> Vec<Span> {
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.ended_within(Duration::from_secs(30)), 0);
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!((request.method(), request.target()), ("POST", "/v1/traces"));
        assert_eq!(
            request.header("content-type"),
            Some("application/x-protobuf")
        );
        let sent = ExportTraceServiceRequest::decode(&request.body[..]).unwrap();
        for resource in sent.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let name = attributes.iter().find(|a| a.key == "service.name").unwrap();
            let name = name.value.clone().unwrap().value.unwrap();
            assert_eq!(name, Value::StringValue("collibra-auth-proxy".to_owned()));
            spans.extend(
                resource
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans),
            );
        }
    }
    spans
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn each_request_has_one_span_below_its_callers() {
    let (instance, collector) = (Origin::answering(OK), Origin::answering(OK));
    let proxy = Proxy::to(&instance.url())
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .start();
    proxy.has_token();
    call(
        &proxy,
        "/followed?secret=1",
        &format!("00-{TRACE}-{PARENT}-01"),
    );
    call(&proxy, "/first", "");
    call(&proxy, "/unsampled", &format!("00-{TRACE}-{PARENT}-00"));
    assert_eq!(proxy.get("/rest/auth/v1/clients").status, 403);

    let sent = instance.requests();
    let traceparent = |path: &str| {
        let request = sent
            .iter()
            .find(|request| request.target().starts_with(path));
        request.unwrap().header("traceparent").unwrap().to_owned()
    };
    let (followed, first) = (traceparent("/followed"), traceparent("/first"));
    let unsampled = traceparent("/unsampled");
    let logged = proxy
        .process
        .err
        .wait_for("the line of the request", |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["path"] == "/followed").then(|| line["trace_id"].as_str().unwrap().to_owned())
        });
    assert_eq!(logged, TRACE);
    let openmetrics = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nAccept: application/openmetrics-text\r\n\r\n",
        proxy.admin
    );
    let mut scrape = http::Connection::open(proxy.admin);
    scrape.send(&openmetrics);
    let scraped = scrape.answer("GET").text();
    assert!(scraped.contains(" # {trace_id=\""), "{scraped}");

    let spans = spans(proxy, &collector);
    let of = |path: &str| {
        let is_of = |span: &&Span| attribute(span, "url.path").as_deref() == Some(path);
        let mut found = spans.iter().filter(is_of);
        let span = found.next();
        assert!(found.next().is_none(), "{path}");
        span
    };
    let span = of("/followed").unwrap();
    assert_eq!(hex(&span.trace_id), TRACE);
    assert_eq!(hex(&span.parent_span_id), PARENT);
    assert_eq!(followed, format!("00-{TRACE}-{}-01", hex(&span.span_id)));
    assert_eq!((span.name.as_str(), span.kind()), ("GET", SpanKind::Server));
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
        ("collibra_auth_proxy.client", "default"),
        ("collibra_auth_proxy.listener", "local"),
    ] {
        assert_eq!(attribute(span, key).as_deref(), Some(value), "{key}");
    }
    assert!(!format!("{span:?}").contains("secret"), "{span:?}");

    let span = of("/first").unwrap();
    assert!(span.parent_span_id.is_empty(), "{span:?}");
    let ids = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
    assert_eq!(first, ids);

    assert!(of("/unsampled").is_none());
    assert!(unsampled.starts_with(&format!("00-{TRACE}-")) && unsampled.ends_with("-00"));

    let refused = of("/rest/auth/v1/clients").unwrap();
    let reason = attribute(refused, "collibra_auth_proxy.refused");
    assert_eq!(reason.as_deref(), Some("denied"));

    let tokens: Vec<&Span> = spans
        .iter()
        .filter(|span| span.name == "token request")
        .collect();
    assert_eq!(tokens.len(), 1, "{spans:?}");
    assert_eq!(tokens[0].kind(), SpanKind::Client);
    assert_eq!(spans.len(), 4, "{spans:?}");
}

#[test]
fn a_collector_that_is_gone_costs_no_request_and_is_reported() {
    let instance = Origin::answering(OK);
    let text = "[trace]\nendpoint = \"http://127.0.0.1:1\"\n";
    let proxy = Proxy::configured(&instance.url(), "", text)
        .variable("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start();
    proxy.has_token();
    call(&proxy, "/x", "");
    proxy.process.err.wait_for("the report", |line| {
        line.contains("spans are dropped").then_some(())
    });
    call(&proxy, "/x", "");
}

#[test]
fn without_a_collector_the_callers_span_passes_unchanged() {
    let instance = Origin::answering(OK);
    let proxy = Proxy::to(&instance.url()).start();
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    call(&proxy, "/x", &traceparent);
    let requests = instance.requests();
    assert_eq!(
        requests[0].header("traceparent"),
        Some(traceparent.as_str())
    );
}
