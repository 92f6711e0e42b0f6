//! Compares this program with other proxies that attach a header: nginx, HAProxy, Envoy's
//! credential injector and Go's ReverseProxy, as far as they are available.
//!
//! `cargo bench --bench compare` runs everything; `-- --only cpu --rounds 3 --peers nginx,proxy` a
//! part. The proxy has one processor to itself, the load and the origin another. Every measurement
//! is repeated in rounds, alternating with the others, and compared to nginx in the same round.
//! Other activity on the machine then affects all of them.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

mod arguments;
mod bodies;
mod cpu;
mod drive;
mod footprint;
mod growth;
mod latency;
mod load;
mod machine;
mod numbers;
mod origin;
mod packages;
mod peers;
mod plot;
mod section;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, Part};
use machine::Processors;
use origin::Origin;
use peers::Peer;
use section::Section;

/// How long a proxy is driven before a measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// The context of all parts.
struct Bench {
    arguments: Arguments,
    processors: Processors,
    origin: Origin,
    peers: Vec<Peer>,
    /// The machine, the versions and the date, in a line of Markdown.
    measured_on: String,
}

fn main() -> ExitCode {
    let bench = match prepare() {
        Ok(bench) => bench,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for (name, part) in &bench.arguments.parts {
        let section = match part {
            Part::Cpu => cpu::run(&bench, &cpu::KEPT),
            Part::Latency => latency::run(&bench),
            Part::Footprint => footprint::run(&bench),
            Part::Handshakes => cpu::run(&bench, &cpu::CLOSED),
            Part::Bodies => bodies::run(&bench),
            Part::Growth => growth::run(&bench),
        };
        println!("\n{name}\n\n{}", section.text);
        if bench.arguments.writes {
            section.write(name, &bench.measured_on);
        }
    }
    ExitCode::SUCCESS
}

fn prepare() -> Result<Bench, String> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    machine::raise_file_limit();
    let processors = Processors::choose().map_err(|error| error.to_string())?;
    // the origin is nginx too
    if !packages::system("nginx") {
        return Err("nginx is needed: it is the origin, and what all are compared to".to_owned());
    }
    let peers = peers::all(&arguments);
    let versions: Vec<String> = peers.iter().map(Peer::version).collect();
    println!("comparing {}", versions.join(", "));
    let measured_on = format!(
        "Measured on {} ({}), {} rounds of {} s; {}.",
        machine::today(),
        machine::description(),
        arguments.rounds,
        arguments.span.as_secs(),
        versions.join(", ")
    );
    machine::stay_on(&[processors.load]);
    let origin = Origin::start(processors.load)?;
    Ok(Bench {
        arguments,
        processors,
        origin,
        peers,
        measured_on,
    })
}
