//! Processor time per request.

use crate::load::Load;
use crate::numbers::{Table, middle, range};
use crate::peers::{BASE, PATH, Peer, Setup, Upstream};
use crate::support::http;
use crate::{Bench, Section, WARM_UP};

/// Kept connections of callers.
const CONNECTIONS: usize = 50;

/// What is measured.
struct Case {
    name: &'static str,
    setup: Setup,
    /// The case in which nginx is what the others are compared to.
    base: usize,
}

const CASES: [Case; 4] = [
    Case {
        name: "TLS",
        setup: Setup::to(Upstream::Tls),
        base: 0,
    },
    Case {
        name: "TLS, access log to a file",
        setup: Setup {
            access_log: true,
            ..Setup::to(Upstream::Tls)
        },
        base: 0,
    },
    Case {
        name: "HTTP/2 over TLS",
        setup: Setup::to(Upstream::Http2),
        base: 0,
    },
    Case {
        name: "plain",
        setup: Setup::to(Upstream::Plain),
        base: 3,
    },
];

/// One proxy in one case: a value for each round, `NaN` where it failed.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Microseconds per request.
    cost: Vec<f64>,
    /// Requests a second.
    rate: Vec<f64>,
}

/// Measures every proxy in every case, round by round.
pub(crate) fn run(bench: &Bench) -> Section {
    let mut rows = vec![vec![Row::default(); bench.peers.len()]; CASES.len()];
    for round in 1..=bench.arguments.rounds {
        for (case, rows) in CASES.iter().zip(&mut rows) {
            for (peer, row) in bench.peers.iter().zip(rows) {
                if !peer.can(case.setup) {
                    continue;
                }
                let measured = measure(bench, peer, case.setup);
                let what = format!("round {round}: {}, {}", case.name, peer.name);
                let (cost, rate) = match measured {
                    Ok((cost, rate)) => {
                        println!("{what}: {cost:.1} µs, {rate:.0} requests/s");
                        (cost, rate)
                    }
                    Err(error) => {
                        println!("{what}: {error}");
                        (f64::NAN, f64::NAN)
                    }
                };
                row.cost.push(cost);
                row.rate.push(rate);
            }
        }
    }
    Section {
        name: "cpu",
        text: table(bench, &rows).to_string(),
    }
}

/// Processor time per request in microseconds, and requests a second.
fn measure(bench: &Bench, peer: &Peer, setup: Setup) -> Result<(f64, f64), String> {
    let running = peer.start(setup, &bench.origin, &[bench.processors.proxy])?;
    let request = http::get(running.address, PATH);
    let load = Load::open(running.address, CONNECTIONS, request);
    let mut load = load.map_err(|error| error.to_string())?;
    let mut drive = |span| load.closed_loop(span).map_err(|error| error.to_string());
    drive(WARM_UP)?;
    let before = running.process.processor_seconds();
    let answered = drive(bench.arguments.span)?;
    let used = running.process.processor_seconds() - before;
    let count = answered.count as f64;
    Ok((used * 1e6 / count, count / answered.span.as_secs_f64()))
}

fn table(bench: &Bench, rows: &[Vec<Row>]) -> Table {
    let mut table = Table::new(&[
        "upstream",
        "proxy",
        "to nginx",
        "of each round",
        "µs per request",
        "requests/s",
    ]);
    let nginx = bench.peers.iter().position(|peer| peer.name == BASE);
    for (case, of_case) in CASES.iter().zip(rows) {
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
