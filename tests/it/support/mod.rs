//! The kit that tests and benchmarks share, and what only these tests need.

pub(crate) mod browser;
pub(crate) mod certificate;
#[cfg(feature = "kubernetes")]
pub(crate) mod cluster;
pub(crate) mod forward;
pub(crate) mod frames;
pub(crate) mod h2_caller;
pub(crate) mod h2_origin;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
pub(crate) mod lenient;
pub(crate) mod recorder;
pub(crate) mod relay;
pub(crate) mod strict;
pub(crate) mod tls;

pub(crate) use kit::{
    Connection, Origin, PATIENCE, Proxy, Simulator, file, http, load, network, origin, process,
    proxy, redis, request, simulator, until, wait,
};

/// The origin that hands over each request once it has the head.
pub(crate) mod raw_origin {
    pub(crate) use kit::origin::{Line, RawOrigin};
}

/// A simulated Collibra, and a proxy in front of it that holds a token.
pub(crate) fn pair() -> (Simulator, Proxy) {
    let simulator = Simulator::start();
    let proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    (simulator, proxy)
}

/// A file created by tests/setup.
pub(crate) fn made(path: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(
        path.exists(),
        "{} is missing: run tests/setup, which makes it",
        path.display()
    );
    path
}
