//! Traces: a span per request and token request, sent over OTLP (HTTP, protobuf).
//!
//! A request's span is a child of the caller's, given by `traceparent` (W3C Trace Context), and its
//! own id is sent to the instance in the same header. A separate thread sends spans in batches; if
//! the collector fails, they are dropped. Without a [`Config`] there is no [`Tracer`], and
//! `traceparent` is forwarded unchanged.
//!
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_EXPORTER_OTLP_HEADERS` are honoured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, Tracer as _, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use tokio::runtime::Handle;
use url::Url;

use crate::clock::{Clock, Instant};
use crate::outgoing::client::Client;
use crate::outgoing::dial::Route;
use crate::outgoing::quotation::Quotation;
use crate::telemetry::Ended;

/// The header that carries a span from one service to the next (W3C Trace Context, section 3.2).
pub const TRACEPARENT: &str = "traceparent";

/// The timeout for sending one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The interval for reporting a collector that fails.
const REPORTS: Duration = Duration::from_secs(60);

/// The service name, unless `OTEL_SERVICE_NAME` sets it.
const SERVICE: &str = "collibra-auth-proxy";

/// The collector and the sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The URL for posting batches.
    pub endpoint: Url,
    /// The share of traces starting here that are recorded, 0 to 1. For other traces the caller
    /// decides.
    pub sample: f64,
}

/// The HTTP client for the collector cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent: {0}")]
pub struct BuildError(String);

/// Creates spans.
#[derive(Debug)]
pub struct Tracer {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

/// The span of a request in flight.
#[derive(Debug)]
pub struct RequestSpan(Span);

impl Tracer {
    /// Returns a tracer that sends on the current Tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] if its HTTP client cannot be built.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Tracer, BuildError> {
        let route = Route {
            written: "endpoint of [trace]",
            ..Route::to(&config.endpoint, TIMEOUT)
        };
        let http = Client::new(&route, TIMEOUT, None);
        let sender = Sender {
            http: Arc::new(http.map_err(|error| BuildError(error.to_string()))?),
            runtime: Handle::current(),
            clock,
            reported: AtomicU64::new(0),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_endpoint(config.endpoint.as_str())
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| BuildError(error.to_string()))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::parent_based(Sampler::TraceIdRatioBased(
                config.sample,
            )))
            .with_resource(resource())
            .build();
        Ok(Tracer {
            tracer: provider.tracer(SERVICE),
            provider,
            propagator: TraceContextPropagator::new(),
        })
    }

    /// Starts the span of a request with this head, received `at`.
    #[must_use]
    pub fn request(&self, method: &Method, headers: &HeaderMap, at: SystemTime) -> RequestSpan {
        let parent = Context::new();
        let parent = self
            .propagator
            .extract_with_context(&parent, &HeaderExtractor(headers));
        // the low-cardinality name of HTTP spans in the semantic conventions, without a route
        let name = method.as_str().to_owned();
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_start_time(at)
            .with_attributes([KeyValue::new(
                "http.request.method",
                method.as_str().to_owned(),
            )]);
        RequestSpan(self.tracer.build_with_context(builder, &parent))
    }

    /// Records the span of a token request of `client`, which returned a token, or failed with
    /// `failure`.
    pub fn token_request(
        &self,
        client: &str,
        failure: Option<&'static str>,
        ended: SystemTime,
        took: Duration,
    ) {
        let builder = SpanBuilder::from_name("token request")
            .with_kind(SpanKind::Client)
            .with_start_time(ended - took)
            .with_attributes([KeyValue::new(CLIENT, client.to_owned())]);
        let mut span = self.tracer.build_with_context(builder, &Context::new());
        if let Some(failure) = failure {
            span.set_attribute(KeyValue::new("error.type", failure));
            span.set_status(Status::error(failure));
        }
        span.end_with_timestamp(ended);
    }

    /// Sends the remaining spans within `limit`; later spans are dropped.
    pub async fn shutdown(self: Arc<Self>, limit: Duration) {
        let closing = move || self.provider.shutdown_with_timeout(limit);
        // failures to send are already reported
        let _ = tokio::time::timeout(limit, tokio::task::spawn_blocking(closing)).await;
    }
}

const CLIENT: &str = "collibra_auth_proxy.client";

impl RequestSpan {
    /// The id of the trace.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        u128::from_be_bytes(self.0.span_context().trace_id().to_bytes())
    }

    /// The value of `traceparent` for the forwarded request.
    #[must_use]
    pub fn traceparent(&self) -> Option<HeaderValue> {
        let context = self.0.span_context();
        let (trace, span) = (context.trace_id(), context.span_id());
        let flags = u8::from(context.is_sampled());
        HeaderValue::try_from(format!("00-{trace}-{span}-{flags:02x}")).ok()
    }

    /// Ends the span of `request`, which ended `at`.
    pub fn end(mut self, request: &Ended<'_>, at: SystemTime) {
        let span = &mut self.0;
        if !span.is_recording() {
            return;
        }
        for (key, value) in [
            ("url.path", Some(request.path)),
            ("server.address", Some(request.instance)),
            ("collibra_auth_proxy.listener", Some(request.listener)),
            (CLIENT, Some(request.client)),
            ("collibra_auth_proxy.app", request.app),
            ("collibra_auth_proxy.refused", request.refused),
        ] {
            if let Some(value) = value {
                span.set_attribute(KeyValue::new(key, value.to_owned()));
            }
        }
        if request.status != 0 {
            let status = i64::from(request.status);
            span.set_attribute(KeyValue::new("http.response.status_code", status));
        }
        // on a server's span, a 4xx is the caller's error, not the span's
        if request.status == 0 || request.status >= 500 {
            let kind = match request.status {
                0 => "no_response".to_owned(),
                status => status.to_string(),
            };
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(request.error.unwrap_or_default().to_owned()));
        }
        span.end_with_timestamp(at);
    }
}

fn resource() -> Resource {
    let found = Resource::builder().build();
    let name = opentelemetry::Key::new("service.name");
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    // the library's default name is `unknown_service`
    let is_named = found
        .get(&name)
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named {
        builder.build()
    } else {
        builder.with_service_name(SERVICE).build()
    }
}

/// Returns the path and query of a request's target.
fn path(uri: &Uri) -> Result<Uri, HttpError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(path.parse()?)
}

/// Sends batches on the runtime, and reports a collector that fails.
#[derive(Debug)]
struct Sender {
    http: Arc<Client>,
    runtime: Handle,
    clock: Arc<dyn Clock>,
    /// When a failure was last reported, in seconds of the clock; 0 for never.
    reported: AtomicU64,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        head.uri = path(&head.uri)?;
        let (http, request) = (Arc::clone(&self.http), Request::from_parts(head, body));
        // the calling thread has no runtime
        let sending = self.runtime.spawn(async move {
            let quotation = Quotation::without(Vec::new());
            let sent = http.send(request, 0, "a batch of spans", &quotation).await;
            sent.map(|answer| answer.status)
        });
        let sent = sending.await.map_err(HttpError::from)?;
        let status = match sent {
            Ok(status) if status.is_success() => status,
            Ok(status) => {
                self.report(&format!("it answers {status}"));
                status
            }
            Err(failure) => {
                self.report(&failure.message);
                return Err(failure.message.into());
            }
        };
        // the response's content is not used
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        Ok(response)
    }
}

impl Sender {
    /// Reports a failure, at most once a minute.
    fn report(&self, problem: &str) {
        let now = self.clock.now().since(Instant::ORIGIN).as_secs().max(1);
        let before = self.reported.load(Ordering::Relaxed);
        if before == 0 || now >= before + REPORTS.as_secs() {
            self.reported.store(now, Ordering::Relaxed);
            tracing::warn!(
                collector = self.http.authority(),
                "spans are dropped, because the collector of [trace] does not take them: {problem}"
            );
        }
    }
}
