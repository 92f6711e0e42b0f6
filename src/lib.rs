//! scaffold
pub mod admin;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod client_id;
pub mod clock;
pub mod config;
pub mod oauth;
pub mod proxy;
pub mod random;
pub mod secret;
pub mod simulator;
pub mod telemetry;
pub mod tls;
pub mod token;
