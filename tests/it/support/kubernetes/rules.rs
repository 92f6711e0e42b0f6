//! The API server's validation of an update, as in Kubernetes 1.33 (`ValidateObjectMeta`,
//! `ValidateSecretUpdate` and `ValidateLeaseSpec`), or stricter where versions differ.

use axum::http::StatusCode;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Map, Value, json};

/// Why an update is refused.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

/// The limit of an object's annotations together.
const MOST_ANNOTATED: usize = 256 << 10;

/// The limit of a Secret's decoded data.
const MOST_KEPT: usize = 1 << 20;

/// The result of replacing `old` by `new`: fields that the server does not know are dropped.
pub(super) fn update(old: &Value, mut new: Value) -> Result<Value, Refusal> {
    let malformed = |what: &str| Refusal(StatusCode::BAD_REQUEST, what.to_owned());
    for field in ["apiVersion", "kind"] {
        if new[field] != old[field] {
            return Err(malformed("the object provided is unrecognized"));
        }
    }
    for field in ["name", "namespace"] {
        if new["metadata"][field] != old["metadata"][field] {
            return Err(malformed("the name does not match that of the URL"));
        }
    }
    let uid = &new["metadata"]["uid"];
    let other = !uid.is_null() && *uid != old["metadata"]["uid"];
    if new["metadata"]["resourceVersion"].as_str().is_none() {
        let problem = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
        return Err(invalid(problem));
    }
    if other || new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"] {
        return Err(Refusal(
            StatusCode::CONFLICT,
            "the object has been modified; please apply your changes to the latest version"
                .to_owned(),
        ));
    }
    metadata(&new["metadata"])?;
    let typed = match old["kind"].as_str() {
        Some("Secret") => {
            secret(old, &new)?;
            serde_json::from_value::<Secret>(new.clone()).and_then(serde_json::to_value)
        }
        _ => {
            lease(&new)?;
            serde_json::from_value::<Lease>(new.clone()).and_then(serde_json::to_value)
        }
    };
    let typed = typed.map_err(|problem| malformed(&problem.to_string()))?;
    new = typed;
    for field in ["uid", "creationTimestamp"] {
        new["metadata"][field] = old["metadata"][field].clone();
    }
    Ok(new)
}

fn invalid(problem: &str) -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem.to_owned())
}

fn metadata(metadata: &Value) -> Result<(), Refusal> {
    let mut total = 0;
    for (key, value) in members(&metadata["annotations"]) {
        if !is_qualified(key) {
            return Err(invalid(
                "metadata.annotations: name part must consist of alphanumeric characters, '-', '_' or '.'",
            ));
        }
        let value = value.as_str();
        let value = value.ok_or_else(|| invalid("metadata.annotations: must be a string"))?;
        total += key.len() + value.len();
    }
    match total <= MOST_ANNOTATED {
        true => Ok(()),
        false => Err(invalid(
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        )),
    }
}

