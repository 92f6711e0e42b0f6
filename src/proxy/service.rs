//! pingora's hooks, in the order in which a request passes them. Nothing is decided here: each
//! hook asks the module that decides and does what it says.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::Version;
use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_core::{Error, ErrorSource, ErrorType, Result, RetryType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::sync::watch;

use super::access_log;
use super::connection::Connection;
use super::context::Context;
use super::examine::{self, Next};
use super::head;
use super::inject::{self, REQUEST_ID, Way};
use super::local::{self, Endpoint};
use super::peer::Peer;
use super::phase::Body;
use super::plan::{Client, Plan};
use super::replay::{self, Unauthorized};
use super::respond::{self, Refusal};
use crate::clock::Clock;
use crate::outgoing::tunnel;
use crate::tls::CaFile;

/// The hooks of one listener.
#[derive(Debug)]
pub struct Service {
    /// What is done with the next request.
    pub(super) plan: Arc<ArcSwap<Plan>>,
    /// The clock by which tokens end and requests are timed.
    pub(super) clock: Arc<dyn Clock>,
    /// What pingora verifies instances by, unless told otherwise.
    pub(super) ca_file: Option<CaFile>,
    /// Turns true when each connection is to end after its request.
    pub(super) ending: watch::Receiver<bool>,
}

impl Service {
    /// The connection below `session`, where it is one of ours (HTTP/1).
    fn connection(session: &Session) -> Option<&Connection> {
        // the box itself is an IO too: look at what is in it
        let stream = session.as_downstream().stream()?;
        (**stream).as_any().downcast_ref()
    }

    /// Answers the request here. Gives true, as [`ProxyHttp::request_filter`] does then.
    async fn answer(
        &self,
        endpoint: Endpoint,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<bool> {
        match local::answer(endpoint, session, context, &*self.clock).await? {
            Ok(answer) => {
                self.say_farewell(session);
                answer.send(session, context.id.as_ref()).await?;
                Ok(true)
            }
            Err(refusal) => Self::refuse(context, refusal),
        }
    }

    /// Has the answer tell the caller that its connection ends, if it does. pingora asks that when
    /// a request begins only.
    fn say_farewell(&self, session: &mut Session) {
        if *self.ending.borrow() {
            session.set_keepalive(None);
        }
    }

    /// Ends the request with `refusal`, which [`ProxyHttp::fail_to_proxy`] will send.
    fn refuse<T>(context: &mut Context, refusal: Refusal) -> Result<T> {
        context.refusal = Some(refusal);
        Err(Error::new(ErrorType::Custom("refused")))
    }
}

#[async_trait]
impl ProxyHttp for Service {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.plan.load_full(), self.clock.now())
    }

    /// No compression: bodies pass as they are.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Context) -> Result<()> {
        // each read has its deadline below, where it is known who is waited for
        session.as_downstream_mut().set_read_timeout(None);
        let body = if session.as_downstream_mut().is_body_empty() {
            Body::Nothing
        } else if session.req_header().headers.contains_key(EXPECT) {
            Body::Announced
        } else {
            Body::Due
        };
        if let Some(connection) = Self::connection(session) {
            connection.head_is_complete(body);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        _: &mut Context,
    ) -> Result<()> {
        if end_of_stream && let Some(connection) = Self::connection(session) {
            connection.body_is_complete();
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let http1 = session.as_downstream().as_http1();
        let raw_head = http1.map(HttpSession::get_headers_raw_bytes);
        if let Some(Err(why)) = raw_head.map(|raw| head::check(&raw)) {
            // where the next request begins is anybody's guess
            session.set_keepalive(None);
            return Self::refuse(context, Refusal::Malformed(why));
        }
        let peer = Peer::of(session);
        let request = session.req_header_mut();
        context.id = inject::request_id(request);
        match examine::examine(context, request, &peer.certificate_names, &*self.clock) {
            Ok(Next::Forward) => {}
            Ok(Next::Answer(endpoint)) => return self.answer(endpoint, session, context).await,
            Err(refusal) => return Self::refuse(context, refusal),
        }
        let client = &context.client;
        if client.cell.usable(self.clock.now()).is_none() {
            let waited = client.cell.wait(&*self.clock, client.wait_for_token).await;
            if let Err(no_token) = waited {
                return Self::refuse(context, Refusal::NoToken(no_token));
            }
        }
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        if let Some(connection) = Self::connection(session) {
            connection.is_not_waited_for();
        }
        let problem = match context.client.upstream.peer(self.ca_file.as_ref()).await {
            Ok(mut peer) => {
                if session.req_header().version < Version::HTTP_11 {
                    // knows no chunks, in which pingora passes on what came over HTTP/2
                    peer.options.alpn = ALPN::H1;
                }
                if context.plan.listener.upgrades {
                    peer.options.http_upstream_request_policy =
                        HttpUpstreamRequestPolicy::default();
                }
                return Ok(peer);
            }
            Err(problem) => problem,
        };
        let timeout = false;
        Self::refuse(context, Refusal::Upstream { problem, timeout })
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut e: Box<Error>,
    ) -> Box<Error> {
        let upstream = &context.client.upstream;
        upstream.connection_failed();
        context.failed_connections += 1;
        // nothing was sent: every other address may be tried, and a lone one a second time
        let tries = upstream.addresses().clamp(2, 4);
        let proxy = e.root_cause().downcast_ref::<tunnel::Error>();
        let again = proxy.is_none_or(|refusal| !refusal.is_final());
        e.set_retry(again && context.failed_connections < tries);
        e
    }

    /// The token goes in here, after pingora has removed what the caller's `Connection` header
    /// names: a caller cannot have it removed.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let now = self.clock.now();
        let client = Arc::clone(&context.client);
        let Client { cell, upstream, .. } = &*client;
        let authority = upstream.authority();
        if let Some(token) = cell.usable(now).as_deref().and_then(Option::as_ref) {
            context.goes_out(token, now);
            return inject::outgoing(request, authority, token.authorization());
        }
        // it ended between the first look and the connection
        let patience = client.wait_for_token;
        match cell.wait(&*self.clock, patience).await {
            Ok(token) => {
                context.goes_out(&token, self.clock.now());
                inject::outgoing(request, authority, token.authorization())
            }
            Err(no_token) => Self::refuse(context, Refusal::NoToken(no_token)),
        }
    }

    /// A 401 to the token is answered by another token, as `replay` decides.
    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        let Some(generation) = context.generation else {
            return Ok(());
        };
        let asked = Unauthorized {
            generation,
            replayed: context.replayed,
            body_at_hand: !session.as_ref().retry_buffer_truncated(),
        };
        let client = &context.client;
        match replay::decide(client, &*self.clock, response.status, asked).await {
            replay::Next::Pass => Ok(()),
            replay::Next::SendAgain => {
                context.replayed = true;
                Err(replay::again())
            }
        }
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        _context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        if replay::is_again(&e) {
            return e;
        }
        let body_at_hand = !session.as_ref().retry_buffer_truncated();
        // the instance says that it has not looked at it (RFC 9113, section 8.7): pingora knows
        let is_untouched = matches!(e.etype(), ErrorType::H2Error | ErrorType::H2Downgrade)
            && matches!(e.retry, RetryType::Decided(true));
        let may_go_twice = session.req_header().method.is_idempotent();
        if !body_at_hand || !(is_untouched || may_go_twice) {
            e.set_retry(false);
        } else if may_go_twice {
            // a kept connection may have been closed by the other side meanwhile: what may be
            // sent twice (RFC 9110, section 9.2.2) is
            e.retry.decide_reuse(reused);
        }
        e
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if !response.status.is_informational() {
            let now = self.clock.now();
            context.upstream = context.sent.map(|sent| now.since(sent));
            self.say_farewell(session);
        }
        let request = session.req_header();
        context.begins_to_end(&request.method, response);
        if request.version < Version::HTTP_11 {
            // knows no chunks: a body without a length ends with the connection (RFC 9112, 6.1)
            response.remove_header(&TRANSFER_ENCODING);
        }
        if let Some(id) = &context.id
            && !response.headers.contains_key(REQUEST_ID)
        {
            response.insert_header(REQUEST_ID, id.clone())?;
        }
        let way = Way {
            scheme: context.plan.listener.scheme(),
            host: request.headers.get(HOST),
            prefix: context.stripped.as_deref().unwrap_or_default(),
        };
        inject::incoming(response, context.client.upstream.instance(), way)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        is_last: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        if is_last {
            context.ends();
        }
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        e: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        context.ends();
        let answered = session.response_written().is_some();
        let is_slow = Self::connection(session).is_some_and(Connection::is_slow);
        if is_slow && !answered {
            context.refusal = Some(Refusal::SlowBody);
        }
        let caller_is_gone = *e.esource() == ErrorSource::Downstream
            && matches!(
                e.etype(),
                ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed
            );
        if answered || (caller_is_gone && !is_slow) {
            // an answer that was cut stays cut: the connection ends without its last chunk
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        }
        let refusal = context.refusal.get_or_insert_with(|| explain(e));
        context.plan.metrics.refused(refusal.reason());
        self.say_farewell(session);
        let answer = respond::answer(refusal);
        FailToProxy {
            error_code: refusal.status().as_u16(),
            can_reuse_downstream: answer.send(session, context.id.as_ref()).await.is_ok()
                && !is_slow,
        }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, context: &mut Context) {
        let status = session.response_written().map_or(0, |r| r.status.as_u16());
        let took = self.clock.now().since(context.started);
        let method = (&session.req_header().method).into();
        let app = context.app_metrics();
        let metrics = &context.client.metrics;
        metrics.request(app, method, status, took, context.upstream);
        if context.plan.access_log {
            access_log::write(session, context, self.clock.wall(), status, took, e);
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        // the access log has it, without what pingora would print of the request
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Context,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// What an error of pingora's means for the caller.
fn explain(e: &Error) -> Refusal {
    if let ErrorType::HTTPStatus(400..=499) = e.etype() {
        return Refusal::Unreadable;
    }
    if *e.esource() == ErrorSource::Downstream {
        return Refusal::Unreadable;
    }
    let timeout = matches!(
        e.etype(),
        ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
    );
    Refusal::Upstream {
        problem: access_log::problem(e),
        timeout,
    }
}
