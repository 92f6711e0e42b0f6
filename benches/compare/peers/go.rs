//! The reverse proxy of Go's standard library, on one processor.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Setup, Upstream};
use crate::origin::{NAME, Origin};

/// The program's text.
pub(crate) const SOURCE: &str = include_str!("reverse_proxy.go");

pub(super) fn command(
    program: &Path,
    setup: Setup,
    origin: &Origin,
    listen: SocketAddr,
) -> Command {
    let upstream = match setup.upstream {
        Upstream::Plain => format!("http://{}", origin.plain),
        Upstream::Tls | Upstream::Http2 => format!("https://{NAME}:{}", origin.tls.port()),
    };
    let mut command = Command::new(program);
    command
        .env("LISTEN", listen.to_string())
        .env("UPSTREAM", upstream)
        .env("CA_FILE", origin.ca_file())
        .env("TOKEN", &origin.token)
        .env("HTTP2", (setup.upstream == Upstream::Http2).to_string())
        .env("GOMAXPROCS", "1");
    command
}
