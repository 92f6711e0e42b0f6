//! Bodies of 100 MB, down and up: throughput, cost, and memory meanwhile.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::numbers::{Table, middle};
use crate::origin::{BIG, LARGE, SINK};
use crate::peers::{Peer, Setup, Upstream};
use crate::{Bench, Section};
use kit::caller::{content_length, head_end, status};
use kit::wait::now;

/// The timeout of a read or write.
const PATIENCE: Duration = Duration::from_secs(30);

/// The size of a read or write.
const CHUNK: usize = 64 * 1024;

/// The direction of a body.
#[derive(Clone, Copy)]
enum Way {
    Down,
    Up,
}

const WAYS: [(Way, &str); 2] = [(Way::Down, "down"), (Way::Up, "up")];

/// One value per round.
#[derive(Clone, Debug, Default)]
struct Row {
    /// MB a second.
    speed: Vec<f64>,
    /// Processor time in milliseconds.
    cost: Vec<f64>,
    /// The largest increase of memory, in MB.
    memory: Vec<f64>,
}

/// Measures every proxy, round by round.
pub(crate) fn run(bench: &Bench) -> Section {
    let mut rows = vec![vec![Row::default(); bench.peers.len()]; WAYS.len()];
    for round in 1..=bench.arguments.rounds {
        for ((way, name), rows) in WAYS.iter().zip(&mut rows) {
            for (peer, row) in bench.peers.iter().zip(rows) {
                match measure(bench, peer, *way, row) {
                    Ok(()) => println!("round {round}: {name}, {}: done", peer.name),
                    Err(error) => println!("round {round}: {name}, {}: {error}", peer.name),
                }
            }
        }
    }
    let headings = [
        "100 MB",
        "proxy",
        "MB/s",
        "processor, ms",
        "memory, MB more",
    ];
    let mut table = Table::new(&headings);
    for ((_, name), rows) in WAYS.iter().zip(&rows) {
        for (peer, row) in bench.peers.iter().zip(rows) {
            let (speed, cost) = (middle(&row.speed, 0), middle(&row.cost, 0));
            table.row(&[name, &peer.name, &speed, &cost, &middle(&row.memory, 1)]);
        }
    }
    Section::of(&table)
}

fn measure(bench: &Bench, peer: &Peer, way: Way, row: &mut Row) -> Result<(), String> {
    let setup = Setup::to(Upstream::Tls);
    let running = peer.start(setup, &bench.origin, &[bench.processors.proxy])?;
    let memory = running.process.peak_megabytes();
    let before = running.process.processor_seconds();
    let begin = now();
    let carried = match way {
        Way::Down => download(running.address),
        Way::Up => upload(running.address),
    };
    let failed = |error| {
        format!(
            "{error}; it said {}, the origin {}",
            running.last_words(),
            bench.origin.last_words()
        )
    };
    carried.map_err(failed)?;
    let took = now() - begin;
    let used = running.process.processor_seconds() - before;
    row.speed.push(LARGE as f64 / 1e6 / took.as_secs_f64());
    row.cost.push(used * 1e3);
    row.memory.push(running.process.peak_megabytes() - memory);
    Ok(())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn download(address: SocketAddr) -> io::Result<()> {
    let mut stream = connect(address)?;
    write!(stream, "GET {BIG} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let (status, length, mut came) = head(&mut stream)?;
    let mut chunk = vec![0; CHUNK];
    while came < length {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => came += read,
        }
    }
    match (status, length) {
        (200, LARGE) => Ok(()),
        _ => Err(io::Error::other(format!("status {status}, {length} bytes"))),
    }
}

fn upload(address: SocketAddr) -> io::Result<()> {
    let mut stream = connect(address)?;
    let head_of_request =
        format!("PUT {SINK} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {LARGE}\r\n\r\n");
    stream.write_all(head_of_request.as_bytes())?;
    let chunk = vec![b'x'; CHUNK];
    let mut left = LARGE;
    while left > 0 {
        let now = left.min(CHUNK);
        if let Err(error) = stream.write_all(&chunk[..now]) {
            // a response before the end of the body says why
            let (status, ..) = head(&mut stream).map_err(|_| error)?;
            let sent = LARGE - left;
            return Err(io::Error::other(format!(
                "status {status} after {sent} bytes"
            )));
        }
        left -= now;
    }
    match head(&mut stream)? {
        (201 | 204, ..) => Ok(()),
        (status, ..) => Err(io::Error::other(format!("status {status}"))),
    }
}

/// Reads a response's head: its status, the length of its body, and how much of that has arrived.
fn head(stream: &mut TcpStream) -> io::Result<(u16, usize, usize)> {
    let mut answer = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        if let Some(end) = head_end(&answer) {
            // every response of this benchmark has a length
            let length = content_length(&answer[..end]).unwrap_or(0);
            return Ok((status(&answer)?, length, answer.len() - end));
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&chunk[..read]),
        }
    }
}
