//! Envoy's credential injector, which requests its own tokens as this program does.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Setup, Upstream};
use crate::origin::{NAME, Origin};

pub(super) fn command(
    envoy: &Path,
    folder: &Path,
    setup: Setup,
    origin: &Origin,
    listen: SocketAddr,
) -> Command {
    let (protocol, tls) = match setup.upstream {
        Upstream::Plain => ("http_protocol_options", String::new()),
        Upstream::Tls | Upstream::Closing => ("http_protocol_options", tls(origin, "http/1.1")),
        Upstream::Http2 => ("http2_protocol_options", tls(origin, "h2")),
    };
    let plain = origin.address(Upstream::Plain);
    let log = match setup.access_log {
        true => format!(
            r#"
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {}/access.log"#,
            folder.display()
        ),
        false => String::new(),
    };
    let config = format!(
        r#"static_resources:
  secrets:
  - name: secret
    generic_secret: {{secret: {{inline_string: "secret"}}}}
  listeners:
  - name: callers
    address: {listen}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: callers
          codec_type: HTTP1
          generate_request_id: false{log}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: origin, timeout: 0s, host_rewrite_literal: {NAME}}}}}]
          http_filters:
          - name: envoy.filters.http.credential_injector
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector
              overwrite: true
              credential:
                name: envoy.http.injected_credentials.oauth2
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.http.injected_credentials.oauth2.v3.OAuth2
                  token_endpoint: {{cluster: tokens, timeout: 3s, uri: "http://{plain}/rest/oauth/v2/token"}}
                  client_credentials: {{client_id: bench, client_secret: {{name: secret}}}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 16384, max_requests: 16384, max_pending_requests: 16384}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}: {{}}}}
    load_assignment: {{cluster_name: origin, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {upstream}}}}}]}}]}}{tls}
  - name: tokens
    type: STATIC
    connect_timeout: 5s
    load_assignment: {{cluster_name: tokens, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {tokens}}}}}]}}]}}
"#,
        listen = address(listen),
        upstream = address(origin.address(setup.upstream)),
        tokens = address(plain),
    );
    let file = folder.join("envoy.yaml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(envoy);
    command
        .args(["--concurrency", &setup.threads.to_string()])
        .args(["--disable-hot-restart", "-l", "warn"])
        .arg("-c")
        .arg(file);
    command
}

fn address(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("{{socket_address: {{address: {ip}, port_value: {port}}}}}")
}

fn tls(origin: &Origin, protocol: &str) -> String {
    let ca_file = origin.ca_file().display();
    format!(
        r#"
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {NAME}
        common_tls_context:
          tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}
          alpn_protocols: ["{protocol}"]
          validation_context:
            trusted_ca: {{filename: "{ca_file}"}}
            match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {NAME}}}}}]"#
    )
}
