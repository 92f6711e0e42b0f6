//! What grows with connections, apps, clients and cores.

use std::time::Duration;

use crate::drive::{self, Driven};
use crate::numbers::{Table, median, middle};
use crate::peers::{BASE, Peer, Running, Setup, Upstream};
use crate::plot::{Panel, Series};
use crate::{Bench, Section, machine};

const CONNECTIONS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const APPS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const CLIENTS: [usize; 4] = [1, 10, 100, 1_000];

/// Connections of callers while something else grows.
const SOME: usize = 50;

/// The results for one size of one series: one value per round.
#[derive(Clone, Debug, Default)]
struct Point {
    cost: Vec<f64>,
    rate: Vec<f64>,
    memory: Vec<f64>,
    /// Milliseconds from the start to the first response.
    start: Vec<f64>,
    /// Processor time until then, in milliseconds.
    start_cost: Vec<f64>,
    /// Milliseconds of a reload, or from the start until every client has a token.
    further: Vec<f64>,
}

impl Point {
    fn started(&mut self, running: &Running) {
        self.start.push(milliseconds(running.started_in));
        self.start_cost
            .push(running.process.processor_seconds() * 1e3);
    }

    fn take(&mut self, driven: Driven) {
        self.cost.push(driven.cost);
        self.rate.push(driven.rate);
        self.memory.push(driven.memory);
    }
}

/// Runs all measurements.
pub(crate) fn run(bench: &Bench) -> Section {
    let parts = [
        connections(bench),
        apps(bench),
        clients(bench),
        cores(bench),
    ];
    let mut text = String::new();
    let mut panels = Vec::new();
    for part in parts {
        text.push_str(&part.text);
        text.push('\n');
        panels.extend(part.panels);
    }
    Section { text, panels }
}

/// nginx and the builds of this program that are compared.
fn compared(bench: &Bench) -> Vec<&Peer> {
    let peers = bench.peers.iter();
    peers
        .filter(|peer| peer.name == BASE || peer.is_program())
        .collect()
}

fn connections(bench: &Bench) -> Section {
    let peers = compared(bench);
    let setup = Setup::to(Upstream::Tls);
    let sizes = CONNECTIONS.map(|size| size.min(machine::most_connections()));
    let mut points = vec![vec![Point::default(); sizes.len()]; peers.len()];
    for round in 1..=bench.arguments.rounds {
        for (nth, size) in sizes.into_iter().enumerate() {
            for (peer, points) in peers.iter().zip(&mut points) {
                let what = format!("round {round}: {size} connections, {}", peer.name);
                match drive::peer(bench, peer, setup, size) {
                    Ok(driven) => {
                        println!("{what}: {:.1} µs, {:.1} MB", driven.cost, driven.memory);
                        points[nth].take(driven);
                    }
                    Err(error) => println!("{what}: {error}"),
                }
            }
        }
    }
    let mut table = Table::new(&["connections", "proxy", "µs per request", "requests/s", "MB"]);
    for (nth, size) in sizes.iter().enumerate() {
        for (peer, points) in peers.iter().zip(&points) {
            let point = &points[nth];
            table.row(&[
                &size.to_string(),
                &peer.name,
                &middle(&point.cost, 1),
                &middle(&point.rate, 0),
                &middle(&point.memory, 1),
            ]);
        }
    }
    let panel = |title: &str, value: fn(&Point) -> &[f64]| Panel {
        title: title.to_owned(),
        x: "connections",
        series: peers
            .iter()
            .zip(&points)
            .map(|(peer, points)| series(&peer.name, &sizes, points, value))
            .collect(),
    };
    Section {
        text: table.to_string(),
        panels: vec![
            panel("Processor time per request, µs", |point| &point.cost),
            panel("Resident memory, MB", |point| &point.memory),
        ],
    }
}

fn apps(bench: &Bench) -> Section {
    let measure = |peer: &Peer, apps: usize, point: &mut Point| {
        let setup = Setup {
            apps,
            ..Setup::to(Upstream::Tls)
        };
        let running = peer.start(setup, &bench.origin, &[bench.processors.proxy])?;
        point.started(&running);
        point.take(drive::running_proxy(bench, &running, setup, SOME)?);
        point.further.push(milliseconds(running.reload()?));
        Ok(())
    };
    let of_program = grown(bench, "apps", &APPS, measure);
    let panels = of_program.iter().flat_map(|(_, points)| {
        let series = [
            series("start", &APPS, points, |point| &point.start),
            series("reload", &APPS, points, |point| &point.further),
        ];
        [Panel {
            title: "Start and reload with apps that have rules, ms".to_owned(),
            x: "apps",
            series: series.into(),
        }]
    });
    let panels = panels.take(1).collect();
    let headings = [
        "apps",
        "proxy",
        "start, ms",
        "its processor time, ms",
        "reload, ms",
        "MB",
        "µs per request",
    ];
    Section {
        text: table(headings, &APPS, &of_program).to_string(),
        panels,
    }
}

