//! The integration tests, in one binary. Each module tests one promise of the program or of its
//! source.

// `#[cfg(test)]` again for clippy, which then allows `unwrap`

#[cfg(test)]
mod access_log;
#[cfg(test)]
mod act;
#[cfg(test)]
mod addresses;
#[cfg(test)]
mod admin_jam;
#[cfg(test)]
mod apps;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod client_certificate;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod clients_of_all_kinds;
#[cfg(test)]
mod closed_process;
#[cfg(test)]
mod cold_start;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod curl;
#[cfg(test)]
mod dashboards;
#[cfg(test)]
mod data_path;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod endless_peers;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod forward_mode;
#[cfg(test)]
mod forward_proxy;
#[cfg(test)]
mod fuzz_corpora;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http2_upstream;
#[cfg(test)]
mod hygiene;
#[cfg(test)]
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(test)]
mod listeners_http2;
#[cfg(test)]
mod listeners_tls;
#[cfg(test)]
mod listeners_unix;
#[cfg(test)]
mod listeners_websocket;
#[cfg(test)]
mod log_fields;
#[cfg(test)]
mod log_jam;
#[cfg(test)]
mod loops;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod oauth_clients;
#[cfg(test)]
mod python;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod service_manager;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod socket_activation;
#[cfg(test)]
mod status_page;
#[cfg(test)]
mod streaming;
#[cfg(test)]
mod support;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod token_faults;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod unauthorized;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod web_pages;
