//! The reverse proxy of Go's standard library.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Setup, Upstream};
use crate::origin::Origin;

/// The program's source.
pub(crate) const SOURCE: &str = include_str!("reverse_proxy.go");

pub(super) fn command(
    program: &Path,
    setup: Setup,
    origin: &Origin,
    listen: SocketAddr,
) -> Command {
    let mut command = Command::new(program);
    command
        .env("LISTEN", listen.to_string())
        .env("UPSTREAM", origin.url(setup.upstream))
        .env("CA_FILE", origin.ca_file())
        .env("TOKEN", &origin.token)
        .env("HTTP2", (setup.upstream == Upstream::Http2).to_string())
        .env("GOMAXPROCS", setup.threads.to_string());
    command
}
