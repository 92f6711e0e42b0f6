//! The tests' own small language: a simulated Collibra, a proxy in front of it, and an app that
//! speaks HTTP byte for byte.
//!
//! Everything that is started here ends on drop. Every wait is for something observable, with a
//! timeout that only a failure reaches.

pub(crate) mod browser;
pub(crate) mod certificate;
#[cfg(feature = "kubernetes")]
pub(crate) mod cluster;
pub(crate) mod forward;
pub(crate) mod frames;
pub(crate) mod h2_caller;
pub(crate) mod h2_origin;
pub(crate) mod http;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
pub(crate) mod lenient;
pub(crate) mod network;
pub(crate) mod origin;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw_origin;
pub(crate) mod recorder;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod request;
pub(crate) mod simulator;
pub(crate) mod strict;
pub(crate) mod tls;
pub(crate) mod wait;

pub(crate) use http::Connection;
pub(crate) use origin::Origin;
pub(crate) use proxy::Proxy;
pub(crate) use simulator::Simulator;
pub(crate) use wait::{PATIENCE, until};

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

/// Creates a file; returns its directory, which deletes it on drop, and its path.
pub(crate) fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}
