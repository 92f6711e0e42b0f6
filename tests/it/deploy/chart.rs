//! The Helm chart, rendered by Helm's own code.

use std::process::{Command, Output};

use serde_json::{Value, json};

use super::containers::assert_served_by_tls;
use super::kustomize::{
    assert_certified, assert_ends_in_time, assert_narrow, assert_scraped_without_a_token,
    assert_sidecar,
};
use super::objects::{Objects, list};
use super::{python, run, top};
use crate::support::file;

/// Runs Helm on the chart at `path` with `values`.
fn helm(path: &str, values: &Value, more: &[&str]) -> Output {
    let (_folder, values) = file("values.json", values.to_string().as_bytes());
    run(Command::new(python())
        .arg(top().join("tests/python/render_chart.py"))
        .arg(top().join(path))
        .arg(values)
        .args(more))
}

/// The rendered objects.
pub(super) fn rendered(path: &str, values: &Value, more: &[&str]) -> Objects {
    let output = helm(path, values, more);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{values}: {error}");
    Objects::read(&String::from_utf8(output.stdout).unwrap())
}

const CHART: &str = "deploy/helm/collibra-auth-proxy";

/// Every store, with all options on.
fn gateways() -> [Value; 4] {
    let redis = json!({"url": "rediss://redis.collibra.svc:6379", "existingSecret": "redis"});
    [
        json!({}),
        json!({"store": {"kind": "file"}, "networkPolicy": {"enabled": false}}),
        json!({
            "store": {"kind": "redis", "redis": redis},
            "autoscaling": {"enabled": true},
            "podMonitor": {"enabled": true},
            "extraHosts": ["collibra.internal"],
            "nodeSelector": {"kubernetes.io/arch": "arm64"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "registry"}],
            "podAnnotations": {"a": "b"},
        }),
        json!({
            "store": {"kind": "kubernetes"},
            "replicas": 4,
            "serviceMonitor": {"enabled": true, "labels": {"release": "monitoring"}},
            "prometheusRule": {"enabled": true, "labels": {"release": "monitoring"}},
        }),
    ]
}

#[test]
fn every_gateway_is_exact_and_restricted() {
    let mut said = Vec::new();
    for values in gateways() {
        let objects = rendered(CHART, &values, &["lint"]);
        objects.assert_sound();
        assert_ends_in_time(&objects);
        let store = &values["store"]["kind"];
        said.push(format!("{store}: {}", objects.kinds()));
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    null: ConfigMap, Deployment, NetworkPolicy, PodDisruptionBudget, Service, ServiceAccount
    "file": ConfigMap, Deployment, PodDisruptionBudget, Service, ServiceAccount
    "redis": ConfigMap, Deployment, HorizontalPodAutoscaler, NetworkPolicy, PodDisruptionBudget, PodMonitor, Service, ServiceAccount
    "kubernetes": ConfigMap, Deployment, Lease, NetworkPolicy, PodDisruptionBudget, PrometheusRule, Role, RoleBinding, Secret, Service x 2, ServiceAccount, ServiceMonitor
    "#);
}

#[test]
fn the_api_server_is_reached_with_one_store_and_for_two_objects_only() {
    for values in gateways() {
        let objects = rendered(CHART, &values, &[]);
        let wanted = values["store"]["kind"] == "kubernetes";
        assert_eq!(objects.pod()["automountServiceAccountToken"], wanted);
        assert_eq!(objects.of_kind("Role").count(), usize::from(wanted));
        if wanted {
            assert_narrow(&objects);
        }
    }
}

#[test]
fn monitors_and_rules_carry_the_labels_that_prometheus_selects_by() {
    let values = json!({
        "serviceMonitor": {"enabled": true, "labels": {"release": "monitoring"}},
        "prometheusRule": {
            "enabled": true,
            "labels": {"release": "monitoring"},
            "runbooks": "https://wiki.example/proxy",
        },
    });
    let objects = rendered(CHART, &values, &[]);
    assert_scraped_without_a_token(&objects);
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        let labels = &objects.one(kind)["metadata"]["labels"];
        assert_eq!(labels["release"], "monitoring", "{kind}");
    }
    let rules = list(&objects.one("PrometheusRule")["spec"]["groups"])
        .flat_map(|group| list(&group["rules"]))
        .filter(|rule| rule["alert"].is_string());
    let mut count = 0;
    for alert in rules {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.starts_with("https://wiki.example/proxy#"), "{url}");
        count += 1;
    }
    assert!(count > 0);

    let other = json!({"podMonitor": {"enabled": true, "labels": {"release": "monitoring"}}});
    let objects = rendered(CHART, &other, &[]);
    let labels = &objects.one("PodMonitor")["metadata"]["labels"];
    assert_eq!(labels["release"], "monitoring");
}

#[test]
fn a_gateway_answers_with_tls_and_http_2() {
    assert_served_by_tls(&rendered(CHART, &json!({}), &[]));
    let plain = rendered(CHART, &json!({"tls": {"enabled": false}}), &[]);
    plain.assert_sound();
    let ports = list(&plain.one("Service")["spec"]["ports"]);
    assert_eq!(ports.map(|port| &port["port"]).collect::<Vec<_>>(), [80]);
}

#[test]
fn cert_manager_writes_the_secret_that_the_gateway_mounts() {
    let issuer = json!({"kind": "Issuer", "name": "internal"});
    let tls = json!({"certificate": {"enabled": true, "issuer": issuer}});
    let objects = rendered(
        CHART,
        &json!({"tls": tls, "extraHosts": ["a.example"]}),
        &[],
    );
    objects.assert_sound();
    assert_certified(&objects);
    let names = &objects.one("Certificate")["spec"]["dnsNames"];
    assert!(list(names).any(|name| name == "a.example"));
}

#[test]
fn a_chart_of_an_app_takes_the_sidecar_by_two_lines() {
    for values in [
        json!({}),
        json!({"collibra-auth-proxy": {"store": {"kind": "file"}}}),
    ] {
        let objects = rendered("tests/helm/exporter", &values, &[]);
        objects.assert_sound();
        assert_sidecar(&objects);
        assert_eq!(objects.kinds(), "ConfigMap, Job");
    }
}

#[test]
fn values_that_cannot_be_meant_are_refused() {
    for (values, said) in [
        (json!({"replicaCount": 2}), "replicaCount"),
        (json!({"image": {"tagg": "1"}}), "tagg"),
        (json!({"image": {"tag": "latest"}}), "/image/tag"),
        (
            json!({"instance": {"url": "http://acme.collibra.com"}}),
            "/instance/url",
        ),
        (
            json!({"tls": {"certificate": {"enabled": true}}}),
            "/tls/certificate/issuer/name",
        ),
        (json!({"store": {"kind": "memcached"}}), "/store/kind"),
        (json!({"store": {"kind": "redis"}}), "/store/redis/url"),
        (json!({"apps": {"named": {"a b": {}}}}), "'a b'"),
        (json!({"apps": {"named": {"a": {"alow": []}}}}), "alow"),
        // gateways without a shared store would request tokens of their own
        (json!({"replicas": 3}), "/replicas"),
        (
            json!({"autoscaling": {"enabled": true}}),
            "/autoscaling/enabled",
        ),
        // each gateway would be scraped twice
        (
            json!({"podMonitor": {"enabled": true}, "serviceMonitor": {"enabled": true}}),
            "/serviceMonitor/enabled",
        ),
    ] {
        let output = helm(CHART, &values, &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{values}: {error}");
        assert!(error.contains(said), "{values}: {error}");
    }
}
