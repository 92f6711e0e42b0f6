//! A real Prometheus.

use std::net::SocketAddr;
use std::process::Command;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::expressions::RULES;
use super::top;
use crate::support::http;
use crate::support::process::Process;

/// A running server with the project's rules.
pub(super) struct Prometheus {
    address: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `targets` four times a second and evaluates the rules once a second.
    pub(super) fn scraping(targets: &[SocketAddr]) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        // JSON is YAML
        let text = json!({
            "global": {"scrape_interval": "250ms", "evaluation_interval": "1s"},
            "rule_files": [top().join(RULES)],
            "scrape_configs": [{
                "job_name": "collibra-auth-proxy",
                "static_configs": [{"targets": targets}],
            }],
        });
        std::fs::write(&config, text.to_string()).unwrap();
        let process = Process::spawn(
            Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().display()))
                .arg("--web.listen-address=127.0.0.1:0"),
        );
        let address = process.err.wait_for("Prometheus' address", |line| {
            let (_, address) = line.split_once("msg=\"Listening on\" address=")?;
            address.parse().ok()
        });
        process.err.wait_for("Prometheus to take requests", |line| {
            line.contains("Server is ready").then_some(())
        });
        Prometheus {
            address,
            _process: process,
            _folder: folder,
        }
    }

    /// The values of an expression now, without those that are NaN.
    pub(super) fn values(&self, expression: &str) -> Vec<f64> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let answer = self.get(&format!("query?query={encoded}"));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let series = super::array(&answer["data"]["result"]);
        series
            .map(|series| series["value"][1].as_str().unwrap().parse().unwrap())
            .filter(|value: &f64| !value.is_nan())
            .collect()
    }

    /// The rules as they were last evaluated.
    pub(super) fn rules(&self) -> Vec<Value> {
        let answer = self.get("rules");
        let groups = super::array(&answer["data"]["groups"]);
        groups
            .flat_map(|group| super::array(&group["rules"]).cloned())
            .collect()
    }

    fn get(&self, path: &str) -> Value {
        http::get(self.address, &format!("/api/v1/{path}")).json()
    }
}
