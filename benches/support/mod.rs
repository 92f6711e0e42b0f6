//! What the benchmarks share: processes, what the system says of them, and a client that
//! costs as little as it can.

pub(crate) mod http;
pub(crate) mod process;

use std::time::Instant;

/// The id of the simulator's well-known client.
pub(crate) const CLIENT_ID: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";
/// Its secret.
pub(crate) const CLIENT_SECRET: &str = "s3cr+t/=%&x y~!*";

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real processes by the real clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The value that follows `--name` on the command line, each time it is given.
pub(crate) fn arguments(name: &str) -> Vec<String> {
    let words: Vec<String> = std::env::args().collect();
    words
        .windows(2)
        .filter(|pair| pair[0] == name)
        .map(|pair| pair[1].clone())
        .collect()
}

/// A number that follows `--name`, or else `default`.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let given = arguments(name);
    given.last().map_or(default, |typed| {
        typed
            .parse()
            .unwrap_or_else(|_| panic!("{name} takes a whole number, not {typed}"))
    })
}
