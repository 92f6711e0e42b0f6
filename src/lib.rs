//! scaffold
pub mod backoff;
pub mod client_id;
pub mod clock;
pub mod oauth;
pub mod proxy;
pub mod random;
pub mod secret;
pub mod tls;
pub mod token;
