//! `application/vnd.kubernetes.protobuf`, both ways, by table.
//!
//! An object travels as `k8s\0` + `Unknown { typeMeta { apiVersion, kind } = 1, raw = 2, … }`, where `raw` is its message.

mod read;
mod wire;
mod write;

use crate::decode;
use crate::{kinds, schema};
use serde_json::{Value, json};

/// What the bytes of an object begin with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Why bytes are not a Kubernetes protobuf object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtobufError(pub String);

/// The type of an object. Options and Status belong to every group.
fn type_of(api_version: &str, kind: &str) -> Result<usize, ProtobufError> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let own = schema::by_definition(&kinds::definition(group, version, kind));
    let found = own.or_else(|| schema::by_definition(&kinds::definition("meta.k8s.io", "v1", kind)));
    found.ok_or_else(|| ProtobufError(format!("no kind {kind:?} is registered for version {api_version:?}")))
}

/// Decodes an enveloped object (`k8s\0` + Unknown) to canonical JSON with `apiVersion` and `kind` set.
///
/// # Errors
/// Wrong magic, unknown type, malformed wire format or over-deep nesting.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    enveloped(body, 0)
}

/// An object that stands within others at this depth.
fn enveloped(body: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let unknown = body.strip_prefix(MAGIC).ok_or_else(|| {
        ProtobufError(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                .to_owned(),
        )
    })?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in wire::fields(unknown) {
        match field? {
            (1, wire::Field::Bytes(meta)) => {
                for field in wire::fields(meta) {
                    match field? {
                        (1, wire::Field::Bytes(text)) => api_version = wire::text(text)?,
                        (2, wire::Field::Bytes(text)) => kind = wire::text(text)?,
                        _ => {}
                    }
                }
            }
            (2, wire::Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let of = type_of(&api_version, &kind)?;
    let object = read::message(of, raw, depth)?;
    let mut object = decode::of_type(of, object).map_err(ProtobufError)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

/// Encodes an object (lists, Status, Table and WatchEvent's inner objects included) as magic + Unknown envelope, byte for byte as Go does.
///
/// # Errors
/// The object's kind has no protobuf message, or a value does not fit its field.
pub fn encode(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let mut raw = Vec::new();
    write::message(type_of(api_version, kind)?, object, &mut raw)?;
    let mut meta = Vec::new();
    wire::put_bytes(&mut meta, 1, api_version.as_bytes());
    wire::put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = MAGIC.to_vec();
    wire::put_bytes(&mut out, 1, &meta);
    wire::put_bytes(&mut out, 2, &raw);
    wire::put_bytes(&mut out, 3, b"");
    wire::put_bytes(&mut out, 4, b"");
    Ok(out)
}

/// One frame of a protobuf watch: 4-byte length + bare WatchEvent whose object is `enveloped` (from [`encode`]).
#[must_use]
pub fn watch_frame(event: &str, enveloped: &[u8]) -> Vec<u8> {
    let mut object = Vec::with_capacity(enveloped.len() + 8);
    wire::put_bytes(&mut object, 1, enveloped);
    let mut body = Vec::with_capacity(object.len() + 24);
    wire::put_bytes(&mut body, 1, event.as_bytes());
    wire::put_bytes(&mut body, 2, &object);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_back_as_they_went() {
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "n", "labels": {"b": "1", "a": "2"}, "creationTimestamp": "2024-01-02T03:04:05Z",
                "managedFields": [{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "2"}}, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "100m"}},
                    "ports": [{"containerPort": 80}], "securityContext": {"privileged": false}}]}}},
            "status": {}});
        let bytes = encode(&deployment).expect("encode");
        assert_eq!(decode(&bytes).expect("decode"), deployment);
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "AAEC"}});
        assert_eq!(decode(&encode(&secret).expect("encode")).expect("decode"), secret);
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"renewTime": "2024-01-02T03:04:05.000006Z"}});
        assert_eq!(decode(&encode(&lease).expect("encode")).expect("decode"), lease);
    }

    #[test]
    fn envelopes_within_envelopes_are_followed_only_so_deep() {
        let mut meta = Vec::new();
        wire::put_bytes(&mut meta, 1, b"apps/v1");
        wire::put_bytes(&mut meta, 2, b"ControllerRevision");
        let around = |inner: &[u8]| {
            let (mut raw, mut message, mut out) = (Vec::new(), Vec::new(), MAGIC.to_vec());
            wire::put_bytes(&mut raw, 1, inner);
            wire::put_bytes(&mut message, 2, &raw);
            wire::put_bytes(&mut out, 1, &meta);
            wire::put_bytes(&mut out, 2, &message);
            out
        };
        let nested = |depth: usize| (0..depth).fold(br#"{"a":1}"#.to_vec(), |inner, _| around(&inner));
        assert_eq!(decode(&nested(2)).expect("two")["data"]["data"], json!({"a": 1}));
        assert!(decode(&nested(3000)).is_err());
    }

    #[test]
    fn entries_of_maps_without_a_value_have_its_zero() {
        let mut meta = Vec::new();
        wire::put_bytes(&mut meta, 1, b"v1");
        wire::put_bytes(&mut meta, 2, b"Secret");
        let mut out = MAGIC.to_vec();
        wire::put_bytes(&mut out, 1, &meta);
        wire::put_bytes(&mut out, 2, b"\x12\x03\x0a\x01k");
        assert_eq!(decode(&out).expect("a secret")["data"], json!({"k": ""}));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(decode(b"{}").is_err());
        assert!(decode(b"k8s\0\x0a\xff").is_err());
        let options = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        assert_eq!(decode(&encode(&options).expect("encode")).expect("decode"), options);
    }
}
