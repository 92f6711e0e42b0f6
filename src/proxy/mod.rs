//! The data path: handles a request between its listener and Collibra.
//!
//! A request's walk: `accept` accepts a connection of a [`listener`] ([`crate::downstream`]),
//! `http1` or `http2` reads heads from it, and `exchange` serves each request from its head to its
//! line in the log. It asks `examine` ([`crate::policy`], [`crate::browser`], `identity`: may it go
//! on, and as whom?), the client's token, [`crate::upstream`] (a connection), `inject` and
//! `hop_by_hop` (what is sent), `replay` (once more after a 401?), and passes the response on. At a
//! forward listener, `connect` comes first: it opens the tunnel that a caller requests, to an
//! instance ([`forward`]) or, by `relay`, to another host. `caller` and
//! [`crate::upstream::session`] are the two sides, whatever version of HTTP each speaks. The
//! proxy's own responses come from `local` (local tokens) and [`respond`] (refusals).
//!
//! The files are layered: none imports one that imports it. From the top: `accept`, `connect`,
//! `http1` and `http2`, `exchange`, and the files that it asks. Each layer passes its `connection`,
//! or a request's `context`, to the next.
//!
//! Guarantees: nothing is sent to the instance without a usable token, and a token goes nowhere
//! else. Bodies are streamed in both directions, never buffered. A response has no total deadline,
//! and one that is truncated upstream is truncated downstream. A change of the configuration
//! applies to the next request.
//!
//! Only this module, [`crate::upstream`] and [`crate::downstream`] know pingora and h2.

mod accept;
mod answer;
pub mod app;
mod caller;
pub mod client;
pub mod config;
mod connect;
mod connection;
mod context;
mod examine;
mod exchange;
pub mod forward;
mod hop_by_hop;
mod http1;
mod http2;
mod identity;
mod inject;
pub mod listener;
pub mod listener_state;
mod local;
mod record;
mod relay;
pub mod replay;
mod request_body;
pub mod respond;
mod stop;

pub use listener::Listening;
