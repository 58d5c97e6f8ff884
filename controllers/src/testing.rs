//! Objects for table tests, written as the JSON a user would write.

use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Any typed object; panics on JSON that does not fit.
pub fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the JSON fits the type")
}

/// A pod from its interesting parts.
pub fn pod(mut value: Value) -> Pod {
    if value.get("spec").is_none() {
        value["spec"] = json!({ "containers": [] });
    }
    object(value)
}

/// A time as pure functions take it.
pub fn at(text: &str) -> jiff::Timestamp {
    text.parse().expect("a time")
}
