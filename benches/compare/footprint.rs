//! Start-up time and memory: idle, and with a thousand connections on each side.

use std::time::Duration;

use crate::load::Load;
use crate::numbers::{Table, middle};
use crate::peers::{PATH, Peer, Setup, Upstream};
use crate::{Bench, Section};

/// Connections of callers, all with a request in flight at once, so that each needs one to the
/// origin.
const CONNECTIONS: usize = 1_000;

/// How many requests each connection sends.
const REQUESTS: usize = 3;

/// One value per round.
#[derive(Clone, Debug, Default)]
struct Row {
    /// From the process's start to its first response, in milliseconds.
    start: Vec<f64>,
    /// Resident memory after that response, in MB.
    idle: Vec<f64>,
    /// Resident memory with all connections open, in MB.
    busy: Vec<f64>,
}

/// Measures every proxy, round by round.
pub(crate) fn run(bench: &Bench) -> Section {
    let mut rows = vec![Row::default(); bench.peers.len()];
    for round in 1..=bench.arguments.rounds {
        for (peer, row) in bench.peers.iter().zip(&mut rows) {
            if let Err(error) = measure(bench, peer, row) {
                println!("round {round}: {}: {error}", peer.name);
            }
        }
    }
    let mut table = Table::new(&["proxy", "start, ms", "idle, MB", "1,000 connections, MB"]);
    for (peer, row) in bench.peers.iter().zip(&rows) {
        let (start, idle) = (middle(&row.start, 0), middle(&row.idle, 1));
        table.row(&[&peer.name, &start, &idle, &middle(&row.busy, 1)]);
    }
    Section::of(&table)
}

fn measure(bench: &Bench, peer: &Peer, row: &mut Row) -> Result<(), String> {
    let setup = Setup::to(Upstream::Tls);
    let running = peer.start(setup, &bench.origin, &[bench.processors.proxy])?;
    let idle = running.process.resident_megabytes();
    let request = setup.request(running.address, PATH);
    let load = Load::open(running.address, CONNECTIONS, request);
    let mut load = load.map_err(|error| error.to_string())?;
    for _ in 0..REQUESTS {
        let answered = load.closed_loop(Duration::ZERO);
        answered.map_err(|error| error.to_string())?;
    }
    let busy = running.process.resident_megabytes();
    let start = running.started_in.as_secs_f64() * 1e3;
    println!(
        "{}: start {start:.0} ms, idle {idle:.1} MB, {CONNECTIONS} connections {busy:.1} MB",
        peer.name
    );
    row.start.push(start);
    row.idle.push(idle);
    row.busy.push(busy);
    Ok(())
}
