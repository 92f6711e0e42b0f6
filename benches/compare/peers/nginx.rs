//! nginx: one process with one thread, without a master.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::Setup;
use crate::machine;
use crate::origin::{NAME, Origin};

pub(super) fn command(folder: &Path, setup: Setup, origin: &Origin, listen: SocketAddr) -> Command {
    let here = folder.display();
    let upstream = origin.address(setup.upstream);
    let scheme = match setup.upstream.is_tls() {
        true => "https",
        false => "http",
    };
    // otherwise its workers run as another user, who cannot read the folder
    let user = match rustix::process::geteuid().is_root() {
        true => "user root;",
        false => "",
    };
    let processes = match setup.threads {
        1 => "master_process off;".to_owned(),
        several => format!("worker_processes {several};"),
    };
    let log = match setup.access_log {
        true => format!("{here}/access.log"),
        false => "off".to_owned(),
    };
    // nginx closes connections in use if fewer than a sixteenth are free
    let sockets = 4 * machine::most_connections();
    let (token, ca_file) = (&origin.token, origin.ca_file().display());
    let config = format!(
        "daemon off; {user} {processes} pid {here}/pid; error_log stderr warn;
events {{ worker_connections {sockets}; }}
http {{
    access_log {log}; tcp_nodelay on; client_max_body_size 0;
    keepalive_requests 1000000000; keepalive_timeout 1h;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
    upstream origin {{
        server {upstream};
        keepalive 10000; keepalive_requests 1000000000; keepalive_timeout 1h;
    }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass {scheme}://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host {NAME};
            proxy_set_header Authorization \"Bearer {token}\";
            proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca_file};
            proxy_ssl_server_name on; proxy_ssl_name {NAME}; proxy_ssl_protocols TLSv1.3;
        }}
    }}
}}
"
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).args(["-c", "nginx.conf"]);
    command
}
