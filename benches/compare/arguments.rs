//! The arguments of `cargo bench --bench compare --`.

use std::path::PathBuf;
use std::time::Duration;

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Processor time per request.
    Cpu,
    /// The latency of responses at a fixed rate.
    Latency,
    /// Start-up time and memory.
    Footprint,
    /// A new TLS connection to the upstream for each request.
    Handshakes,
    /// Bodies of 100 MB.
    Bodies,
    /// What grows with connections, apps, clients and cores.
    Growth,
}

/// The parsed arguments.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// The parts to run with their names, in the order of [`PARTS`].
    pub(crate) parts: Vec<(&'static str, Part)>,
    /// Whether to write the results into the document: if all parts run, or on request.
    pub(crate) writes: bool,
    /// How often each measurement is repeated, alternating with the others.
    pub(crate) rounds: usize,
    /// How long one measurement takes.
    pub(crate) span: Duration,
    /// The names of the proxies to compare; all available ones if empty.
    pub(crate) peers: Vec<String>,
    /// Builds of this program; if empty, cargo's, and the `dist` build if it exists.
    pub(crate) programs: Vec<PathBuf>,
}

/// The parts and their names, in the order in which they run.
pub(crate) const PARTS: [(&str, Part); 6] = [
    ("cpu", Part::Cpu),
    ("latency", Part::Latency),
    ("footprint", Part::Footprint),
    ("handshakes", Part::Handshakes),
    ("bodies", Part::Bodies),
    ("growth", Part::Growth),
];

const USAGE: &str = "cargo bench --bench compare -- [--only PART,...] [--peers NAME,...] \
                     [--rounds N] [--seconds N] [--program PATH]... [--write]";

impl Arguments {
    /// Parses the command line.
    ///
    /// # Errors
    /// What is wrong with it, and the usage.
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments {
            parts: PARTS.to_vec(),
            writes: false,
            rounds: 3,
            span: Duration::from_secs(3),
            peers: Vec::new(),
            programs: Vec::new(),
        };
        let mut only = None;
        // cargo adds --bench
        let mut words = words.filter(|word| word != "--bench");
        while let Some(name) = words.next() {
            let mut value = || words.next().ok_or(format!("{name} needs a value\n{USAGE}"));
            match name.as_str() {
                "--only" => only = Some(parts(&value()?)?),
                "--write" => arguments.writes = true,
                "--peers" => arguments.peers = list(&value()?),
                "--rounds" => arguments.rounds = number(&name, &value()?)?,
                "--seconds" => {
                    let seconds = number(&name, &value()?)?;
                    arguments.span = Duration::from_secs(seconds as u64);
                }
                "--program" => arguments.programs.push(value()?.into()),
                _ => return Err(format!("unknown argument {name}\n{USAGE}")),
            }
        }
        match only {
            Some(only) => arguments.parts = only,
            None => arguments.writes = true,
        }
        Ok(arguments)
    }
}

fn parts(text: &str) -> Result<Vec<(&'static str, Part)>, String> {
    let wanted = list(text);
    let known = |name: &&String| PARTS.iter().any(|(known, _)| known == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let names = PARTS.map(|(name, _)| name).join(", ");
        return Err(format!("no part is called {unknown}; there are {names}"));
    }
    let chosen = PARTS
        .iter()
        .filter(|(name, _)| wanted.iter().any(|w| w == name));
    Ok(chosen.copied().collect())
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).collect()
}

fn number(name: &str, text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{name} takes a whole number above 0, not {text}")),
    }
}
