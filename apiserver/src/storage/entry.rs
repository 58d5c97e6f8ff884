//! One revision of one object: its stored bytes, parsed and encoded only when somebody needs that, and once.
//!
//! Stored bytes begin with `{"kind":K,"apiVersion":V,"metadata":{` and hold no resourceVersion: it is the key's revision,
//! put in right after that opening when the object is sent.

use super::{encryption, foreign};
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_api::{meta, protobuf};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// An object as of one revision.
#[derive(Debug)]
pub struct Entry {
    /// The key after the resource's prefix.
    pub tail: String,
    /// The resourceVersion.
    pub revision: u64,
    raw: Bytes,
    value: OnceLock<Arc<Value>>,
    protobuf: OnceLock<Option<Bytes>>,
}

/// The bytes to store of an object.
#[must_use]
pub fn stored(object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    let mut write = |key: &str, value: &Value| {
        out.push(if out.is_empty() { b'{' } else { b',' });
        // Writing JSON to memory does not fail.
        let _ = serde_json::to_writer(&mut out, key);
        out.push(b':');
        let _ = match value.as_object().filter(|_| key == "metadata") {
            Some(metadata) => {
                let kept = metadata.iter().filter(|(key, _)| *key != "resourceVersion");
                serde::Serializer::collect_map(&mut serde_json::Serializer::new(&mut out), kept)
            }
            None => serde_json::to_writer(&mut out, value),
        };
    };
    for key in ["kind", "apiVersion", "metadata"] {
        write(key, &object[key]);
    }
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            write(key, value);
        }
    }
    out.push(b'}');
    out
}

impl Entry {
    /// From what the store holds.
    #[must_use]
    pub fn new(tail: &str, revision: u64, raw: Bytes) -> Self {
        let raw = foreign::adopted(raw);
        Self { tail: tail.to_owned(), revision, raw, value: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// The same object with another revision, as a deletion tells it.
    #[must_use]
    pub fn at(&self, revision: u64) -> Self {
        Self::new(&self.tail, revision, self.raw.clone())
    }

    /// With the object that its bytes were made of, which saves parsing them.
    #[must_use]
    pub fn with_value(self, mut object: Value) -> Self {
        meta::set(&mut object, "resourceVersion", self.revision.to_string());
        let _ = self.value.set(Arc::new(object));
        self
    }

    /// The object, with its resourceVersion.
    #[must_use]
    pub fn value(&self) -> &Arc<Value> {
        self.value.get_or_init(|| {
            let mut object: Value = serde_json::from_slice(&self.raw).unwrap_or_else(|error| {
                tracing::error!(key = self.tail, %error, "a stored object cannot be read");
                Value::Object(serde_json::Map::new())
            });
            meta::set(&mut object, "resourceVersion", self.revision.to_string());
            Arc::new(object)
        })
    }

    /// The stored bytes.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Why the object cannot be read; `None` when it can.
    #[must_use]
    pub fn fault(&self) -> Option<Status> {
        self.fault_as(false)
    }

    /// The same where it is one of several.
    #[must_use]
    pub fn fault_among(&self) -> Option<Status> {
        self.fault_as(true)
    }

    fn fault_as(&self, among: bool) -> Option<Status> {
        if self.raw.starts_with(b"{") {
            return None;
        }
        let why = encryption::fault(&self.raw, among).or_else(|| {
            let error = protobuf::decode(&self.raw).err()?;
            Some(format!("unable to decode a stored object: {error}"))
        });
        why.map(Status::internal)
    }

    /// Itself.
    ///
    /// # Errors
    /// The object cannot be read.
    pub fn readable(entry: Arc<Self>) -> Result<Arc<Self>, Status> {
        entry.fault().map_or(Ok(entry), Err)
    }

    /// Where the members of `metadata` begin; `None` when somebody else laid the bytes out.
    fn metadata_at(&self) -> Option<usize> {
        let at = 1 + self.raw.get(1..)?.iter().position(|byte| *byte == b'{')?;
        let head = &self.raw[..at];
        let own = head.starts_with(b"{\"kind\":\"") && head.ends_with(b"\"metadata\":");
        (own && self.raw.get(at + 1) == Some(&b'"')).then_some(at + 1)
    }

    /// Appends the object as JSON; items of lists go without kind and apiVersion.
    pub fn write_json(&self, out: &mut Vec<u8>, as_item: bool) {
        let Some(at) = self.metadata_at() else { return self.write_parsed(out, as_item) };
        out.reserve(self.raw.len() + 40);
        out.extend_from_slice(if as_item { b"{\"metadata\":{" } else { &self.raw[..at] });
        out.extend_from_slice(b"\"resourceVersion\":\"");
        out.extend_from_slice(self.revision.to_string().as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&self.raw[at..]);
    }

    fn write_parsed(&self, out: &mut Vec<u8>, as_item: bool) {
        let mut object = self.value().as_ref().clone();
        if let Some(object) = object.as_object_mut().filter(|_| as_item) {
            object.remove("kind");
            object.remove("apiVersion");
        }
        let _ = serde_json::to_writer(out, &object);
    }

    /// The object as protobuf, where its kind has a message.
    #[must_use]
    pub fn protobuf(&self) -> Option<&Bytes> {
        let encoded = self.protobuf.get_or_init(|| match protobuf::encode(self.value()) {
            Ok(bytes) => Some(bytes.into()),
            Err(error) => {
                tracing::debug!(key = self.tail, %error, "no protobuf form");
                None
            }
        });
        encoded.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_resource_version_is_put_into_the_stored_bytes() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "{"},
            "metadata": {"name": "a", "resourceVersion": "1"}});
        let entry = Entry::new("default/a", 7, stored(&object).into());
        assert!(!String::from_utf8_lossy(entry.raw()).contains("resourceVersion"));
        let mut whole = Vec::new();
        entry.write_json(&mut whole, false);
        let mut want = object.clone();
        want["metadata"]["resourceVersion"] = json!("7");
        assert_eq!(serde_json::from_slice::<Value>(&whole).expect("json"), want);
        assert_eq!(entry.value().as_ref(), &want);
        let mut item = Vec::new();
        entry.write_json(&mut item, true);
        assert!(item.starts_with(b"{\"metadata\":{\"resourceVersion\":\"7\",\"name\""));
        let foreign = Entry::new("a", 7, serde_json::to_vec(&object).expect("json").into());
        let mut whole = Vec::new();
        foreign.write_json(&mut whole, false);
        assert_eq!(serde_json::from_slice::<Value>(&whole).expect("json"), want);
    }

    #[test]
    fn what_a_kube_apiserver_left_is_read_and_what_is_no_object_is_its_own_fault() {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "resourceVersion": "7"},
            "data": {"k": "dg=="}, "type": "Opaque"});
        let entry = Entry::new("default/a", 7, protobuf::encode(&object).expect("protobuf").into());
        assert_eq!((entry.value().as_ref(), entry.fault()), (&object, None));
        let mut whole = Vec::new();
        entry.write_json(&mut whole, false);
        assert!(whole.starts_with(
            b"{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"7\""
        ));
        for (raw, why) in [
            ("k8s\0\n", "unexpected EOF"),
            ("", "empty data"),
            ("x", "does not appear"),
            ("k8s:enc:x:", "encrypted data"),
        ] {
            let fault = Entry::new("default/a", 7, Bytes::from(raw)).fault().expect("a fault");
            assert!(fault.message.contains(why), "{raw:?}: {}", fault.message);
        }
    }
}
