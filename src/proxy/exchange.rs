//! Serves one request, from its head to its access log line. Read this file first.
//!
//! [`serve`] is the whole path: examine the head, wait for a token, connect, send, read the
//! response's head, pass the response on. Three cases repeat the loop once: a connection that
//! cannot be opened, one that turns out to be closed, and a 401 to the token. Every response of the
//! proxy's own ends it as a [`Stop`].

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use tokio::time::{timeout, timeout_at};

use super::caller::{Caller, CallerError};
use super::context::Context;
use super::examine::{self, Disposition};
use super::form_method::{FormMethod, NoMethod};
use super::hop_by_hop;
use super::inject::{self, ClientView, Destination, REQUEST_ID};
use super::listener::Listening;
use super::listener_state::Client;
use super::local::{self, Endpoint};
use super::peer::Peer;
use super::record::{self, Sent};
use super::replay::{self, Unauthorized};
use super::request_body::{Body, BodyState, Reading};
use super::respond::{self, Refusal};
use super::stop::{Settled, Stop, internal};
use super::target::Malformed;
use crate::clock::{Clock, timers};
use crate::outgoing::dial::{Kind, Protocols};
use crate::telemetry::Cut;
use crate::token::token::Token;
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

/// Serves the request of `caller`, which came from `peer`; `malformed` is what is wrong with the
/// bytes of its head.
pub(super) async fn serve(
    caller: &mut Caller,
    peer: &Peer,
    listening: &Listening,
    malformed: Option<Malformed>,
) -> After {
    let clock = &*listening.clock;
    let mut context = Context::new(listening.state.load_full(), clock.now(), peer.tls);
    context.begin_span(caller.head(), clock);
    let mut exchange = Exchange {
        body: Body::of(caller, context.state.listener.min_body_rate),
        caller,
        listening,
        context: &mut context,
        clock,
        form: None,
        status: 0,
        cut: None,
    };
    let served = match malformed {
        // the start of the next request is unknown
        Some(why) => Err(Refusal::Malformed(why).into()),
        None => exchange.run(peer).await,
    };
    let (after, error) = exchange.conclude(served).await;
    let (status, cut, request_bytes) = (exchange.status, exchange.cut, exchange.body.bytes);
    context.ends();
    record::write(
        caller,
        peer,
        &mut context,
        clock,
        Sent {
            status,
            cut,
            request_bytes,
            error,
        },
    );
    after
}

/// A request in progress.
struct Exchange<'a> {
    caller: &'a mut Caller,
    listening: &'a Listening,
    context: &'a mut Context,
    clock: &'a dyn Clock,
    body: Body,
    /// Its body, if that is a form.
    form: Option<FormMethod>,
    /// The status sent to the caller; 0 if none yet.
    status: u16,
    /// Which side ended it early.
    cut: Option<Cut>,
}

/// The next event while a request's body goes one way and its response comes the other.
enum Event<T> {
    /// The instance sent what was awaited.
    Instance(T),
    /// The caller sent a part of the body, or its end.
    Body(Option<Bytes>),
    /// The caller gave up, or its body is invalid.
    Caller(CallerError),
}

