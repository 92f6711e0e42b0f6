//! The kit of tests and benchmarks: a simulated Collibra or an origin that the test scripts, a
//! proxy in front of it, and apps that speak HTTP byte for byte.
//!
//! Every process and server that is started here ends on drop. Every wait is for something
//! observable, with a timeout that only a failure reaches.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here is a failure of the test"
)]

pub mod caller;
pub mod http;
pub mod listener;
pub mod load;
pub mod network;
pub mod origin;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod request;
pub mod simulator;
pub mod svg;
pub mod usage;
pub mod wait;

pub use http::Connection;
pub use origin::Origin;
pub use proxy::Proxy;
pub use simulator::Simulator;
pub use wait::{PATIENCE, until};

/// Creates a file; returns its directory, which deletes it on drop, and its path.
pub fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

/// The values of the argument `--name` of this process, one per occurrence.
pub fn arguments(name: &str) -> Vec<String> {
    let words: Vec<String> = std::env::args().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == name);
    pairs.map(|pair| pair[1].clone()).collect()
}

/// The number after the argument `--name`, or `default`.
pub fn number(name: &str, default: u64) -> u64 {
    arguments(name).last().map_or(default, |typed| {
        typed
            .parse()
            .unwrap_or_else(|_| panic!("{name} takes a whole number, not {typed}"))
    })
}
