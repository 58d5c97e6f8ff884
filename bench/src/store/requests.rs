//! Calls as bytes that are made once, and sent again and again with another number in their key.

use super::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS};
use super::messages::PREFIX;
use anyhow::{Context, Result, ensure};
use prost::Message;
use std::ops::Range;

/// Digits of a key's number.
pub const DIGITS: usize = 4;
/// The most that any server takes at once.
const BODY_MAX: usize = frames::PAYLOAD_MAX;

/// HPACK's numbers of `:method: POST` and `:scheme: http`, and of `:authority`, `:path` and `content-type` without a value.
const POST_OVER_HTTP: [u8; 2] = [0x83, 0x86];
const AUTHORITY: u8 = 0x41;
const PATH: u8 = 0x44;
const CONTENT_TYPE: u8 = 0x5f;
/// The same four fields once the server keeps them in its table, oldest first.
const KEPT: [u8; 4] = [0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];

/// A call at one server.
pub struct Request {
    /// Its header fields: in full on a new connection, and then by their numbers.
    first: Vec<u8>,
    again: Vec<u8>,
    /// The message, framed.
    body: Vec<u8>,
    /// Where in it the number stands.
    digits: Option<Range<usize>>,
    flags: u8,
}

impl Request {
    /// The bytes of a call. Its key's number stands behind `prefix`, if there is one.
    ///
    /// # Errors
    /// It is too long, or has no such key.
    pub fn new(authority: &str, path: &str, message: &impl Message, prefix: Option<&str>) -> Result<Self> {
        let mut first = POST_OVER_HTTP.to_vec();
        field(&mut first, &[AUTHORITY], authority)?;
        field(&mut first, &[PATH], path)?;
        field(&mut first, &[CONTENT_TYPE], "application/grpc")?;
        field(&mut first, &[0x40, 2, b't', b'e'], "trailers")?;
        let mut body = vec![0; PREFIX];
        message.encode(&mut body).context("no message")?;
        ensure!(body.len() <= BODY_MAX, "a request of {} bytes is too long", body.len());
        let length = u32::try_from(body.len() - PREFIX)?.to_be_bytes();
        body[1..PREFIX].copy_from_slice(&length);
        let digits = prefix.map(|prefix| place(&body, prefix)).transpose()?;
        Ok(Self { first, again: [&POST_OVER_HTTP[..], &KEPT].concat(), body, digits, flags: END_STREAM })
    }

    /// The same call, with more messages to come.
    pub fn open(self) -> Self {
        Self { flags: 0, ..self }
    }

    /// Bytes that count against what a server takes.
    pub fn weight(&self) -> usize {
        self.body.len()
    }

    /// Appends the call with number `n` as a new stream.
    pub fn put(&self, out: &mut Vec<u8>, stream: u32, n: u64) {
        let headers = if stream == 1 { &self.first } else { &self.again };
        frames::put(out, HEADERS, END_HEADERS, stream, headers);
        frames::put(out, DATA, self.flags, stream, &self.body);
        let Some(digits) = &self.digits else { return };
        let at = out.len() - self.body.len();
        let mut rest = n;
        for digit in out[at + digits.start..at + digits.end].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// Appends a field that the server is to keep in its table.
fn field(out: &mut Vec<u8>, name: &[u8], value: &str) -> Result<()> {
    out.extend_from_slice(name);
    let length = u8::try_from(value.len()).ok().filter(|length| *length < 0x7F);
    out.push(length.context("a header field is too long")?);
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

/// Where the digits behind `prefix` stand.
fn place(body: &[u8], prefix: &str) -> Result<Range<usize>> {
    let found = body.windows(prefix.len()).position(|window| window == prefix.as_bytes());
    let start = found.context("the request has no such key")? + prefix.len();
    let digits = start..start + DIGITS;
    let are_digits = body.get(digits.clone()).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    ensure!(are_digits, "the request's key has no number");
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_etcd::hpack;
    use coracle_etcd::proto::PutRequest;

    fn message(key: &str) -> PutRequest {
        PutRequest { key: key.to_owned().into(), value: "v".into(), ..PutRequest::default() }
    }

    #[test]
    fn a_call_has_its_fields_in_full_first_and_its_number_always() {
        let request = Request::new("127.0.0.1:1", "/a/B", &message("/k/0000"), Some("/k/")).unwrap();
        let mut out = Vec::new();
        request.put(&mut out, 1, 42);
        let first = out.len();
        request.put(&mut out, 3, 123_456_789);
        assert!(out.len() - first < first - 30);
        let mut rest = &out[..];
        for (stream, fields, key) in [(1, 4, "/k/0042"), (3, 0, "/k/6789")] {
            let headers = frames::next(&mut rest).unwrap().unwrap();
            assert_eq!((headers.kind, headers.stream), (HEADERS, stream));
            let (mut at, mut found) = (0, Vec::new());
            while let Some(field) = hpack::next_literal(headers.payload, &mut at) {
                found.push(field.value.unpacked().unwrap());
            }
            assert_eq!(found.len(), fields);
            assert!(
                found.iter().zip(["127.0.0.1:1", "/a/B"]).all(|(found, wanted)| found == wanted.as_bytes())
            );
            let body = frames::next(&mut rest).unwrap().unwrap();
            assert_eq!((body.kind, body.ends()), (DATA, true));
            assert_eq!(PutRequest::decode(&body.payload[PREFIX..]).unwrap(), message(key));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_key_without_a_number_is_refused() {
        for key in ["/k/", "/k/000", "/x/0000"] {
            assert!(Request::new("a", "/a/B", &message(key), Some("/k/")).is_err(), "{key}");
        }
    }
}
