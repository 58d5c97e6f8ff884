//! Protobuf bodies: any bytes, and any message of any kind within a right envelope. What is read is written and read again.
#![no_main]

use coracle_api::{kinds, protobuf};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A length and the bytes it is of.
fn bytes(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(content);
}

/// `message` as an object of the kind at that place in the table.
fn enveloped(place: usize, message: &[u8]) -> Vec<u8> {
    let all = kinds::builtin();
    let kind = &all[place % all.len()];
    let mut meta = Vec::new();
    bytes(&mut meta, 0x0a, kind.api_version().as_bytes());
    bytes(&mut meta, 0x12, kind.kind.as_bytes());
    let mut out = b"k8s\0".to_vec();
    bytes(&mut out, 0x0a, &meta);
    bytes(&mut out, 0x12, message);
    out
}

/// Without fractions, whose last digit may differ.
fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::Null,
        Value::Array(items) => items.into_iter().map(whole).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, whole(value))).collect(),
        other => other,
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    let body = if *how == 255 { rest.to_vec() } else { enveloped(usize::from(*how), rest) };
    let Ok(object) = protobuf::decode(&body) else { return };
    let Ok(again) = protobuf::encode(&object) else { return };
    let read = protobuf::decode(&again).expect("what was written can be read");
    assert_eq!(whole(read), whole(object));
});
