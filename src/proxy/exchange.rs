//! Serves one request, from its head to its access log line. Read this file first.
//!
//! [`serve`] is the whole path: examine the head, wait for a token, connect, send, read the
//! response's head, pass the response on. Two cases repeat the loop, each at most once: a
//! connection that the instance had closed, and a 401 to the token. Every response of the proxy's
//! own ends it as a [`Stop`].

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, StatusCode};
use pingora::http::ResponseHeader;
use tokio::time::timeout_at;

use super::caller::{Caller, CallerError};
use super::connection::Connection;
use super::context::Context;
use super::examine;
use super::hop_by_hop;
use super::inject::{self, Destination};
use super::request_body::{Body, BodyState};
use super::respond::{self, Refusal};
use super::stop::Stop;
use super::{local, record, replay};
use crate::clock::timers;
use crate::outgoing::dial::{Kind, Protocols};
use crate::policy::form::FormMethod;
use crate::policy::target::Malformed;
use crate::telemetry::{Cut, Label as _};
use crate::token::token::Token;
use crate::trace::TRACEPARENT;
use crate::upstream::io::Received;
use crate::upstream::session::{
    Again, Broken, Chunk, InstanceSession, LATE_HEAD, SILENT, has_no_body, limited,
};

/// How long to wait for the instance's answer to `Expect: 100-continue` before asking the caller
/// for its body anyway (RFC 9110, section 10.1.1).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// What happens to the caller's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It may send another request.
    Keep,
    /// It closes.
    Close,
}

/// Serves the request of `caller`, which came on `connection`; `malformed` is what is wrong with
/// the bytes of its head.
pub(super) async fn serve(
    caller: &mut Caller,
    connection: &Connection,
    malformed: Option<Malformed>,
) -> After {
    let context = Context::new(connection, caller.head());
    let mut exchange = Exchange {
        body: Body::of(caller, context.state.listener.min_body_rate),
        caller,
        context,
        form: None,
    };
    let served = match malformed {
        // the start of the next request is unknown
        Some(why) => Err(Refusal::Malformed(why).into()),
        None => exchange.run().await,
    };
    let after = exchange.conclude(served).await;
    record::write(exchange.caller, &mut exchange.context, exchange.body.bytes);
    after
}

/// A request in progress.
struct Exchange<'a> {
    caller: &'a mut Caller,
    context: Context<'a>,
    body: Body,
    /// Its body, if that is a form.
    form: Option<FormMethod>,
}

/// The next event while a request's body goes one way and its response comes the other.
enum Event<T> {
    /// The instance sent the head, or a part of the body.
    Instance(T),
    /// The caller sent a part of the body, or its end.
    Body(Option<Bytes>),
    /// The caller gave up, or its body is invalid.
    Caller(CallerError),
}

