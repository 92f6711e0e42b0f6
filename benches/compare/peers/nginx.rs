//! nginx, in one process.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Setup, Upstream};
use crate::machine;
use crate::origin::{NAME, Origin};

pub(super) fn command(folder: &Path, setup: Setup, origin: &Origin, listen: SocketAddr) -> Command {
    let here = folder.display();
    let (scheme, upstream) = match setup.upstream {
        Upstream::Plain => ("http", origin.plain),
        Upstream::Tls | Upstream::Http2 => ("https", origin.tls),
    };
    let log = match setup.access_log {
        true => format!("{here}/access.log"),
        false => "off".to_owned(),
    };
    let sockets = 2 * machine::most_connections() + 50;
    let (token, ca_file) = (&origin.token, origin.ca_file().display());
    let config = format!(
        "daemon off; master_process off; pid {here}/pid; error_log stderr warn;
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
