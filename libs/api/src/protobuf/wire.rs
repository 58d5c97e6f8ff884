//! The wire format: varints, tags and length-delimited fields.

use super::ProtobufError;

/// A field's content.
pub(super) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Double(f64),
    /// What the API does not use: numbers of four bytes (5) and groups (3).
    Other(u8),
}

impl Field<'_> {
    /// How it stands on the wire.
    pub(super) const fn wire_type(&self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Double(_) => 1,
            Self::Bytes(_) => 2,
            Self::Other(wire_type) => *wire_type,
        }
    }
}

fn broken() -> ProtobufError {
    ProtobufError("unexpected EOF".to_owned())
}

fn fault(text: impl Into<String>) -> ProtobufError {
    ProtobufError(text.into())
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
    Err(fault("proto: integer overflow"))
}

fn take<'a>(from: &mut &'a [u8], length: u64) -> Result<&'a [u8], ProtobufError> {
    if i64::try_from(length).is_err() {
        return Err(fault("proto: negative length found during unmarshaling"));
    }
    let length = usize::try_from(length).map_err(|_| broken())?;
    if length > from.len() {
        return Err(broken());
    }
    let (taken, rest) = from.split_at(length);
    *from = rest;
    Ok(taken)
}

/// The numbers of a tag: of a field, and of how it stands on the wire. `of` is the message, for the texts.
fn tag(from: &mut &[u8], of: &str) -> Result<(u32, u8), ProtobufError> {
    let tag = varint(from)?;
    // As Go cuts it.
    let (number, wire_type) = ((tag >> 3) as i32, (tag & 7) as u8);
    if wire_type == 4 {
        return Err(fault(format!("proto: {of}: wiretype end group for non-group")));
    }
    match u32::try_from(number) {
        Ok(number) if number > 0 => Ok((number, wire_type)),
        _ => Err(fault(format!("proto: {of}: illegal tag {number} (wire type {tag})"))),
    }
}

fn next<'a>(from: &mut &'a [u8], of: &str) -> Result<(u32, Field<'a>), ProtobufError> {
    let (number, wire_type) = tag(from, of)?;
    Ok((number, content(from, wire_type)?))
}

fn content<'a>(from: &mut &'a [u8], wire_type: u8) -> Result<Field<'a>, ProtobufError> {
    Ok(match wire_type {
        0 => Field::Varint(varint(from)?),
        1 => {
            let bytes = take(from, 8)?.try_into().map_err(|_| broken())?;
            Field::Double(f64::from_le_bytes(bytes))
        }
        2 => {
            let length = varint(from)?;
            Field::Bytes(take(from, length)?)
        }
        3 => {
            pass_group(from)?;
            Field::Other(3)
        }
        5 => {
            take(from, 4)?;
            Field::Other(5)
        }
        other => return Err(fault(format!("proto: illegal wireType {other}"))),
    })
}

/// Passes over a group that has begun, and over those in it.
fn pass_group(from: &mut &[u8]) -> Result<(), ProtobufError> {
    let mut open = 1;
    while open > 0 {
        match varint(from)? & 7 {
            3 => open += 1,
            4 => open -= 1,
            other => {
                content(from, other as u8)?;
            }
        }
    }
    Ok(())
}

/// The fields of a message called `of`; ends after the first error.
pub(super) fn fields<'a>(
    message: &'a [u8],
    of: &str,
) -> impl Iterator<Item = Result<(u32, Field<'a>), ProtobufError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next(&mut rest, of);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

/// A list of numbers that stand together.
pub(super) fn packed(bytes: &[u8]) -> impl Iterator<Item = Result<u64, ProtobufError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || (!rest.is_empty()).then(|| varint(&mut rest).inspect_err(|_| rest = &[])))
}

/// Text. Go keeps what is no UTF-8 until it writes JSON, where each such byte becomes a mark.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
