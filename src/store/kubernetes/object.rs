//! Accessors for the parts of an object that the store uses; the rest stays unchanged.

use serde_json::{Map, Value, json};

/// The resource version of an object.
pub(super) fn version(object: &Value) -> Option<&str> {
    object["metadata"]["resourceVersion"].as_str()
}

/// The annotation `name`.
pub(super) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

/// Sets the annotation `name`, or removes it.
pub(super) fn annotate(object: &mut Value, name: &str, value: Option<String>) {
    let annotations = members_of(&mut object["metadata"], "annotations");
    match value {
        Some(value) => annotations.insert(name.to_owned(), json!(value)),
        None => annotations.remove(name),
    };
}

/// The map `name` of `object`, created if it does not exist.
pub(super) fn members_of<'a>(object: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    let member = &mut object[name];
    if !member.is_object() {
        *member = json!({});
    }
    match member {
        Value::Object(members) => members,
        _ => unreachable!("it is made an object above"),
    }
}
