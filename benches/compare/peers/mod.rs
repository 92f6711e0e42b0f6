//! The proxies that are compared, each doing the same: one thread, kept connections to both
//! sides, the same header in every request, the upstream's certificate verified.

mod envoy;
mod go;
mod haproxy;
mod nginx;
mod program;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::arguments::Arguments;
use crate::machine;
use crate::origin::{ANSWER, Origin};
use crate::packages;
use crate::support::http;
use crate::support::now;
use crate::support::process::{BINARY, Process};

/// The name of the proxy to which the others are compared.
pub(crate) const BASE: &str = "nginx";

/// What every request asks for.
pub(crate) const PATH: &str = "/rest/2.0/assets?limit=1";

/// How long a proxy may take to serve, and to end.
const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(5);

/// A proxy.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its name in arguments and tables.
    pub(crate) name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Nginx,
    Haproxy,
    /// Envoy, with the path of its program.
    Envoy(PathBuf),
    /// Go's reverse proxy, with the path of a build.
    Go(PathBuf),
    /// This program, with the path of a build.
    Program(PathBuf),
}

/// How the upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    Http2,
}

/// What a proxy is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) upstream: Upstream,
    /// Whether each request is logged, to a file.
    pub(crate) access_log: bool,
}

impl Setup {
    /// Requests go to `upstream`, and are not logged.
    pub(crate) const fn to(upstream: Upstream) -> Setup {
        Setup {
            upstream,
            access_log: false,
        }
    }
}

/// A process that serves.
pub(crate) struct Running {
    /// It, and those that it started.
    pub(crate) process: Process,
    /// Where.
    pub(crate) address: SocketAddr,
    /// From its start to its first answer.
    pub(crate) started_in: Duration,
    _folder: TempDir,
}

/// The proxies that were asked for and can be had.
pub(crate) fn all(arguments: &Arguments) -> Vec<Peer> {
    let wanted = |name: &str| {
        let peers = &arguments.peers;
        peers.is_empty() || peers.iter().any(|wanted| wanted == name)
    };
    let peer = |name: &str, kind| Peer {
        name: name.to_owned(),
        kind,
    };
    let mut peers = Vec::new();
    if wanted(BASE) && packages::system("nginx") {
        peers.push(peer(BASE, Kind::Nginx));
    }
    if wanted("haproxy") && packages::system("haproxy") {
        peers.push(peer("haproxy", Kind::Haproxy));
    }
    if wanted("envoy")
        && let Some(envoy) = packages::envoy()
    {
        peers.push(peer("envoy", Kind::Envoy(envoy)));
    }
    if wanted("go")
        && let Some(program) = packages::go_program(go::SOURCE)
    {
        peers.push(peer("go", Kind::Go(program)));
    }
    if arguments.programs.is_empty() && wanted("proxy") {
        peers.push(peer("proxy", Kind::Program(BINARY.into())));
    }
    let dist = Path::new(BINARY).parent().unwrap().with_file_name("dist");
    let dist = dist.join("collibra-auth-proxy");
    if arguments.programs.is_empty() && wanted("proxy-dist") && dist.is_file() {
        peers.push(peer("proxy-dist", Kind::Program(dist)));
    }
    for path in &arguments.programs {
        let name = path.display().to_string();
        peers.push(peer(&name, Kind::Program(path.clone())));
    }
    peers
}

impl Peer {
    /// Whether it can do what `setup` asks for.
    pub(crate) fn can(&self, setup: Setup) -> bool {
        match self.kind {
            // it speaks HTTP/1.1 alone to upstreams
            Kind::Nginx => setup.upstream != Upstream::Http2,
            // it has no access log
            Kind::Go(_) => !setup.access_log,
            Kind::Haproxy | Kind::Envoy(_) | Kind::Program(_) => true,
        }
    }

    /// Starts it on `processors`, and waits until it serves.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn start(
        &self,
        setup: Setup,
        origin: &Origin,
        processors: &[usize],
    ) -> Result<Running, String> {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let command = match &self.kind {
            Kind::Nginx => nginx::command(folder.path(), setup, origin, address),
            Kind::Haproxy => haproxy::command(folder.path(), setup, origin, address),
            Kind::Envoy(path) => envoy::command(path, folder.path(), setup, origin, address),
            Kind::Go(path) => go::command(path, setup, origin, address),
            Kind::Program(path) => program::command(path, folder.path(), setup, origin, address),
        };
        let running = Running::start(folder, command, address, processors)
            .map_err(|error| format!("{}: {error}", self.name))?;
        running.attaches(&origin.token)?;
        Ok(running)
    }
}

impl Running {
    /// Starts `command` on `processors`; waits until a request to `address` is answered. What it
    /// writes goes to the file `output` in `folder`.
    ///
    /// # Errors
    /// That it does not serve, with the end of what it wrote.
    pub(crate) fn start(
        folder: TempDir,
        mut command: Command,
        address: SocketAddr,
        processors: &[usize],
    ) -> Result<Running, String> {
        let output = folder.path().join("output");
        let file = File::create(&output).unwrap();
        command
            .stdin(Stdio::null())
            .stderr(file.try_clone().unwrap())
            .stdout(file);
        let begin = now();
        let child = machine::on(processors, || command.spawn());
        let child = child.map_err(|error| format!("{command:?}: {error}"))?;
        let mut process = Process(child);
        let request = http::get(address, PATH);
        loop {
            if let Ok((200, body)) = call(address, &request) {
                if body.len() != ANSWER {
                    return Err(format!("the answer has {} bytes, not {ANSWER}", body.len()));
                }
                let started_in = now() - begin;
                return Ok(Running {
                    process,
                    address,
                    started_in,
                    _folder: folder,
                });
            }
            if process.0.try_wait().is_ok_and(|ended| ended.is_some()) || now() - begin > START {
                let written = fs::read_to_string(&output).unwrap_or_default();
                let last: Vec<&str> = written.lines().rev().take(5).collect();
                return Err(format!("it does not serve: {last:#?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Checks that what is forwarded has the token: a proxy that attaches none does less.
    fn attaches(&self, token: &str) -> Result<(), String> {
        let answer = call(self.address, &http::get(self.address, "/authorization"));
        match answer {
            Ok((200, body)) if body == format!("Bearer {token}").into_bytes() => Ok(()),
            other => Err(format!("the token is not attached: {other:?}")),
        }
    }
}

impl Drop for Running {
    /// Ends it gently: nginx takes its worker with it only then.
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};

        let pid = Pid::from_child(&self.process.0);
        let _ = kill_process(pid, Signal::TERM);
        let begin = now();
        while self.process.0.try_wait().is_ok_and(|ended| ended.is_none()) && now() - begin < END {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// An address of the loopback that nothing listens at.
pub(crate) fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

/// Sends `request` on a connection of its own; gives the status and the body.
fn call(address: SocketAddr, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = http::head_end(&answer) {
            let whole = end + http::content_length(&answer[..end])?;
            if answer.len() >= whole {
                return Ok((http::status(&answer)?, answer[end..whole].to_vec()));
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
}
