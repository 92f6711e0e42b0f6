//! The schema of Kubernetes objects: a field that the API does not know, or would read differently,
//! is a fault.

use std::collections::BTreeMap;

use k8s_openapi::api;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fields of `object` that its kind does not have, or has in another form. Empty if it is
/// valid.
pub(crate) fn faults(object: &Value) -> Vec<String> {
    let of = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let read = match (of("apiVersion").as_str(), of("kind").as_str()) {
        ("v1", "ConfigMap") => again::<api::core::v1::ConfigMap>(object),
        ("v1", "Namespace") => again::<api::core::v1::Namespace>(object),
        ("v1", "Secret") => again::<api::core::v1::Secret>(object),
        ("v1", "Service") => again::<api::core::v1::Service>(object),
        ("v1", "ServiceAccount") => again::<api::core::v1::ServiceAccount>(object),
        ("apps/v1", "Deployment") => again::<api::apps::v1::Deployment>(object),
        ("apps/v1", "StatefulSet") => again::<api::apps::v1::StatefulSet>(object),
        ("batch/v1", "Job") => again::<api::batch::v1::Job>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            again::<api::autoscaling::v2::HorizontalPodAutoscaler>(object)
        }
        ("coordination.k8s.io/v1", "Lease") => again::<api::coordination::v1::Lease>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            again::<api::networking::v1::NetworkPolicy>(object)
        }
        ("policy/v1", "PodDisruptionBudget") => {
            again::<api::policy::v1::PodDisruptionBudget>(object)
        }
        ("rbac.authorization.k8s.io/v1", "Role") => again::<api::rbac::v1::Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => {
            again::<api::rbac::v1::RoleBinding>(object)
        }
        ("cert-manager.io/v1", "Certificate") => again::<Custom<Certificate>>(object),
        ("monitoring.coreos.com/v1", "PodMonitor") => again::<Custom<PodMonitor>>(object),
        ("monitoring.coreos.com/v1", "ServiceMonitor") => again::<Custom<ServiceMonitor>>(object),
        ("monitoring.coreos.com/v1", "PrometheusRule") => again::<Custom<PrometheusRule>>(object),
        (version, kind) => Err(format!("{version} {kind}: no kind that is known here")),
    };
    match read {
        Ok(read) => {
            let mut found = Vec::new();
            compare(object, &read, "", &mut found);
            found
        }
        Err(fault) => vec![fault],
    }
}

/// Parses `object` as a `T` and serializes it again.
fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// Finds the differences between the original and what was parsed.
fn compare(written: &Value, read: &Value, place: &str, found: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                let place = format!("{place}.{key}");
                match read.get(key) {
                    Some(read) => compare(value, read, &place, found),
                    None => found.push(format!("{place}: unknown")),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (index, (written, read)) in written.iter().zip(read).enumerate() {
                compare(written, read, &format!("{place}[{index}]"), found);
            }
        }
        _ if written == read => {}
        _ => found.push(format!("{place}: {written} is read as {read}")),
    }
}

/// A kind that is not Kubernetes' own, as far as it is used here.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Custom<Spec> {
    api_version: String,
    kind: String,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    spec: Spec,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Certificate {
    secret_name: String,
    dns_names: Vec<String>,
    issuer_ref: Issuer,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Issuer {
    group: String,
    kind: String,
    name: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodMonitor {
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    pod_metrics_endpoints: Vec<MetricsEndpoint>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceMonitor {
    job_label: String,
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    endpoints: Vec<MetricsEndpoint>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MetricsEndpoint {
    port: String,
    path: String,
    interval: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PrometheusRule {
    groups: Vec<RuleGroup>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RuleGroup {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Rule {
    Record(Record),
    Alert(Alert),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    record: String,
    expr: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    alert: String,
    expr: String,
    r#for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

mod of_the_check_itself {
    use serde_json::json;

    use super::faults;

    #[test]
    fn what_kubernetes_does_not_know_is_found() {
        let service = |spec: serde_json::Value| {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec
            })
        };
        assert!(faults(&service(json!({"ports": [{"port": 80}]}))).is_empty());
        let misspelt = faults(&service(
            json!({"ports": [{"port": 80, "targetport": 8080}]}),
        ));
        assert_eq!(misspelt, [".spec.ports[0].targetport: unknown"]);
        assert_eq!(
            faults(&service(json!({"ports": [{"port": "80"}]}))).len(),
            1
        );
        assert_eq!(
            faults(&json!({"apiVersion": "v2", "kind": "Service"})).len(),
            1
        );
    }
}
