//! HAProxy.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Setup, Upstream};
use crate::machine;
use crate::origin::{NAME, Origin};

pub(super) fn command(folder: &Path, setup: Setup, origin: &Origin, listen: SocketAddr) -> Command {
    let (ca_file, token) = (origin.ca_file().display(), &origin.token);
    let address = origin.address(setup.upstream);
    let tls = |protocol: &str| {
        format!(
            "{address} ssl verify required ca-file {ca_file} sni str({NAME}) verifyhost {NAME} alpn {protocol}"
        )
    };
    let server = match setup.upstream {
        Upstream::Plain => address.to_string(),
        Upstream::Tls | Upstream::Closing => tls("http/1.1"),
        Upstream::Http2 => tls("h2"),
    };
    let (log, logged) = match setup.access_log {
        true => (
            "log stdout format raw local0",
            "log global\n  option httplog",
        ),
        false => ("", ""),
    };
    let config = format!(
        "global
  nbthread {threads}
  maxconn {most}
  {log}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
frontend callers
  bind {listen} backlog 4096
  {logged}
  http-request set-header Authorization \"Bearer {token}\"
  http-request set-header Host {NAME}
  default_backend origin
backend origin
  server origin {server} pool-max-conn {most}
",
        threads = setup.threads,
        most = machine::most_connections(),
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(file);
    command
}
