//! Objects that a kube-apiserver left in the store, in the form in which this server keeps them.
//!
//! In: the bytes of a key. Out: JSON of this server's storage version. A kube-apiserver keeps most kinds as protobuf, fills in
//! defaults whenever it reads, and keeps definitions of custom kinds as v1beta1, whatever version it serves.

use super::entry::stored;
use bytes::Bytes;
use coracle_api::{decode, defaults, kinds, protobuf};
use serde_json::{Map, Value, json};

const OLD_DEFINITION: &[u8] =
    b"{\"kind\":\"CustomResourceDefinition\",\"apiVersion\":\"apiextensions.k8s.io/v1beta1\"";

/// Bytes that are this server's own, or no object at all, stay as they are.
#[must_use]
pub fn adopted(raw: Bytes) -> Bytes {
    let object = if raw.starts_with(protobuf::MAGIC) {
        protobuf::decode(&raw).ok()
    } else if raw.starts_with(OLD_DEFINITION) {
        serde_json::from_slice(&raw).ok().map(definition)
    } else {
        return raw;
    };
    object.map(read).map_or(raw, |object| stored(&object).into())
}

/// What reading an object makes of it.
fn read(object: Value) -> Value {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let Some(kind) = kinds::by_gvk(text("apiVersion"), text("kind")) else { return object };
    let mut object = match decode::canonical(object.clone(), kind) {
        Ok(decoded) => decoded.object,
        Err(_) => object,
    };
    defaults::apply(&mut object, kind);
    decode::settle(&mut object, kind);
    object
}

/// A definition of v1beta1 as v1: what is the same for all versions stands in each of them.
fn definition(mut object: Value) -> Value {
    object["apiVersion"] = json!("apiextensions.k8s.io/v1");
    let Some(spec) = object["spec"].as_object_mut() else { return object };
    let shared = [("validation", "schema"), ("subresources", "subresources"), (COLUMNS, COLUMNS)];
    let shared: Vec<(&str, Value)> =
        shared.into_iter().filter_map(|(from, to)| Some((to, spec.remove(from)?))).collect();
    let version = spec.remove("version").unwrap_or_default();
    let versions =
        spec.entry("versions").or_insert_with(|| json!([{"name": version, "served": true, "storage": true}]));
    for version in versions.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for (field, value) in &shared {
            version.entry(*field).or_insert_with(|| value.clone());
        }
        let columns = version.get_mut(COLUMNS).and_then(Value::as_array_mut);
        for column in columns.into_iter().flatten().filter_map(Value::as_object_mut) {
            rename(column, "JSONPath", "jsonPath");
        }
    }
    if spec.get("preserveUnknownFields") == Some(&json!(false)) {
        spec.remove("preserveUnknownFields");
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        rename(conversion, "webhookClientConfig", "clientConfig");
        let of_webhook = ["clientConfig", "conversionReviewVersions"];
        let webhook: Map<String, Value> =
            of_webhook.into_iter().filter_map(|field| conversion.remove_entry(field)).collect();
        if webhook.contains_key("clientConfig") {
            conversion.insert("webhook".to_owned(), webhook.into());
        }
    }
    object
}

const COLUMNS: &str = "additionalPrinterColumns";

fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(raw: impl Into<Bytes>) -> Value {
        serde_json::from_slice(&adopted(raw.into())).expect("json")
    }

    #[test]
    fn protobuf_is_read_with_the_defaults_of_today() {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "a"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let read = object(protobuf::encode(&claim).expect("protobuf"));
        assert_eq!(read["spec"]["volumeMode"], "Filesystem");
        assert_eq!(read["status"]["phase"], "Pending");
        for own in ["{\"kind\":\"Pod\"}", "k8s\0broken", "", "text"] {
            assert_eq!(adopted(Bytes::from(own)), own, "stays");
        }
    }

    #[test]
    fn definitions_of_v1beta1_have_in_each_version_what_was_said_once() {
        let old = json!({"metadata": {"name": "as.b.c"}, "spec": {
            "group": "b.c", "names": {"plural": "as", "kind": "A"}, "scope": "Namespaced", "version": "v1",
            "preserveUnknownFields": false, "validation": {"openAPIV3Schema": {"type": "object"}},
            "versions": [{"name": "v1", "served": true, "storage": true},
                {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "string"}},
                    "additionalPrinterColumns": [{"name": "S", "type": "string", "JSONPath": ".s"}]}],
            "conversion": {"strategy": "Webhook", "conversionReviewVersions": ["v1"],
                "webhookClientConfig": {"url": "https://a.b"}}}});
        let text = String::from_utf8(stored(&old)).expect("text");
        let head = String::from_utf8_lossy(OLD_DEFINITION).into_owned();
        let read = object(text.replacen("{\"kind\":null,\"apiVersion\":null", &head, 1));
        assert_eq!(read["apiVersion"], "apiextensions.k8s.io/v1");
        let spec = &read["spec"];
        assert_eq!(spec["versions"][0]["schema"]["openAPIV3Schema"]["type"], "object");
        assert_eq!(spec["versions"][1]["schema"]["openAPIV3Schema"]["type"], "string");
        assert_eq!(spec["versions"][1][COLUMNS][0]["jsonPath"], ".s");
        let webhook = json!({"clientConfig": {"url": "https://a.b"}, "conversionReviewVersions": ["v1"]});
        assert_eq!(spec["conversion"], json!({"strategy": "Webhook", "webhook": webhook}));
        for gone in ["version", "validation", "preserveUnknownFields"] {
            assert_eq!(spec.get(gone), None, "{gone}");
        }
    }
}
