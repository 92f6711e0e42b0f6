//! Processor time per request: on kept connections, and with a new TLS connection to the upstream
//! for each request.

use crate::numbers::{Table, middle, range};
use crate::peers::{BASE, Setup, Upstream};
use crate::{Bench, Section, drive};

/// What is measured.
pub(crate) struct Case {
    name: &'static str,
    setup: Setup,
    /// Keep-alive connections of callers.
    connections: usize,
    /// The case of nginx that the others are compared to.
    base: usize,
}

const CONNECTIONS: usize = 50;

/// Keep-alive connections.
pub(crate) const KEPT: [Case; 4] = [
    Case {
        name: "TLS",
        setup: Setup::to(Upstream::Tls),
        connections: CONNECTIONS,
        base: 0,
    },
    Case {
        name: "TLS, access log to a file",
        setup: Setup {
            access_log: true,
            ..Setup::to(Upstream::Tls)
        },
        connections: CONNECTIONS,
        base: 0,
    },
    Case {
        name: "HTTP/2 over TLS",
        setup: Setup::to(Upstream::Http2),
        connections: CONNECTIONS,
        base: 0,
    },
    Case {
        name: "plain",
        setup: Setup::to(Upstream::Plain),
        connections: CONNECTIONS,
        base: 3,
    },
];

/// An origin that closes its connection after each response.
pub(crate) const CLOSED: [Case; 1] = [Case {
    name: "TLS, closed with each answer",
    setup: Setup::to(Upstream::Closing),
    connections: 20,
    base: 0,
}];

/// The results of one proxy in one case: one value per round, `NaN` if it failed.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Microseconds per request.
    cost: Vec<f64>,
    /// Requests a second.
    rate: Vec<f64>,
}

/// Measures every proxy in every case, round by round.
pub(crate) fn run(bench: &Bench, cases: &[Case]) -> Section {
    let mut rows = vec![vec![Row::default(); bench.peers.len()]; cases.len()];
    for round in 1..=bench.arguments.rounds {
        for (case, rows) in cases.iter().zip(&mut rows) {
            for (peer, row) in bench.peers.iter().zip(rows) {
                if !peer.can(case.setup) {
                    continue;
                }
                let driven = drive::peer(bench, peer, case.setup, case.connections);
                let what = format!("round {round}: {}, {}", case.name, peer.name);
                match driven {
                    Ok(driven) => {
                        println!(
                            "{what}: {:.1} µs, {:.0} requests/s",
                            driven.cost, driven.rate
                        );
                        row.cost.push(driven.cost);
                        row.rate.push(driven.rate);
                    }
                    Err(error) => {
                        println!("{what}: {error}");
                        row.cost.push(f64::NAN);
                        row.rate.push(f64::NAN);
                    }
                }
            }
        }
    }
    Section::of(&table(bench, cases, &rows))
}

fn table(bench: &Bench, cases: &[Case], rows: &[Vec<Row>]) -> Table {
    let mut table = Table::new(&[
        "upstream",
        "proxy",
        "to nginx",
        "of each round",
        "µs per request",
        "requests/s",
    ]);
    let nginx = bench.peers.iter().position(|peer| peer.name == BASE);
    for (case, of_case) in cases.iter().zip(rows) {
        for (peer, row) in bench.peers.iter().zip(of_case) {
            if row.cost.is_empty() {
                continue;
            }
            let base = nginx.map_or(&[][..], |nginx| &rows[case.base][nginx].cost);
            let pairs = row.cost.iter().zip(base);
            let ratios: Vec<f64> = pairs.map(|(cost, base)| cost / base).collect();
            table.row(&[
                case.name,
                &peer.name,
                &middle(&ratios, 2),
                &range(&ratios, 2),
                &middle(&row.cost, 1),
                &middle(&row.rate, 0),
            ]);
        }
    }
    table
}