/// A prefix that is a DNS name, and a name of at most 63 characters.
fn is_qualified(key: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_alphanumeric();
    let (prefix, name) = key.split_once('/').unwrap_or(("a", key));
    let dns = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !prefix.is_empty()
        && prefix.len() <= 253
        && prefix.bytes().all(dns)
        && (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && name.as_bytes().first().is_some_and(alphanumeric)
        && name.as_bytes().last().is_some_and(alphanumeric)
}

fn secret(old: &Value, new: &Value) -> Result<(), Refusal> {
    let of_type = |secret: &Value| secret["type"].as_str().unwrap_or("Opaque").to_owned();
    if of_type(old) != of_type(new) {
        return Err(invalid("type: field is immutable"));
    }
    if old["immutable"] == json!(true)
        && (new["immutable"] != json!(true) || old["data"] != new["data"])
    {
        return Err(invalid("data: field is immutable when `immutable` is set"));
    }
    let mut total = 0;
    for (key, value) in members(&new["data"]) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=253).contains(&key.len()) || !key.bytes().all(plain) {
            return Err(invalid(
                "data: a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            ));
        }
        total += value.as_str().map_or(0, str::len) / 4 * 3;
    }
    match total <= MOST_KEPT {
        true => Ok(()),
        false => Err(invalid(
            "data: Too long: may not be more than 1048576 bytes",
        )),
    }
}

fn lease(new: &Value) -> Result<(), Refusal> {
    let spec = &new["spec"];
    let number = |field: &str| spec.get(field).map(|value| value.as_i64().unwrap_or(-1));
    if number("leaseDurationSeconds").is_some_and(|seconds| seconds <= 0) {
        return Err(invalid("spec.leaseDurationSeconds: must be greater than 0"));
    }
    if number("leaseTransitions").is_some_and(|times| times < 0) {
        return Err(invalid(
            "spec.leaseTransitions: must be greater than or equal to 0",
        ));
    }
    if spec["holderIdentity"] == json!("") {
        return Err(invalid("spec.holderIdentity: must not be empty"));
    }
    for field in ["acquireTime", "renewTime"] {
        if let Some(time) = spec.get(field)
            && !time.as_str().is_some_and(is_micro_time)
        {
            let problem = format!("{field}: parsing time as \"2006-01-02T15:04:05.000000Z07:00\"");
            return Err(Refusal(StatusCode::BAD_REQUEST, problem));
        }
    }
    Ok(())
}

fn is_micro_time(text: &str) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd.ddddddZ";
    let fits = |(want, is): (u8, u8)| match want {
        b'd' => is.is_ascii_digit(),
        other => is == other,
    };
    text.len() == pattern.len() && pattern.bytes().zip(text.bytes()).all(fits)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, rest: Value) -> Value {
        let mut object = json!({
            "apiVersion": if kind == "Lease" { "coordination.k8s.io/v1" } else { "v1" }, "kind": kind,
            "metadata": {"name": "a", "namespace": "b", "uid": "c", "resourceVersion": "1"},
        });
        for (key, value) in members(&rest) {
            match key.as_str() {
                "annotations" => object["metadata"][key] = value.clone(),
                _ => object[key] = value.clone(),
            }
        }
        object
    }

    #[test]
    fn what_a_real_server_refuses_is_refused() {
        let now = "2026-11-21T08:26:27.000001Z";
        let well =
            json!({"spec": {"leaseDurationSeconds": 1, "holderIdentity": "a", "renewTime": now}});
        let lease = object("Lease", json!({}));
        assert!(update(&lease, object("Lease", well)).is_ok());
        assert!(
            update(
                &lease,
                object("Lease", json!({"annotations": {"a/b-c": ""}}))
            )
            .is_ok()
        );
        for (rest, status) in [
            (json!({"spec": {"leaseDurationSeconds": 0}}), 422),
            (json!({"spec": {"holderIdentity": ""}}), 422),
            (json!({"spec": {"leaseTransitions": -1}}), 422),
            (json!({"spec": {"renewTime": "2026-11-21T08:26:27Z"}}), 400),
            (json!({"annotations": {"a/b/c": ""}}), 422),
            (json!({"annotations": {"a/": ""}}), 422),
            (json!({"annotations": {"a": "b".repeat(256 << 10)}}), 422),
        ] {
            let refusal = update(&lease, object("Lease", rest.clone())).unwrap_err();
            assert_eq!(refusal.0.as_u16(), status, "{rest} {refusal:?}");
        }
        let secret = object("Secret", json!({"type": "Opaque", "immutable": true}));
        for (rest, status) in [
            (
                json!({"type": "Opaque", "immutable": true, "data": {"a": "YQ=="}}),
                422,
            ),
            (json!({"type": "kubernetes.io/tls"}), 422),
            (json!({"kind": "Lease"}), 400),
        ] {
            let refusal = update(&secret, object("Secret", rest.clone())).unwrap_err();
            assert_eq!(refusal.0.as_u16(), status, "{rest} {refusal:?}");
        }
        let secret = object("Secret", json!({}));
        for data in [
            json!({"a/b": "YQ=="}),
            json!({"a": "%"}),
            json!({"a": "A".repeat(2 << 20)}),
        ] {
            assert!(update(&secret, object("Secret", json!({"data": data}))).is_err());
        }
        let mut stale = secret.clone();
        stale["metadata"]["resourceVersion"] = json!("0");
        let refusal = update(&secret, stale).unwrap_err();
        assert_eq!(refusal.0, StatusCode::CONFLICT);
    }
}
