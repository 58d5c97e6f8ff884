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

/// An object in its envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// Wrong magic, nothing in it, malformed wire format.
    pub fn open(body: &'a [u8]) -> Result<Self, ProtobufError> {
        let fault = |text: &str| ProtobufError(text.to_owned());
        if body.is_empty() {
            return Err(fault("empty data"));
        }
        let unknown = body.strip_prefix(MAGIC).ok_or_else(|| {
            fault("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
        })?;
        if unknown.is_empty() {
            return Err(fault("empty body"));
        }
        let mut envelope = Self::default();
        for field in wire::fields(unknown, "Unknown") {
            match field? {
                (1, wire::Field::Bytes(meta)) => {
                    for field in wire::fields(meta, "TypeMeta") {
                        match field? {
                            (1, wire::Field::Bytes(text)) => envelope.api_version = wire::text(text),
                            (2, wire::Field::Bytes(text)) => envelope.kind = wire::text(text),
                            (number @ 1..=2, other) => {
                                return Err(misplaced(&["APIVersion", "Kind"], number, &other));
                            }
                            _ => {}
                        }
                    }
                }
                (2, wire::Field::Bytes(bytes)) => envelope.raw = bytes,
                (number @ 1..=4, other) if other.wire_type() != 2 => {
                    return Err(misplaced(
                        &["TypeMeta", "Raw", "ContentEncoding", "ContentType"],
                        number,
                        &other,
                    ));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// The object as canonical JSON with `apiVersion` and `kind` set.
    ///
    /// # Errors
    /// Unknown type, malformed wire format or over-deep nesting.
    pub fn object(&self) -> Result<Value, ProtobufError> {
        self.object_at(0)
    }

    fn object_at(&self, depth: usize) -> Result<Value, ProtobufError> {
        let of = type_of(&self.api_version, &self.kind)?;
        let object = read::message(of, self.raw, depth)?;
        let mut object = decode::of_type(of, object).map_err(ProtobufError)?;
        object["apiVersion"] = json!(self.api_version);
        object["kind"] = json!(self.kind);
        Ok(object)
    }
}

fn misplaced(names: &[&str], number: u32, content: &wire::Field<'_>) -> ProtobufError {
    let name = names.get(number as usize - 1).copied().unwrap_or_default();
    ProtobufError(format!("proto: wrong wireType = {} for field {name}", content.wire_type()))
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
    Envelope::open(body)?.object_at(depth)
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

    /// A ConfigMap of these bytes.
    fn map(raw: &[u8]) -> Vec<u8> {
        enclosed(b"ConfigMap", raw)
    }

    fn enclosed(kind: &[u8], raw: &[u8]) -> Vec<u8> {
        let (mut meta, mut out) = (Vec::new(), MAGIC.to_vec());
        wire::put_bytes(&mut meta, 1, b"v1");
        wire::put_bytes(&mut meta, 2, kind);
        wire::put_bytes(&mut out, 1, &meta);
        wire::put_bytes(&mut out, 2, raw);
        out
    }

    #[test]
    fn what_is_broken_is_told_in_the_words_of_go() {
        // (the bytes of a ConfigMap, what is wrong)
        let rows: [(&[u8], &str); 16] = [
            (b"\n\x03\n\x02m", "unexpected EOF"),
            (b"\n", "unexpected EOF"),
            (b"\x08\x01", "proto: wrong wireType = 0 for field ObjectMeta"),
            (b"\n\x02\x08\x01", "proto: wrong wireType = 0 for field Name"),
            (
                b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                "proto: negative length found during unmarshaling",
            ),
            (b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "proto: integer overflow"),
            (b"\x02\x00", "proto: ConfigMap: illegal tag 0 (wire type 2)"),
            (b"\x0c", "proto: ConfigMap: wiretype end group for non-group"),
            (b"\x0b\x0c", "proto: wrong wireType = 3 for field ObjectMeta"),
            (b"{", "unexpected EOF"),
            (b"~", "proto: illegal wireType 6"),
            (b"z\x05x", "unexpected EOF"),
            (b"\n\x04B\x02\n\x00", "proto: wrong wireType = 2 for field Seconds"),
            (b"\x12\x04\n\x01a\x10", "unexpected EOF"),
            (b" \x80", "unexpected EOF"),
            (b"\"\x00", "proto: wrong wireType = 2 for field Immutable"),
        ];
        for (raw, want) in rows {
            assert_eq!(decode(&map(raw)).expect_err(want).to_string(), want, "{raw:?}");
        }
        for (body, want) in [
            (&b""[..], "empty data"),
            (b"k8s\0", "empty body"),
            (b"k8s\0\n", "unexpected EOF"),
            (b"k8s\0\x08\x01", "proto: wrong wireType = 0 for field TypeMeta"),
        ] {
            assert_eq!(decode(body).expect_err(want).to_string(), want);
        }
    }

    #[test]
    fn parts_groups_and_packed_numbers_are_read() {
        let two =
            decode(&map(b"\n\x03\n\x01m\n\x05Z\x03\n\x01l{|\x12\x06\n\x01a\x12\x01\xff")).expect("a map");
        let want = json!({"name": "m", "labels": {"l": ""}});
        assert_eq!((&two["metadata"], &two["data"]), (&want, &json!({"a": "\u{fffd}"})));
        let pod = |groups: &[u8]| {
            // spec = 2, securityContext = 14, supplementalGroups = 4
            let (mut spec, mut raw) = (Vec::new(), Vec::new());
            wire::put_bytes(&mut spec, 14, groups);
            wire::put_bytes(&mut raw, 2, &spec);
            decode(&enclosed(b"Pod", &raw)).expect("a pod")["spec"]["securityContext"]["supplementalGroups"]
                .clone()
        };
        assert_eq!(pod(b"\x20\x01\x20\x02"), json!([1, 2]));
        assert_eq!(pod(b"\x22\x02\x01\x02"), json!([1, 2]));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(decode(b"{}").is_err());
        assert!(decode(b"k8s\0\x0a\xff").is_err());
        let options = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        assert_eq!(decode(&encode(&options).expect("encode")).expect("decode"), options);
    }
}