impl Exchange<'_> {
    async fn run(&mut self) -> Result<After, Stop> {
        // is it allowed, and who sent it?
        self.context.id = inject::request_id(self.caller.head());
        let local = examine::examine(&mut self.context, self.caller.head_mut())?;
        if let Some(endpoint) = local {
            let answer = local::answer(endpoint, self.caller, &mut self.context).await?;
            self.announce_end();
            self.context.status = answer.status.as_u16();
            answer.send(self.caller, self.context.id.as_ref()).await?;
            return Ok(After::Keep);
        }
        self.form = FormMethod::of(self.caller.method(), &self.caller.head().headers);
        self.context.begin_in_flight();
        let now = self.context.clock().now();
        if self.context.client.slot.usable(now).is_none() {
            self.token().await?;
        }
        let is_upgrade = self.context.state.listener.upgrades
            && self.body.is_done()
            && hop_by_hop::asks_for_websocket(self.caller.head());

        // send it, and again if needed
        let mut is_retried = false;
        let instance = loop {
            let mut instance = self.connect(is_upgrade, is_retried).await?;
            match self.ask(&mut instance, is_upgrade).await {
                Ok(()) if self.is_replayed(&instance).await => {}
                Ok(()) => break instance,
                Err(Stop::Broken(broken)) if !is_retried && self.may_go_again(&broken) => {
                    is_retried = true;
                }
                Err(stop) => return Err(stop),
            }
        };

        // pass the response on
        if instance.is_upgraded() {
            self.tunnel(instance).await
        } else {
            self.pass_on(instance).await
        }
    }

    /// Returns a usable token; waits for one if there is none.
    async fn token(&self) -> Result<Arc<Token>, Refusal> {
        let (client, clock) = (&self.context.client, self.context.clock());
        if let Some(token) = client.slot.usable(clock.now()).as_deref()
            && let Some(token) = token
        {
            return Ok(Arc::clone(token));
        }
        let _waiting = client.metrics.waits();
        let waited = client.slot.wait(clock, client.wait_for_token).await;
        waited.map_err(Refusal::from)
    }

    /// Returns a connection to the instance; a new one with `fresh`.
    async fn connect(&mut self, is_upgrade: bool, fresh: bool) -> Result<InstanceSession, Refusal> {
        let protocols = if is_upgrade {
            Protocols::Http1
        } else {
            Protocols::Any
        };
        let (client, now) = (&self.context.client, self.context.clock().now());
        let connected = client.upstream.connect(protocols, fresh, now).await;
        let is_reused = connected.as_ref().map(InstanceSession::is_reused);
        client.metrics.upstream_connection(is_reused.ok());
        connected.map_err(|error| {
            let (problem, timeout) = (error.to_string(), error.is_timeout());
            self.failed(error.kind(), &problem);
            Refusal::Upstream { problem, timeout }
        })
    }

    /// Sends the request and reads the head of the response.
    async fn ask(&mut self, instance: &mut InstanceSession, is_upgrade: bool) -> Result<(), Stop> {
        // the one that was there may have expired while connecting
        let token = self.token().await?;
        self.context.generation = Some(token.generation());
        self.context.sent = Some(self.context.clock().now());
        let upstream = &self.context.client.upstream;
        let has_body = !self.body.is_done() || self.body.bytes > 0;
        let to = Destination {
            host: upstream.host(),
            authority: upstream.authority(),
            is_http2: instance.is_http2(),
            is_upgrade,
            has_body,
        };
        let head = inject::outgoing(self.caller.head(), to, token.authorization());
        let mut head = head.map_err(|_| Refusal::Malformed(Malformed::TargetForm))?;
        let span = self.context.span.as_ref();
        if let Some(parent) = span.and_then(|span| span.traceparent()) {
            // if the field cannot be set, the instance has no parent span
            let _ = head.insert_header(TRACEPARENT, parent);
        }
        let limit = upstream.instance().idle_timeout;
        limited(limit, pin!(instance.write_head(head, !has_body))).await?;
        if has_body {
            limited(limit, pin!(self.send_kept(instance))).await?;
        }
        self.await_head(instance).await
    }

    /// Sends the part of the body that was read earlier.
    async fn send_kept(&self, instance: &mut InstanceSession) -> Result<(), Broken> {
        for part in self.body.kept.iter().flatten() {
            instance.write_body(part.clone()).await?;
        }
        if self.body.is_done() {
            instance.finish().await?;
        }
        Ok(())
    }

    /// Reads the head of the response while sending the body.
    async fn await_head(&mut self, instance: &mut InstanceSession) -> Result<(), Stop> {
        let client = Arc::clone(&self.context.client);
        let limits = client.upstream.instance();
        // HTTP/2 hides interim responses from this code, so it asks for the body itself
        let patience = if instance.is_http2() {
            Duration::ZERO
        } else {
            CONTINUE_PATIENCE
        };
        let now = timers();
        let mut ask_for_body = now + patience;
        let silence = |now| limits.idle_timeout.map(|limit| now + limit);
        let mut silent = silence(now);
        let received = instance.received();
        let mut before = received.as_ref().map(Received::get);
        let mut late = now + limits.header_timeout;
        self.body.is_refused = false;
        let mut unsent: Option<Broken> = None;
        loop {
            let is_announced = self.body.state == BodyState::Announced;
            let mut deadline = silent.map_or(late, |silent| silent.min(late));
            if is_announced {
                deadline = deadline.min(ask_for_body);
            }
            let event = timeout_at(deadline, self.event(pin!(instance.read_head()))).await;
            match event {
                Ok(Event::Instance(Ok(()))) => {
                    if self.is_final(instance).await? {
                        return Ok(());
                    }
                    // the next head starts anew
                    before = received.as_ref().map(Received::get);
                    let now = timers();
                    late = now + limits.header_timeout;
                    silent = silence(now);
                }
                // why the body could not be sent is more informative than the missing response
                Ok(Event::Instance(Err(broken))) => {
                    let says_more = unsent.filter(|_| broken.again == Again::Never);
                    return Err(says_more.unwrap_or(broken).into());
                }
                Ok(Event::Body(read)) => {
                    // if it takes no more, it may have answered anyway
                    if let Err(broken) = self.send(read, instance).await? {
                        unsent = Some(broken);
                    }
                    silent = silence(timers());
                }
                Ok(Event::Caller(error)) => return Err(error.into()),
                Err(_elapsed) => {
                    let now = timers();
                    if silent.is_some_and(|silent| silent <= now) {
                        return Err(Broken::silent(SILENT).into());
                    }
                    if late <= now {
                        // a head that has not started may take its time
                        if received.as_ref().map(Received::get) > before {
                            return Err(Broken::silent(LATE_HEAD).into());
                        }
                        late = now + limits.header_timeout;
                    }
                    if is_announced && ask_for_body <= now {
                        self.caller.write_continue().await?;
                        self.body.state = BodyState::Due;
                        ask_for_body = now;
                    }
                }
            }
        }
    }

    /// Checks a received head, and passes an interim one on. Returns whether it is final.
    async fn is_final(&mut self, instance: &InstanceSession) -> Result<bool, Stop> {
        let head = received(instance)?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let is_asked = instance.is_upgraded() && hop_by_hop::is_websocket(&head.headers);
            let unasked = || Broken::invalid("it switches protocols unasked (101)").into();
            return is_asked.then_some(true).ok_or_else(unasked);
        }
        if !head.status.is_informational() {
            let is_known = hop_by_hop::is_coding_known(&head.headers);
            let unknown = || Broken::invalid("its transfer coding is not known").into();
            return is_known.then_some(true).ok_or_else(unknown);
        }
        if head.status == StatusCode::CONTINUE && self.caller.expects_continue() {
            if self.body.state != BodyState::Announced {
                // the caller was already asked
                return Ok(false);
            }
            self.body.state = BodyState::Due;
        }
        let mut head = Box::new(head.clone());
        hop_by_hop::clean_response(&mut head, self.caller.head()).map_err(internal)?;
        self.caller.write_interim(head).await?;
        Ok(false)
    }

    /// Waits for the instance while reading from the caller.
    async fn event<T>(&mut self, instance: Pin<&mut impl Future<Output = T>>) -> Event<T> {
        let caller = &mut *self.caller;
        let Body {
            state,
            is_refused,
            min_rate,
            ..
        } = &mut self.body;
        let (state, is_refused) = (*state, *is_refused);
        let from_caller = pin!(async {
            match state {
                _ if is_refused => std::future::pending().await,
                BodyState::Done => Err(caller.gone().await),
                BodyState::Announced | BodyState::Due | BodyState::Tunnel => {
                    caller.read_body().await
                }
            }
        });
        let event = tokio::select! {
            biased;
            done = instance => Event::Instance(done),
            read = from_caller => match read {
                Ok(read) => Event::Body(read),
                Err(error) => Event::Caller(error),
            },
            () = poll_fn(|cx| min_rate.wait(cx)), if state == BodyState::Due && !is_refused => {
                Event::Caller(CallerError::TooSlow)
            }
        };
        min_rate.resume();
        event
    }

    /// Sends a received part of the body to the instance, or its end. The inner result is the
    /// instance's. Before a part of a form goes on, it is searched for a method.
    async fn send(
        &mut self,
        read: Option<Bytes>,
        instance: &mut InstanceSession,
    ) -> Result<Result<(), Broken>, Refusal> {
        // a body of known length needs no other end
        let is_last = read.is_none() || self.caller.is_body_done();
        if let Some(form) = &mut self.form {
            let part = read.as_deref().unwrap_or_default();
            let named = form.search(part, is_last);
            for method in named.ok_or(Refusal::Method)? {
                examine::judge_method(&self.context, self.caller.head(), method)?;
            }
        }
        if let Some(part) = &read {
            self.body.received(part);
        }
        if is_last {
            self.body.state = BodyState::Done;
        }
        let sending = pin!(async {
            if let Some(part) = read {
                instance.write_body(part).await?;
            }
            if is_last {
                instance.finish().await?;
            }
            Ok(())
        });
        let limit = self.context.client.upstream.instance().idle_timeout;
        let sent = limited(limit, sending).await;
        self.body.is_refused = sent.is_err();
        Ok(sent)
    }

    /// Returns whether to send the request once more, with another token, after a 401.
    async fn is_replayed(&mut self, instance: &InstanceSession) -> bool {
        let Some(head) = instance.head() else {
            return false;
        };
        let is_due = replay::is_due(&self.context, head.status, self.body.kept.is_some()).await;
        self.context.replayed |= is_due;
        is_due
    }

    /// Returns whether to send the request once more after it broke off.
    fn may_go_again(&self, broken: &Broken) -> bool {
        let may = match broken.again {
            Again::Never => false,
            // RFC 9110, section 9.2.2
            Again::IfIdempotent => self.caller.method().is_idempotent(),
            Again::Always => true,
            Again::OverHttp1 => {
                self.context.client.upstream.prefer_http1();
                true
            }
        };
        may && self.body.kept.is_some()
    }

    /// The head of the response as sent to the caller. The response starts now.
    fn response_head(
        &mut self,
        instance: &mut InstanceSession,
    ) -> Result<Box<ResponseHeader>, Stop> {
        let head = instance.take_head();
        let mut head = Box::new(head.ok_or_else(no_head)?);
        let (context, request) = (&mut self.context, self.caller.head());
        let prefix = context.stripped.as_deref().unwrap_or_default();
        let (id, instance) = (context.id.as_ref(), context.client.upstream.instance());
        let over_tls = context.connection.peer.tls;
        inject::incoming(&mut head, request, id, instance, over_tls, prefix).map_err(internal)?;
        let now = context.clock().now();
        context.upstream = context.sent.map(|sent| now.since(sent));
        Ok(head)
    }

    /// Sends the response to the caller, and returns the connection to the pool.
    async fn pass_on(&mut self, mut instance: InstanceSession) -> Result<After, Stop> {
        let head = self.response_head(&mut instance)?;
        let mut is_ended = has_no_body(self.caller.method(), head.status) || instance.is_complete();
        let length = |value: &HeaderValue| value.to_str().ok()?.parse().ok();
        let mut left: Option<usize> = head.headers.get(CONTENT_LENGTH).and_then(length);
        if is_ended {
            self.context.admitted = None;
        }
        self.announce_end();
        self.context.status = head.status.as_u16();
        self.caller.write_head(head, is_ended).await?;

        let limit = self.context.client.upstream.instance().idle_timeout;
        self.body.is_refused = false;
        while !is_ended {
            self.caller.ready().await?;
            let event = async { Ok(self.event(pin!(instance.read_body())).await) };
            let event = limited(limit, pin!(event)).await?;
            match event {
                Event::Instance(Ok(Some(part))) => {
                    left = left.map(|left| left.saturating_sub(part.as_slice().len()));
                    is_ended = match part {
                        Chunk::Borrowed(_) => left == Some(0),
                        // over HTTP/2 the stream has its own end, which must be awaited
                        Chunk::Owned(_) => false,
                        Chunk::Last(_) => true,
                    };
                    if is_ended || left == Some(0) {
                        self.context.admitted = None;
                    }
                    self.caller.write_body(part, is_ended).await?;
                }
                Event::Instance(Ok(None)) => {
                    is_ended = true;
                    self.context.admitted = None;
                    let end = Chunk::Borrowed(&[]);
                    self.caller.write_body(end, true).await?;
                }
                Event::Instance(Err(broken)) => return Err(broken.into()),
                Event::Caller(error) => return Err(error.into()),
                Event::Body(read) => {
                    // if the instance takes no more of it, the response continues
                    let _unsent = self.send(read, &mut instance).await?;
                }
            }
        }
        let (upstream, now) = (&self.context.client.upstream, self.context.clock().now());
        upstream.health().answered(now);
        if !self.body.is_done() {
            // the response came without the rest of the body
            return Ok(After::Close);
        }
        upstream.release(instance, now).await;
        Ok(After::Keep)
    }

    /// Relays bytes both ways after a 101, until either side ends.
    async fn tunnel(&mut self, mut instance: InstanceSession) -> Result<After, Stop> {
        let head = self.response_head(&mut instance)?;
        self.context.status = head.status.as_u16();
        self.caller.write_head(head, false).await?;
        let health = self.context.client.upstream.health();
        health.answered(self.context.clock().now());
        instance.write_as_tunnel();
        self.body.is_refused = false;
        self.body.state = BodyState::Tunnel;
        loop {
            let event = self.event(pin!(instance.read_body())).await;
            match event {
                Event::Instance(Ok(Some(part))) => self.caller.write_body(part, false).await?,
                Event::Body(Some(read)) => {
                    if instance.write_body(read).await.is_err() {
                        break;
                    }
                }
                Event::Instance(Ok(None) | Err(_)) | Event::Body(None) | Event::Caller(_) => break,
            }
        }
        Ok(After::Close)
    }

    /// Records a failure on the way to the instance or at it.
    fn failed(&mut self, kind: Kind, problem: &str) {
        self.context.error = Some(problem.to_owned());
        let client = &self.context.client;
        client.metrics.upstream_error(kind);
        let health = client.upstream.health();
        health.failed(self.context.clock().now(), kind, problem);
    }

    /// Makes the response announce the end of the connection, if it ends.
    fn announce_end(&mut self) {
        if self.context.connection.listening.is_ending() {
            self.caller.close_after();
        }
    }

    /// Ends the request: sends a refusal, or makes a truncated response visible to the caller.
    async fn conclude(&mut self, served: Result<After, Stop>) -> After {
        self.context.admitted = None;
        let mut cut = None;
        let refusal = match served {
            Ok(after) => return after,
            Err(Stop::Refused(refusal)) => Some(refusal),
            Err(Stop::Caller(error)) => {
                self.context.error = Some(error.to_string());
                match error {
                    CallerError::TooSlow => Some(Refusal::SlowBody),
                    CallerError::Malformed => Some(Refusal::Unreadable),
                    CallerError::Gone => {
                        cut = Some(Cut::ClientClosed);
                        None
                    }
                }
            }
            Err(Stop::Broken(Broken { problem, kind, .. })) => {
                self.failed(kind, &problem);
                cut = Some(Cut::UpstreamReset);
                let timeout = kind == Kind::Timeout;
                Some(Refusal::Upstream { problem, timeout })
            }
        };
        match refusal {
            Some(refusal) if self.context.status == 0 => self.refuse(refusal).await,
            refusal => {
                self.caller.abort();
                self.context.cut = cut;
                let reason = refusal.map(|refusal| refusal.reason().label().to_owned());
                self.context.error = self.context.error.take().or(reason);
                After::Close
            }
        }
    }

    async fn refuse(&mut self, refusal: Refusal) -> After {
        let reason = refusal.reason();
        let app = self.context.app().map_or("", |app| app);
        self.context.state.metrics.refused(reason, app);
        self.context.refused = Some(reason);
        self.announce_end();
        let is_over = refusal.ends_connection() || *self.caller.method() == Method::CONNECT;
        if is_over {
            self.caller.close_after();
        }
        let answer = respond::answer(&refusal);
        let status = answer.status;
        match answer.send(self.caller, self.context.id.as_ref()).await {
            Ok(()) => self.context.status = status.as_u16(),
            Err(_) => {
                self.context.cut = Some(Cut::ClientClosed);
                return After::Close;
            }
        }
        if is_over { After::Close } else { After::Keep }
    }
}

/// The head that was received of the response.
fn received(instance: &InstanceSession) -> Result<&ResponseHeader, Broken> {
    instance.head().ok_or_else(no_head)
}

fn no_head() -> Broken {
    Broken::invalid("there is no head of a response")
}

/// A header could not be set; impossible with the values that this program sets.
fn internal(_: Box<pingora::Error>) -> Stop {
    Broken::invalid("its head cannot be passed on").into()
}
