//! The wire format: varints, tags and length-delimited fields.

use super::ProtobufError;

/// A field's content.
pub(super) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Double(f64),
    /// Other numbers of fixed width, which the API does not use.
    Other,
}

fn broken() -> ProtobufError {
    ProtobufError("proto: unexpected EOF".to_owned())
}

fn varint(from: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first().ok_or_else(broken)?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtobufError("proto: integer overflow".to_owned()))
}

fn take<'a>(from: &mut &'a [u8], length: u64) -> Result<&'a [u8], ProtobufError> {
    let length = usize::try_from(length).map_err(|_| broken())?;
    if length > from.len() {
        return Err(broken());
    }
    let (taken, rest) = from.split_at(length);
    *from = rest;
    Ok(taken)
}

fn next<'a>(from: &mut &'a [u8]) -> Result<(u32, Field<'a>), ProtobufError> {
    let tag = varint(from)?;
    let number = u32::try_from(tag >> 3).map_err(|_| broken())?;
    let field = match tag & 7 {
        0 => Field::Varint(varint(from)?),
        1 => {
            let bytes = take(from, 8)?.try_into().map_err(|_| broken())?;
            Field::Double(f64::from_le_bytes(bytes))
        }
        2 => {
            let length = varint(from)?;
            Field::Bytes(take(from, length)?)
        }
        5 => take(from, 4).map(|_| Field::Other)?,
        other => return Err(ProtobufError(format!("proto: illegal wireType {other}"))),
    };
    Ok((number, field))
}

/// The fields of a message; ends after the first error.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u32, Field<'_>), ProtobufError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

/// Text, which must be UTF-8.
pub(super) fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError("proto: invalid UTF-8".to_owned()))
}

fn raw_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits.
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a number; negative ones take ten bytes, as everywhere.
pub(super) fn put_varint(out: &mut Vec<u8>, number: u32, value: i64) {
    raw_varint(out, u64::from(number) << 3);
    raw_varint(out, value as u64);
}

/// Appends a float of eight bytes.
pub(super) fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    raw_varint(out, u64::from(number) << 3 | 1);
    out.extend(value.to_le_bytes());
}

/// Appends text, bytes or a message.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    raw_varint(out, u64::from(number) << 3 | 2);
    raw_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