impl Exchange<'_> {
    async fn run(&mut self, peer: &Peer) -> Result<After, Stop> {
        // is it allowed, and who sent it?
        self.context.id = inject::request_id(self.caller.head());
        let head = self.caller.head_mut();
        let next = examine::examine(self.context, head, peer, self.clock)?;
        if let Disposition::Answer(endpoint) = next {
            return self.answer(endpoint).await;
        }
        self.form = FormMethod::of(self.caller.method(), &self.caller.head().headers);
        self.context.begin_in_flight();
        self.hold_token().await?;
        let is_upgrade = self.context.state.listener.upgrades
            && self.body.is_done()
            && hop_by_hop::asks_for_websocket(self.caller.head());

        // send it, and again if needed
        let mut is_retried = false;
        let instance = loop {
            let mut instance = self.connect(is_upgrade, is_retried).await?;
            let broken = match self.ask(&mut instance, is_upgrade).await? {
                Ok(()) if self.is_replayed(&instance).await => continue,
                Ok(()) => break instance,
                Err(broken) => broken,
            };
            if is_retried || !self.may_go_again(&broken) {
                return Err(broken.into());
            }
            is_retried = true;
        };

        // pass the response on
        if instance.is_upgraded() {
            self.tunnel(instance).await
        } else {
            self.pass_on(instance).await
        }
    }

    /// Answers a request for a local token or a session.
    async fn answer(&mut self, endpoint: Endpoint) -> Result<After, Stop> {
        let answered = local::answer(endpoint, self.caller, self.context, self.listening).await?;
        let answer = answered?;
        self.say_farewell();
        self.status = answer.status().as_u16();
        answer.send(self.caller, self.context.id.as_ref()).await?;
        Ok(After::Keep)
    }

    /// Waits for a usable token.
    async fn hold_token(&self) -> Result<(), Refusal> {
        let client = &self.context.client;
        if client.slot.usable(self.clock.now()).is_none() {
            self.wait_for_token().await?;
        }
        Ok(())
    }

    async fn wait_for_token(&self) -> Result<Arc<Token>, Refusal> {
        let client = &self.context.client;
        let _waiting = client.metrics.waits();
        let waited = client.slot.wait(self.clock, client.wait_for_token).await;
        waited.map_err(Refusal::from)
    }

    /// Returns a connection to the instance; a new one with `fresh`.
    async fn connect(&self, is_upgrade: bool, fresh: bool) -> Result<InstanceSession, Refusal> {
        let protocols = if is_upgrade {
            Protocols::Http1
        } else {
            Protocols::Any
        };
        let Client {
            upstream, metrics, ..
        } = &*self.context.client;
        let connected = upstream.connect(protocols, fresh, self.clock.now()).await;
        let is_reused = connected.as_ref().map(InstanceSession::is_reused);
        metrics.upstream_connection(is_reused.ok());
        Ok(connected?)
    }

    /// Sends the request and reads the head of the response. The inner result is the instance's.
    async fn ask(
        &mut self,
        instance: &mut InstanceSession,
        is_upgrade: bool,
    ) -> Result<Result<(), Broken>, Stop> {
        let client = Arc::clone(&self.context.client);
        let now = self.clock.now();
        let held = client.slot.usable(now);
        let token = match held.as_deref().and_then(Option::as_ref) {
            Some(token) => Arc::clone(token),
            // the token expired while connecting
            None => self.wait_for_token().await?,
        };
        drop(held);
        self.context.goes_out(&token, self.clock.now());
        let has_body = !self.body.is_done() || self.body.bytes > 0;
        let to = Destination {
            host: client.upstream.host(),
            authority: client.upstream.authority(),
            is_http2: instance.is_http2(),
            is_upgrade,
            has_body,
        };
        let head = inject::outgoing(self.caller.head(), to, token.authorization());
        let mut head = head.map_err(|_| Refusal::Malformed(Malformed::TargetForm))?;
        self.context.inject_span(&mut head);
        let limit = client.upstream.instance().idle_timeout;
        if let Err(broken) = limited(limit, instance.write_head(head, !has_body)).await {
            return Ok(Err(broken));
        }
        if has_body && let Err(broken) = limited(limit, self.send_kept(instance)).await {
            return Ok(Err(broken));
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

    /// Reads the head of the response while sending the body. The inner result is the instance's.
    async fn await_head(
        &mut self,
        instance: &mut InstanceSession,
    ) -> Result<Result<(), Broken>, Stop> {
        let client = Arc::clone(&self.context.client);
        let limits = client.upstream.instance();
        // HTTP/2 hides interim responses from this code, so it asks for the body itself
        let patience = if instance.is_http2() {
            Duration::ZERO
        } else {
            CONTINUE_PATIENCE
        };
        let mut ask_for_body = timers() + patience;
        let silence = || limits.idle_timeout.map(|limit| timers() + limit);
        let mut silent = silence();
        let received = instance.received();
        let mut before = received.as_ref().map(Received::get);
        let mut late = timers() + limits.header_timeout;
        let mut reading = self.body.reading();
        let mut unsent: Option<Broken> = None;
        loop {
            let is_announced = self.body.state == BodyState::Announced;
            let mut deadline = silent.map_or(late, |silent| silent.min(late));
            if is_announced {
                deadline = deadline.min(ask_for_body);
            }
            let event = self.event(reading, instance.read_head());
            let read = match timeout_at(deadline, event).await {
                Ok(Event::Instance(Ok(()))) => {
                    if let Some(judged) = self.judge_head(instance).await? {
                        return Ok(judged);
                    }
                    // the next head starts anew
                    before = received.as_ref().map(Received::get);
                    late = timers() + limits.header_timeout;
                    silent = silence();
                    continue;
                }
                // why the body could not be sent is more informative than the missing response
                Ok(Event::Instance(Err(broken))) => {
                    let says_more = unsent.filter(|_| broken.again == Again::Never);
                    return Ok(Err(says_more.unwrap_or(broken)));
                }
                Ok(Event::Body(read)) => read,
                Ok(Event::Caller(error)) => return Err(error.into()),
                Err(_elapsed) => {
                    let now = timers();
                    if silent.is_some_and(|silent| silent <= now) {
                        return Ok(Err(Broken::silent(SILENT)));
                    }
                    if late <= now {
                        // a head that has not started may take its time
                        if received.as_ref().map(Received::get) > before {
                            return Ok(Err(Broken::silent(LATE_HEAD)));
                        }
                        late = now + limits.header_timeout;
                    }
                    if is_announced && ask_for_body <= now {
                        self.caller.write_continue().await?;
                        self.body.state = BodyState::Due;
                        ask_for_body = now;
                    }
                    continue;
                }
            };
            self.judge_body(read.as_ref())?;
            reading = match self.send(read, instance).await {
                Ok(()) => self.body.reading(),
                // it may have answered anyway
                Err(broken) => {
                    unsent = Some(broken);
                    Reading::Nothing
                }
            };
            silent = silence();
        }
    }

    /// Examines a received head. An interim one is passed on; `None` means that the next one must
    /// be read.
    async fn judge_head(
        &mut self,
        instance: &InstanceSession,
    ) -> Result<Option<Result<(), Broken>>, Stop> {
        let Some(head) = instance.head() else {
            return Ok(Some(Err(Broken::invalid("there is no head of a response"))));
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let is_asked = instance.is_upgraded() && hop_by_hop::is_websocket(&head.headers);
            let unasked = || Broken::invalid("it switches protocols unasked (101)");
            return Ok(Some(is_asked.then_some(()).ok_or_else(unasked)));
        }
        if !head.status.is_informational() {
            let unknown = || Broken::invalid("its transfer coding is not known");
            let is_known = hop_by_hop::is_coding_known(&head.headers);
            return Ok(Some(is_known.then_some(()).ok_or_else(unknown)));
        }
        if head.status == StatusCode::CONTINUE && self.caller.expects_continue() {
            if self.body.state != BodyState::Announced {
                // the caller was already asked
                return Ok(None);
            }
            self.body.state = BodyState::Due;
        }
        let mut head = Box::new(head.clone());
        let (method, version) = (self.caller.method().clone(), self.caller.version());
        hop_by_hop::clean_response(&mut head, &method, version).map_err(internal)?;
        self.caller.write_interim(head).await?;
        Ok(None)
    }

    /// Waits for the instance while reading from the caller.
    async fn event<T>(&mut self, reading: Reading, instance: impl Future<Output = T>) -> Event<T> {
        let caller = &mut *self.caller;
        let Body {
            state, min_rate, ..
        } = &mut self.body;
        let is_due = *state == BodyState::Due;
        let from_caller = async {
            match reading {
                Reading::Body => caller.read_body().await,
                Reading::End => Err(caller.gone().await),
                Reading::Nothing => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            done = instance => Event::Instance(done),
            read = from_caller => match read {
                Ok(read) => Event::Body(read),
                Err(error) => Event::Caller(error),
            },
            () = poll_fn(|cx| min_rate.wait(cx)), if is_due && reading == Reading::Body => {
                Event::Caller(CallerError::TooSlow)
            }
        };
        min_rate.resume();
        event
    }

    /// Looks into a part of a form, before it goes on, for a method that is named there.
    fn judge_body(&mut self, read: Option<&Bytes>) -> Result<(), Refusal> {
        let Some(form) = &mut self.form else {
            return Ok(());
        };
        let is_last = read.is_none() || self.caller.is_body_done();
        let part = read.map(Bytes::as_ref).unwrap_or_default();
        let named = form
            .came(part, is_last)
            .map_err(|NoMethod| Refusal::Method)?;
        let mut named = named.into_iter();
        named.try_for_each(|method| examine::judge_method(self.context, self.caller.head(), method))
    }

    /// Sends a received part of the body to the instance.
    async fn send(
        &mut self,
        read: Option<Bytes>,
        instance: &mut InstanceSession,
    ) -> Result<(), Broken> {
        let limit = self.context.client.upstream.instance().idle_timeout;
        let is_last = match &read {
            Some(part) => {
                self.body.came(part);
                // a body of known length needs no other end
                self.caller.is_body_done()
            }
            None => true,
        };
        if is_last {
            self.body.state = BodyState::Done;
        }
        let sending = async {
            if let Some(part) = read {
                instance.write_body(part).await?;
            }
            if is_last {
                instance.finish().await?;
            }
            Ok(())
        };
        limited(limit, sending).await
    }

    /// Returns whether to send the request once more, with another token, after a 401.
    async fn is_replayed(&mut self, instance: &InstanceSession) -> bool {
        let Some((head, generation)) = instance.head().zip(self.context.generation) else {
            return false;
        };
        let asked = Unauthorized {
            generation,
            replayed: self.context.replayed,
            body_at_hand: self.body.is_at_hand(),
        };
        let next = replay::decide(&self.context.client, self.clock, head.status, asked).await;
        let again = next == replay::ReplayDecision::SendAgain;
        self.context.replayed |= again;
        again
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
        may && self.body.is_at_hand()
    }

    /// The head of the response as sent to the caller.
    fn response_head(
        &mut self,
        instance: &InstanceSession,
    ) -> pingora::Result<Option<Box<ResponseHeader>>> {
        let Some(head) = instance.head() else {
            return Ok(None);
        };
        let mut head = Box::new(head.clone());
        let request = self.caller.head();
        hop_by_hop::clean_response(&mut head, &request.method, request.version)?;
        if let Some(id) = &self.context.id
            && !head.headers.contains_key(REQUEST_ID)
        {
            head.insert_header(REQUEST_ID, id.clone())?;
        }
        let way = ClientView {
            scheme: if self.context.over_tls {
                "https"
            } else {
                "http"
            },
            host: request.headers.get(HOST),
            prefix: self.context.stripped.as_deref().unwrap_or_default(),
        };
        inject::incoming(&mut head, self.context.client.upstream.instance(), way)?;
        Ok(Some(head))
    }

    /// Sends the response to the caller, and returns the connection to the pool.
    async fn pass_on(&mut self, mut instance: InstanceSession) -> Result<After, Stop> {
        let head = self.response_head(&instance).map_err(internal)?;
        let Some(head) = head else {
            return Err(Broken::invalid("there is no head of a response").into());
        };
        self.note_response();
        let status = head.status;
        let is_empty = has_no_body(self.caller.method(), status) || instance.is_complete();
        let mut left = length(&head);
        if is_empty {
            self.context.ends();
        }
        self.say_farewell();
        self.status = status.as_u16();
        self.caller.write_head(head, is_empty).await?;

        let mut is_ended = is_empty;
        let mut reading = self.body.reading();
        let limit = self.context.client.upstream.instance().idle_timeout;
        while !is_ended {
            self.caller.ready().await?;
            let event = limited_event(limit, self.event(reading, instance.read_body())).await;
            let read = match event {
                Event::Instance(Ok(Some(part))) => {
                    left = left.map(|left| left.saturating_sub(part.as_slice().len()));
                    if left == Some(0) {
                        self.context.ends();
                        // over HTTP/2 the stream has its own end, which must be awaited
                        is_ended = !matches!(part, Chunk::Owned(_));
                    }
                    self.caller.write_body(part, is_ended).await?;
                    continue;
                }
                Event::Instance(Ok(None)) => {
                    is_ended = true;
                    self.context.ends();
                    let end = Chunk::Borrowed(&[]);
                    self.caller.write_body(end, true).await?;
                    continue;
                }
                Event::Instance(Err(broken)) => return Err(Stop::Cut(broken)),
                Event::Caller(error) => return Err(error.into()),
                Event::Body(read) => read,
            };
            self.judge_body(read.as_ref())?;
            reading = match self.send(read, &mut instance).await {
                Ok(()) => self.body.reading(),
                // the response continues
                Err(_) => Reading::Nothing,
            };
        }
        let (upstream, now) = (&self.context.client.upstream, self.clock.now());
        upstream.health().answered(now);
        if !self.body.is_done() {
            // the response came without the rest of the body
            return Ok(After::Close);
        }
        upstream.release(instance, now).await;
        Ok(After::Keep)
    }

    /// Records that the instance's response starts.
    fn note_response(&mut self) {
        let now = self.clock.now();
        self.context.upstream = self.context.sent.map(|sent| now.since(sent));
    }

    /// Relays bytes both ways after a 101, until either side ends.
    async fn tunnel(&mut self, mut instance: InstanceSession) -> Result<After, Stop> {
        let head = self.response_head(&instance).map_err(internal)?;
        let Some(head) = head else {
            return Err(Broken::invalid("there is no head of a response").into());
        };
        self.status = head.status.as_u16();
        self.note_response();
        self.caller.write_head(head, false).await?;
        let health = self.context.client.upstream.health();
        health.answered(self.clock.now());
        instance.write_as_tunnel();
        loop {
            let read = match self.event(Reading::Body, instance.read_body()).await {
                Event::Instance(Ok(Some(part))) => {
                    self.caller.write_body(part, false).await?;
                    continue;
                }
                Event::Instance(Ok(None) | Err(_)) | Event::Body(None) | Event::Caller(_) => {
                    break;
                }
                Event::Body(Some(read)) => read,
            };
            if instance.write_body(read).await.is_err() {
                break;
            }
        }
        Ok(After::Close)
    }

    /// Counts a call that failed on the way to the instance or at it.
    fn upstream_failed(&self, kind: Kind, problem: &str) {
        let client = &self.context.client;
        client.metrics.upstream_error(kind);
        let now = self.clock.now();
        client.upstream.health().failed(now, kind, problem);
    }

    /// Makes the response announce the end of the connection, if it ends.
    fn say_farewell(&mut self) {
        if self.listening.is_ending() {
            self.caller.close_after();
        }
    }

    /// Ends the request: sends the refusal, or makes a truncated response visible to the caller.
    /// Returns what happens to the connection, and the log's outcome.
    async fn conclude(&mut self, served: Result<After, Stop>) -> (After, Option<String>) {
        self.context.ends();
        let stop = match served {
            Ok(after) => return (after, None),
            Err(stop) => stop,
        };
        if let Some((kind, problem)) = stop.upstream_failure() {
            self.upstream_failed(kind, problem);
        }
        let (refusal, error) = match stop.settle(self.status != 0) {
            Settled::Answer(refusal, error) => (refusal, error),
            Settled::Cut(error, cut) => {
                self.caller.abort();
                self.cut = cut;
                return (After::Close, Some(error));
            }
        };
        let app = self.context.app().map_or("", |app| app);
        self.context.state.metrics.refused(refusal.reason(), app);
        self.say_farewell();
        let answer = respond::answer(&refusal);
        let is_over = refusal.ends_connection() || *self.caller.method() == Method::CONNECT;
        if is_over {
            self.caller.close_after();
        }
        self.context.refusal = Some(refusal);
        let status = answer.status();
        let sent = answer.send(self.caller, self.context.id.as_ref()).await;
        match sent {
            Ok(()) => self.status = status.as_u16(),
            Err(_) => self.cut = Some(Cut::ClientClosed),
        }
        let after = if sent.is_ok() && !is_over {
            After::Keep
        } else {
            After::Close
        };
        (after, error)
    }
}

/// Waits for the next event, within `limit` if there is one.
async fn limited_event<T>(
    limit: Option<Duration>,
    event: impl Future<Output = Event<Result<T, Broken>>>,
) -> Event<Result<T, Broken>> {
    match limit {
        None => event.await,
        Some(limit) => match timeout(limit, event).await {
            Ok(event) => event,
            Err(_elapsed) => Event::Instance(Err(Broken::silent(SILENT))),
        },
    }
}

/// The length of the response's body, if its head has it.
fn length(head: &ResponseHeader) -> Option<usize> {
    head.headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
