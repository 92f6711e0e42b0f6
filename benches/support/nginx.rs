//! nginx, to compare with.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::process::Process;

/// Starts nginx in one process, as a proxy that sets `Authorization`. `None` if this machine has
/// none.
pub(crate) fn start(
    folder: &Path,
    upstream: &str,
    access_log: bool,
    listen: SocketAddr,
) -> Option<Process> {
    let version = Command::new("nginx")
        .arg("-v")
        .stderr(Stdio::null())
        .status();
    if !version.is_ok_and(|status| status.success()) {
        return None;
    }
    let (scheme, origin) = upstream.split_once("://").unwrap();
    let log = match access_log {
        true => folder.join("access.log").display().to_string(),
        false => "off".to_owned(),
    };
    let here = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log {log};
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
    keepalive_requests 100000000;
    upstream origin {{ server {origin}; keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass {scheme}://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host {origin};
            proxy_set_header Authorization \"Bearer bench-token\";
        }}
    }}
}}
"
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(path);
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Some(Process(quiet.spawn().unwrap()))
}
