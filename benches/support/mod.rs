//! Shared by the benchmarks: processes, their resource usage, and a client with minimal cost.

pub(crate) mod http;
pub(crate) mod process;

use std::time::Instant;

/// The id of the simulator's well-known client.
pub(crate) const CLIENT_ID: &str = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";
/// Its secret.
pub(crate) const CLIENT_SECRET: &str = "s3cr+t/=%&x y~!*";

/// The current time.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real processes by the real clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The values of the argument `--name`, one per occurrence.
pub(crate) fn arguments(name: &str) -> Vec<String> {
    let words: Vec<String> = std::env::args().collect();
    words
        .windows(2)
        .filter(|pair| pair[0] == name)
        .map(|pair| pair[1].clone())
        .collect()
}

/// The number after `--name`, or `default`.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let given = arguments(name);
    given.last().map_or(default, |typed| {
        typed
            .parse()
            .unwrap_or_else(|_| panic!("{name} takes a whole number, not {typed}"))
    })
}
