//! This program, with one worker thread.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Setup, Upstream};
use crate::origin::{NAME, Origin};
use crate::support::{CLIENT_ID, CLIENT_SECRET};

pub(super) fn command(
    program: &Path,
    folder: &Path,
    setup: Setup,
    origin: &Origin,
    listen: SocketAddr,
) -> Command {
    let url = match setup.upstream {
        Upstream::Plain => format!("http://{}", origin.plain),
        Upstream::Tls | Upstream::Http2 => format!("https://{NAME}:{}", origin.tls.port()),
    };
    let http2 = setup.upstream == Upstream::Http2;
    let log = setup.access_log;
    let ca_file = origin.ca_file();
    let config = format!(
        "[instance.origin]
url = \"{url}\"
ca_file = {ca_file:?}
http2 = {http2}
[client.bench]
client_id = \"{CLIENT_ID}\"
client_secret_env = \"COLLIBRA_CLIENT_SECRET\"
[listener.bench]
address = \"{listen}\"
[admin]
address = \"127.0.0.1:0\"
[server]
threads = 1
[log]
access = {log}
"
    );
    let file = folder.join("proxy.toml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command
        .args(["--log-format", "json", "serve", "--config"])
        .arg(file)
        .env("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET);
    command
}
