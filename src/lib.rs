//! A reverse proxy that holds one Collibra access token for all programs that call Collibra.
//!
//! # The map
//!
//! A file imports only from floors below its own; a test holds the code against this picture.
//!
//! ```text
//! 6  cli            one file a command: what was typed -> a call -> an exit status
//! 5  app            the one composition root: a Config -> a running server; another in its place
//! 4  config         a file or flags -> each module's own Config; collects every fault
//! 3  proxy          the data path, on pingora's sessions: listener, connection, http2, exchange
//!                   (one request, top to bottom), examine, inject, replay, respond
//!    admin          health, metrics, status page
//! 2  oauth          the token endpoint's client: request, response, error
//!    registration   Collibra's client registration and management
//!    upstream       an instance, the connections to it, and how calls of its API did
//!    store          where a token outlives the process: memory, file, redis, kubernetes (a
//!                   feature, which is on by default); sealed
//!    trace          spans of requests and token requests, over OTLP
//! 1  local_token    what apps get that ask here for a token or log in
//!    token          the engine: budget, schedule, cache, and the loop around them
//!    outgoing       the way to a server: DNS, addresses and their health, happy eyeballs, forward
//!                   proxies, TLS; the HTTP client for requests of the program's own
//! 0  atomic_file  backoff  browser  client_id  clock  process  random  secret  service_manager
//!    socket  telemetry  tls
//!
//! aside  simulator  a simulated Collibra; imports nothing, so that it shares no misunderstanding
//! ```
//!
//! **A token's journey**: [`config`] -> [`secret`] -> [`token::schedule`] (is one due?) ->
//! [`token::budget`] (does the pool allow it?) -> [`oauth`] -> [`store`] -> [`token::cache`] ->
//! `proxy::inject`.
//!
//! **A request's**: [`socket`] -> [`proxy::listener`] -> `proxy::connection` or `proxy::http2` (its
//! head) -> `proxy::exchange`, which asks in turn: [`proxy::head`], `proxy::examine`
//! ([`proxy::target`], [`browser`], `proxy::identify`, [`proxy::policy`], [`proxy::limit`]), the
//! token, [`upstream`], `proxy::inject`, (a 401: `proxy::replay`, and once more), the response,
//! the access log, the metrics.
//!
//! **A change's**, while the proxy runs: [`config::watch`] (a file says something else) -> the
//! configuration is read as at the start -> [`config::reload`] (what is different?) -> [`app`] makes
//! what is new -> orders to [`token::service`], a plan to [`proxy::listener`].
//!
//! **A successor's**: SIGUSR2 -> `cli::successor` starts it -> [`app::handover`] gives it the sockets
//! ([`socket::inherited`]) and the tokens ([`store::handed`]) -> it serves -> the old one drains.
//!
//! # What stays true
//!
//! - A request never goes upstream without a usable token, and a token goes nowhere else.
//! - A failed renewal never drops a token that is still good, and never ends the loop.
//! - No token request is made that the mirrored pool does not allow.
//! - On a request's way no lock is taken for the token and nothing is formatted: one arc-swap load,
//!   a header value made when the token came.
//! - A request ends by the configuration by which it began; a faulty one changes nothing.
//! - Nothing prints a secret.

pub mod admin;
pub mod app;
pub mod atomic_file;
pub mod backoff;
pub mod browser;
pub mod cli;
pub mod client_id;
pub mod clock;
pub mod config;
pub mod local_token;
pub mod oauth;
pub mod outgoing;
pub mod process;
pub mod proxy;
pub mod random;
pub mod registration;
pub mod secret;
pub mod service_manager;
pub mod simulator;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod trace;
pub mod upstream;
