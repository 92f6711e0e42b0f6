//! A reverse proxy that holds one Collibra access token for all programs that call Collibra.
//!
//! # The map
//!
//! A file imports only from lower floors; a test checks every import.
//!
//! ```text
//! 6  cli            one file per command: arguments -> a call -> an exit status
//! 5  server         the composition root: a Config -> a running server, and its replacement
//! 4  config         a file or flags -> each module's own Config; collects every fault
//! 3  proxy          the data path, on pingora's sessions: accept, http1, http2, exchange
//!                   (one request, top to bottom), examine, inject, replay, respond
//!    admin          health, metrics, status page
//! 2  oauth          the token endpoint's client: request, response, how to quote its issuer
//!    registration   Collibra's client registration and management
//!    downstream     a caller's connection: TLS, its other end, idleness, the minimum rate
//!    upstream       an instance, the connections to it, and how calls of its API did
//!    store          where a token outlives the process: memory, file, redis, kubernetes (a
//!                   feature, which is on by default); sealed
//!    trace          spans of requests and token requests, over OTLP
//! 1  local_authority  certifies the instances' hosts to apps that call them through the proxy
//!    local_token    the tokens of apps that request one here or log in
//!    token          the engine: budget, schedule, cache, and the loop around them
//!    policy         what may be forwarded: the readings of a head, patterns, limits
//!    outgoing       the way to a server: DNS, addresses and their health, happy eyeballs, forward
//!                   proxies, TLS; the HTTP client for requests of the program's own
//! 0  atomic_file  backoff  browser  client_id  clock  descriptors  memory  process  random
//!    secret  service_manager  socket  telemetry  tls
//!
//! aside  simulator  a simulated Collibra (a feature, which is on by default); imports nothing, so
//!                   that it shares no misunderstanding
//! ```
//!
//! **A token's path**: [`config`] -> [`secret`] -> [`token::schedule`] (is a request due?) ->
//! [`token::budget`] (does the pool allow it?) -> [`oauth`] -> [`store`] -> [`token::cache`] ->
//! `proxy::inject`.
//!
//! **A request's**: [`socket`] -> `proxy::accept` -> `proxy::http1` or `proxy::http2` (its head) ->
//! `proxy::exchange`, which asks in turn: `proxy::examine` ([`policy::head`], [`policy::target`],
//! [`browser`], `proxy::identity`, [`policy::rules`], [`policy::limit`]), the token, [`upstream`],
//! `proxy::inject`, (a 401: `proxy::replay`, and once more), the response, the access log, the
//! metrics.
//!
//! **A change of the configuration**: [`config::watch`] (a file changed) -> the configuration is
//! read as at the start -> [`config::reload`] (what is different?) -> [`server`] builds new parts
//! -> new settings for [`token::service`], a state for each [`proxy::listener`].
//!
//! **An upgrade**: SIGUSR2 -> `cli::successor` starts the new process -> [`server::handoff`] hands
//! off the sockets ([`socket::inherited`]) and the tokens, sealed as a [`store::record`] -> the new
//! process serves -> the old one drains.
//!
//! # Invariants
//!
//! - A request never goes upstream without a usable token, and a token goes nowhere else.
//! - A failed renewal never drops a token that is still valid, and never ends the loop.
//! - No token request exceeds the mirrored pool.
//! - A request takes no lock for the token and formats nothing: one arc-swap load of a header value
//!   that was built when the token came.
//! - A request keeps the configuration with which it began; a faulty one changes nothing.
//! - Nothing prints a secret.

pub mod admin;

pub mod atomic_file;
pub mod backoff;
pub mod browser;
pub mod cli;
pub mod client_id;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod downstream;
pub mod local_authority;
pub mod local_token;
pub mod memory;
pub mod oauth;
pub mod outgoing;
pub mod policy;
pub mod process;
pub mod proxy;
pub mod random;
pub mod registration;
pub mod secret;
pub mod server;
pub mod service_manager;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod trace;
pub mod upstream;