fn clients(bench: &Bench) -> Section {
    let measure = |peer: &Peer, clients: usize, point: &mut Point| {
        let setup = Setup {
            apps: clients,
            clients,
            ..Setup::to(Upstream::Tls)
        };
        let running = peer.start(setup, &bench.origin, &[bench.processors.proxy])?;
        point.started(&running);
        point.further.push(milliseconds(running.ready()?));
        point.take(drive::running_proxy(bench, &running, setup, SOME)?);
        Ok(())
    };
    let of_program = grown(bench, "clients", &CLIENTS, measure);
    let headings = [
        "clients",
        "proxy",
        "start, ms",
        "its processor time, ms",
        "all tokens, ms",
        "MB",
        "µs per request",
    ];
    Section {
        text: table(headings, &CLIENTS, &of_program).to_string(),
        panels: Vec::new(),
    }
}

/// Measures the builds of this program at each of `sizes`, round by round.
fn grown<'a>(
    bench: &'a Bench,
    what: &str,
    sizes: &[usize],
    measure: impl Fn(&Peer, usize, &mut Point) -> Result<(), String>,
) -> Vec<(&'a Peer, Vec<Point>)> {
    let programs = bench.peers.iter().filter(|peer| peer.is_program());
    let mut grown: Vec<_> = programs
        .map(|peer| (peer, vec![Point::default(); sizes.len()]))
        .collect();
    for round in 1..=bench.arguments.rounds {
        for (nth, size) in sizes.iter().enumerate() {
            for (peer, points) in &mut grown {
                let said = format!("round {round}: {size} {what}, {}", peer.name);
                match measure(peer, *size, &mut points[nth]) {
                    Ok(()) => println!("{said}: done"),
                    Err(error) => println!("{said}: {error}"),
                }
            }
        }
    }
    grown
}

fn table(headings: [&str; 7], sizes: &[usize], grown: &[(&Peer, Vec<Point>)]) -> Table {
    let mut table = Table::new(&headings);
    for (nth, size) in sizes.iter().enumerate() {
        for (peer, points) in grown {
            let point = &points[nth];
            table.row(&[
                &size.to_string(),
                &peer.name,
                &middle(&point.start, 0),
                &middle(&point.start_cost, 0),
                &middle(&point.further, 0),
                &middle(&point.memory, 1),
                &middle(&point.cost, 1),
            ]);
        }
    }
    table
}

/// One thread on the proxy's processor; two threads on it and the load's.
fn cores(bench: &Bench) -> Section {
    let peers = compared(bench);
    let processors = [bench.processors.proxy, bench.processors.load];
    let mut points = vec![vec![Point::default(); processors.len()]; peers.len()];
    for round in 1..=bench.arguments.rounds {
        for threads in 1..=processors.len() {
            let setup = Setup {
                threads,
                ..Setup::to(Upstream::Tls)
            };
            for (peer, points) in peers.iter().zip(&mut points) {
                let running = peer.start(setup, &bench.origin, &processors[..threads]);
                let driven =
                    running.and_then(|running| drive::running_proxy(bench, &running, setup, SOME));
                let what = format!("round {round}: {threads} cores, {}", peer.name);
                match driven {
                    Ok(driven) => {
                        println!("{what}: {:.0} requests/s", driven.rate);
                        points[threads - 1].take(driven);
                    }
                    Err(error) => println!("{what}: {error}"),
                }
            }
        }
    }
    let mut table = Table::new(&["cores", "proxy", "requests/s", "µs per request", "MB"]);
    for threads in 1..=processors.len() {
        for (peer, points) in peers.iter().zip(&points) {
            let point = &points[threads - 1];
            table.row(&[
                &threads.to_string(),
                &peer.name,
                &middle(&point.rate, 0),
                &middle(&point.cost, 1),
                &middle(&point.memory, 1),
            ]);
        }
    }
    Section::of(&table)
}

fn series(name: &str, sizes: &[usize], points: &[Point], value: fn(&Point) -> &[f64]) -> Series {
    let points = sizes
        .iter()
        .zip(points)
        .map(|(size, point)| (*size as f64, median(value(point))));
    Series {
        name: name.to_owned(),
        points: points.filter(|(_, value)| value.is_finite()).collect(),
    }
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
