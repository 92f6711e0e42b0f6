//! This program beside other proxies that attach a header: nginx, HAProxy, Envoy's credential
//! injector and Go's ReverseProxy, as far as they can be had.
//!
//! `cargo bench --bench compare` runs all of it; `-- --only cpu --rounds 3 --peers nginx,proxy`
//! some. The proxy has one processor to itself, the load and the origin another. Every measurement
//! is repeated in rounds, in turn with the others, and compared to nginx in the same round: what
//! else the machine does then meets all of them.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

mod arguments;
mod cpu;
mod footprint;
mod latency;
mod load;
mod machine;
mod numbers;
mod origin;
mod packages;
mod peers;
#[expect(dead_code, reason = "each benchmark uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, Part};
use machine::Processors;
use origin::Origin;
use peers::Peer;

/// How long a proxy is driven before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// What all parts have in common.
struct Bench {
    arguments: Arguments,
    processors: Processors,
    origin: Origin,
    peers: Vec<Peer>,
}

/// What a part of the comparison found.
struct Section {
    /// The part's name.
    name: &'static str,
    /// In Markdown.
    text: String,
}

fn main() -> ExitCode {
    let bench = match prepare() {
        Ok(bench) => bench,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for part in &bench.arguments.parts {
        let section = match part {
            Part::Cpu => cpu::run(&bench),
            Part::Latency => latency::run(&bench),
            Part::Footprint => footprint::run(&bench),
        };
        println!("\n{}\n\n{}", section.name, section.text);
    }
    ExitCode::SUCCESS
}

fn prepare() -> Result<Bench, String> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    machine::raise_file_limit();
    let processors = Processors::choose().map_err(|error| error.to_string())?;
    println!("{}", machine::description());
    // the origin is nginx too
    if !packages::system("nginx") {
        return Err("nginx is needed: it is the origin, and what all are compared to".to_owned());
    }
    let peers = peers::all(&arguments);
    let names: Vec<&str> = peers.iter().map(|peer| &*peer.name).collect();
    println!("comparing {}", names.join(", "));
    machine::stay_on(&[processors.load]);
    let origin = Origin::start(processors.load)?;
    Ok(Bench {
        arguments,
        processors,
        origin,
        peers,
    })
}
