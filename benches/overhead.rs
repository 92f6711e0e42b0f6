//! What the proxy costs: processor time a request, requests a second and resident memory, over
//! plain HTTP and TLS to the instance, with and without the access log; beside nginx doing the
//! same, if this machine has it. One thread each.
//!
//! `cargo bench --bench overhead -- --for 3 --rounds 3`, and `--binary FILE` (repeatable) to
//! compare other builds of the program in the same rounds.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/origin.rs"]
mod origin;
mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use origin::Origin;
use support::http::{self, Connection};
use support::process::{self, Process};
use support::{CLIENT_ID, now};

const CONNECTIONS: usize = 50;
const MANY: usize = 1_000;
const PATH: &str = "/rest/2.0/assets?limit=1";

/// A program that is measured, running.
struct Contender {
    name: String,
    process: Process,
    address: SocketAddr,
    idle: f64,
    /// Processor time a request in microseconds, and requests a second, one for each round.
    rounds: Vec<(f64, f64)>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let span = Duration::from_secs(support::number("--for", 3));
    let rounds = support::number("--rounds", 3);
    let mut binaries = support::arguments("--binary");
    if binaries.is_empty() {
        binaries.push(process::BINARY.to_owned());
    }
    for tls in [false, true] {
        let origin = Origin::start(tls).await;
        for access_log in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let mut contenders = start(&binaries, &origin, access_log, folder.path()).await;
            for _ in 0..rounds {
                for contender in &mut contenders {
                    let measured = measure(contender, span).await;
                    contender.rounds.push(measured);
                }
            }
            let upstream = if tls { "TLS" } else { "plain" };
            let log = if access_log { "on" } else { "off" };
            println!("\nupstream {upstream}, access log {log}");
            report(contenders).await;
        }
    }
}

async fn start(
    binaries: &[String],
    origin: &Origin,
    access_log: bool,
    folder: &Path,
) -> Vec<Contender> {
    let mut contenders = Vec::new();
    for (nth, binary) in binaries.iter().enumerate() {
        let file = folder.join(format!("{nth}.toml"));
        fs::write(&file, config(origin, access_log)).unwrap();
        let begin = now();
        let (process, address, listening) =
            process::proxy(binary, &["--config", file.to_str().unwrap()]);
        served(address).await;
        let ready = now() - begin;
        println!(
            "{binary}: listening after {:.1} ms, first answer after {:.1} ms",
            listening.as_secs_f64() * 1e3,
            ready.as_secs_f64() * 1e3
        );
        let name = Path::new(binary).file_name().unwrap().to_string_lossy();
        contenders.push(contender(name.into_owned(), process, address).await);
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    if let Some(process) = nginx::start(folder, &origin.url(), access_log, address) {
        served(address).await;
        contenders.push(contender("nginx".to_owned(), process, address).await);
    }
    contenders
}

async fn contender(name: String, process: Process, address: SocketAddr) -> Contender {
    // whatever a start leaves to be done is done by then
    tokio::time::sleep(Duration::from_millis(500)).await;
    Contender {
        name,
        idle: process.resident_megabytes(),
        process,
        address,
        rounds: Vec::new(),
    }
}

fn config(origin: &Origin, access_log: bool) -> String {
    let ca_file = origin
        .ca_file()
        .map_or_else(String::new, |path| format!("ca_file = {path:?}"));
    format!(
        "[instance.origin]
url = \"{}\"
{ca_file}
[client.bench]
client_id = \"{CLIENT_ID}\"
client_secret_env = \"COLLIBRA_CLIENT_SECRET\"
[listener.bench]
address = \"127.0.0.1:0\"
[admin]
address = \"127.0.0.1:0\"
[server]
threads = 1
[log]
access = {access_log}
",
        origin.url()
    )
}

/// Waits until a request is answered.
async fn served(address: SocketAddr) {
    let request = http::get(address, PATH);
    let patience = now() + Duration::from_secs(10);
    loop {
        let answer = async {
            let mut connection = Connection::open(address).await?;
            let status = connection.call(&request).await?;
            std::io::Result::Ok((status, connection.body().len()))
        };
        if let Ok((200, length)) = answer.await {
            assert_eq!(
                length,
                origin::ANSWER,
                "the origin's answer is passed on whole"
            );
            return;
        }
        assert!(now() < patience, "nothing serves at {address}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A closed loop from each connection for `span`.
async fn measure(contender: &Contender, span: Duration) -> (f64, f64) {
    let address = contender.address;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await.unwrap());
    }
    let processor = contender.process.processor_seconds();
    let begin = now();
    let callers: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            tokio::spawn(async move {
                let request = http::get(address, PATH);
                let mut answered = 0_u32;
                while now() - begin < span {
                    assert_eq!(connection.call(&request).await.unwrap(), 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.unwrap();
    }
    let took = (now() - begin).as_secs_f64();
    let used = contender.process.processor_seconds() - processor;
    let answered = f64::from(answered);
    (used * 1e6 / answered, answered / took)
}

/// Resident memory while `MANY` connections are open, each of which has been answered.
async fn crowded(contender: &Contender) -> f64 {
    let address = contender.address;
    let opened: Vec<_> = (0..MANY)
        .map(|_| {
            tokio::spawn(async move {
                let request = http::get(address, PATH);
                let mut connection = Connection::open(address).await.unwrap();
                for _ in 0..3 {
                    assert_eq!(connection.call(&request).await.unwrap(), 200);
                }
                connection
            })
        })
        .collect();
    let mut open = Vec::new();
    for one in opened {
        open.push(one.await.unwrap());
    }
    contender.process.resident_megabytes()
}

async fn report(contenders: Vec<Contender>) {
    let nginx = contenders
        .iter()
        .find(|contender| contender.name == "nginx")
        .map(|contender| median(contender.rounds.iter().map(|round| round.0)));
    println!(
        "{:32} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8}",
        "", "us/request", "to nginx", "requests/s", "idle MB", "busy MB", "1000 MB"
    );
    for contender in contenders {
        let cost = median(contender.rounds.iter().map(|round| round.0));
        let rate = median(contender.rounds.iter().map(|round| round.1));
        let ratio = nginx.map_or("-".to_owned(), |nginx| format!("{:.2}", cost / nginx));
        let busy = contender.process.resident_megabytes();
        let crowded = crowded(&contender).await;
        println!(
            "{:32} {cost:>10.1} {ratio:>10} {rate:>10.0} {:>8.1} {busy:>8.1} {crowded:>8.1}",
            contender.name, contender.idle
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
