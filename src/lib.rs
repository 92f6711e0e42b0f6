//! scaffold
pub mod admin;
pub mod backoff;
pub mod cli;
pub mod client_id;
pub mod clock;
pub mod oauth;
pub mod proxy;
pub mod random;
pub mod secret;
pub mod telemetry;
pub mod token;
