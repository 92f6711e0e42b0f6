//! The small language that the tests are written in: a simulated Collibra, a proxy in front of it,
//! an app that speaks HTTP to the byte.
//!
//! Whatever is started here ends when it is dropped. Everything that takes time is waited for by
//! what can be seen of it, with a deadline that only a fault can reach.

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

/// A simulated Collibra and a proxy in front of it that holds a token.
pub(crate) fn pair() -> (Simulator, Proxy) {
    let simulator = Simulator::start();
    let proxy = Proxy::to(&simulator.url()).start();
    proxy.has_token();
    (simulator, proxy)
}

/// A file that tests/run makes.
pub(crate) fn made(path: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(
        path.exists(),
        "{} is missing: run tests/run, which makes it",
        path.display()
    );
    path
}

/// A file's directory and its path; the file is gone when the first is dropped.
pub(crate) fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}
