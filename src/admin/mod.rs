//! The admin address: whether the process turns, whether it is ready, its numbers, and a page
//! about both for people.
//!
//! Ready means that every client *holds* a token that may be sent, not that the issuer can be
//! reached: an outage that the tokens in hand outlive is none for the apps.
//!
//! Promises: everything here can be read by anyone who can connect, but by no web page (`guard`), so
//! nothing here is a token, a secret or a key; nothing here changes anything but the POST routes, which
//! are for programs of this machine only, as is the configuration; a slow or silent caller is let go.

mod actions;
mod connection;
mod events;
mod guard;
pub mod history;
mod local;
mod page;
mod ready;
pub mod report;
mod reserve;
mod routes;
mod server;
mod view;

pub use actions::{LogLevel, Renewing};
pub use server::serve;
pub use view::{AppView, Certificate, ClientView, ListenerView, Parts, Past, Refused, View};
