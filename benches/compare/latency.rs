//! The latency of responses at a fixed rate, well below the capacity of any proxy.

use std::net::SocketAddr;

use crate::load::Load;
use crate::numbers::{Table, middle, range};
use crate::peers::{PATH, Setup, Upstream};
use crate::{Bench, Section, WARM_UP};

/// Requests a second.
const RATE: u32 = 2_000;
const CONNECTIONS: usize = 50;

/// The row without a proxy: the origin and the load alone, without TLS.
const DIRECT: &str = "none";

/// The median and the 99th percentile in microseconds, one per round.
#[derive(Clone, Debug, Default)]
struct Row {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Measures every proxy, round by round.
pub(crate) fn run(bench: &Bench) -> Section {
    let setup = Setup::to(Upstream::Tls);
    let mut direct = Row::default();
    let mut rows = vec![Row::default(); bench.peers.len()];
    for round in 1..=bench.arguments.rounds {
        let measured = measure(bench, setup, bench.origin.address(Upstream::Plain));
        direct.take(round, DIRECT, measured);
        for (peer, row) in bench.peers.iter().zip(&mut rows) {
            let running = peer.start(setup, &bench.origin, &[bench.processors.proxy]);
            let measured = running.and_then(|running| measure(bench, setup, running.address));
            row.take(round, &peer.name, measured);
        }
    }
    let mut table = Table::new(&["proxy", "p50, µs", "p99, µs", "p99 of each round"]);
    let names = bench.peers.iter().map(|peer| &*peer.name);
    for (name, row) in [DIRECT]
        .into_iter()
        .chain(names)
        .zip([direct].iter().chain(&rows))
    {
        let (p50, p99) = (middle(&row.p50, 0), middle(&row.p99, 0));
        table.row(&[name, &p50, &p99, &range(&row.p99, 0)]);
    }
    Section::of(&table)
}

impl Row {
    fn take(&mut self, round: usize, name: &str, measured: Result<(f64, f64), String>) {
        match measured {
            Ok((p50, p99)) => {
                println!("round {round}: {name}: p50 {p50:.0} µs, p99 {p99:.0} µs");
                self.p50.push(p50);
                self.p99.push(p99);
            }
            Err(error) => println!("round {round}: {name}: {error}"),
        }
    }
}

fn measure(bench: &Bench, setup: Setup, address: SocketAddr) -> Result<(f64, f64), String> {
    let load = Load::open(address, CONNECTIONS, setup.request(address, PATH));
    let mut load = load.map_err(|error| error.to_string())?;
    let mut drive = |span| load.paced(RATE, span).map_err(|error| error.to_string());
    drive(WARM_UP)?;
    let took = drive(bench.arguments.span)?;
    let at = |share: f64| took[(took.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok((at(0.5), at(0.99)))
}
