//! Drives one proxy as fast as it answers.

use std::io;

use crate::load::Load;
use crate::peers::{PATH, Peer, Running, Setup};
use crate::{Bench, WARM_UP};

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driven {
    /// Processor time per request, in microseconds.
    pub(crate) cost: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Resident memory at the end, in MB.
    pub(crate) memory: f64,
}

/// Starts `peer` on the proxy's processor and drives it over `connections`.
///
/// # Errors
/// The proxy does not start, or a request fails.
pub(crate) fn peer(
    bench: &Bench,
    peer: &Peer,
    setup: Setup,
    connections: usize,
) -> Result<Driven, String> {
    let running = peer.start(setup, &bench.origin, &[bench.processors.proxy])?;
    running_proxy(bench, &running, setup, connections)
}

/// Drives a running proxy.
///
/// # Errors
/// A request fails.
pub(crate) fn running_proxy(
    bench: &Bench,
    running: &Running,
    setup: Setup,
    connections: usize,
) -> Result<Driven, String> {
    let failed = |error: io::Error| format!("{error}; it said {}", running.last_words());
    let request = setup.request(running.address, PATH);
    let mut load = Load::open(running.address, connections, request).map_err(failed)?;
    let mut drive = |span| load.closed_loop(span).map_err(failed);
    drive(WARM_UP)?;
    let before = running.process.processor_seconds();
    let answered = drive(bench.arguments.span)?;
    let used = running.process.processor_seconds() - before;
    let count = answered.count as f64;
    Ok(Driven {
        cost: used * 1e6 / count,
        rate: count / answered.span.as_secs_f64(),
        memory: running.process.resident_megabytes(),
    })
}
