//! ConfigMap, Secret, ServiceAccount.

use super::node::{Faults, Node};
use crate::{decode, labels};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

const MAX_BYTES: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

/// The bytes of a base64 text; none where it is none.
pub(super) fn decoded(value: &Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
}

pub(super) fn config_map(object: &Node<'_, '_>, out: &mut Faults) {
    let (data, binary) = (object.get("data"), object.get("binaryData"));
    let mut size = 0;
    for (key, value) in data.entries() {
        labels::is_config_map_key(key)
            .into_iter()
            .for_each(|complaint| value.invalid_as(&json!(key), complaint, out));
        if binary.key(key).is_set() {
            value.invalid_as(&json!(key), "duplicate of key present in binaryData", out);
        }
        size += value.text().len();
    }
    for (key, value) in binary.entries() {
        labels::is_config_map_key(key)
            .into_iter()
            .for_each(|complaint| value.invalid_as(&json!(key), complaint, out));
        size += decoded(value.value).len();
    }
    if size > MAX_BYTES {
        // Kubernetes names an empty path here, which prints as `[]`.
        Node::root(object.value).key("").too_long(1_048_576, out);
    }
}

pub(super) fn config_map_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    frozen(new, old, &["data", "binaryData"], out);
    config_map(new, out);
}

/// An object that was marked immutable stays so, and keeps its data.
fn frozen(new: &Node<'_, '_>, old: &Node<'_, '_>, fields: &[&str], out: &mut Faults) {
    if !old.get("immutable").is_true() {
        return;
    }
    if !new.get("immutable").is_true() {
        new.get("immutable").forbidden(FROZEN, out);
    }
    for field in fields {
        if !crate::strategy::same(new.get(field).value, old.get(field).value) {
            new.get(field).forbidden(FROZEN, out);
        }
    }
}

pub(super) fn secret(object: &Node<'_, '_>, out: &mut Faults) {
    let data = object.get("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        labels::is_config_map_key(key)
            .into_iter()
            .for_each(|complaint| value.invalid_as(&json!(key), complaint, out));
        size += decoded(value.value).len();
    }
    if size > MAX_BYTES {
        data.too_long(1_048_576, out);
    }
    let needs = |keys: &[&str], out: &mut Faults| {
        keys.iter().filter(|key| !data.key(key).is_set()).for_each(|key| data.key(key).required("", out));
    };
    match object.get("type").text() {
        "kubernetes.io/service-account-token" => {
            let annotations = object.get("metadata.annotations");
            let account = annotations.key("kubernetes.io/service-account.name");
            if account.is_empty() {
                account.required("", out);
            }
        }
        "kubernetes.io/dockercfg" => json_entry(&data, ".dockercfg", out),
        "kubernetes.io/dockerconfigjson" => json_entry(&data, ".dockerconfigjson", out),
        "kubernetes.io/basic-auth" if !data.key("username").is_set() && !data.key("password").is_set() => {
            needs(&["username", "password"], out);
        }
        "kubernetes.io/ssh-auth" => {
            let key = data.key("ssh-privatekey");
            if key.is_empty() {
                key.required("", out);
            }
        }
        "kubernetes.io/tls" => needs(&["tls.crt", "tls.key"], out),
        _ => {}
    }
}

fn json_entry(data: &Node<'_, '_>, key: &str, out: &mut Faults) {
    let entry = data.key(key);
    if !entry.is_set() {
        return entry.required("", out);
    }
    let fault = match decode::document_of_json(&decoded(entry.value)) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            format!(
                "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                crate::decode::found(&other)
            )
        }
        Err(fault) => fault,
    };
    entry.invalid_as(&json!("<secret contents redacted>"), fault, out);
}

pub(super) fn secret_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    new.get("type").same_as(&old.get("type"), out);
    frozen(new, old, &["data"], out);
    secret(new, out);
}
