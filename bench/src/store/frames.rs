//! HTTP/2's frames, as far as a client needs them that makes one call at a time on each connection.

use anyhow::{Result, ensure};

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before a frame's payload.
const HEADER: usize = 9;
/// Longest payload, as long as nobody announced another.
pub const PAYLOAD_MAX: usize = 16 << 10;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

/// Of SETTINGS and PING: an answer to one.
pub const ACK: u8 = 0x1;
/// Of DATA and HEADERS: the last of a stream.
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The setting that tells how much of a stream may be sent before it is read.
pub const INITIAL_WINDOW: u16 = 4;

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

/// Takes the next frame off the front of `bytes`; `None` when it is not whole.
///
/// # Errors
/// It is longer than anybody may send.
pub fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<Frame<'a>>> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [a, b, c, kind, flags, stream @ ..] = *header;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    ensure!(length <= PAYLOAD_MAX, "a frame of {length} bytes: this is no HTTP/2");
    let Some((payload, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    *bytes = rest;
    Ok(Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1), payload }))
}

impl<'a> Frame<'a> {
    /// What DATA or HEADERS carry, without what pads it; `None` when it is pads only.
    pub fn content(&self) -> Option<&'a [u8]> {
        let mut content = self.payload;
        if self.flags & PADDED != 0 {
            let (pads, rest) = content.split_first()?;
            content = rest.get(..rest.len().checked_sub(usize::from(*pads))?)?;
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            content = content.get(5..)?;
        }
        Some(content)
    }

    /// Whether nothing of its stream comes after it.
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The number at the front of the payload: a window's growth, or why a stream ended.
    pub fn number(&self) -> u32 {
        self.payload.first_chunk().map_or(0, |number| u32::from_be_bytes(*number))
    }
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends that so many bytes more may be sent; of the whole connection when `stream` is 0.
pub fn put_window(out: &mut Vec<u8>, stream: u32, more: u32) {
    put(out, WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_when_they_are_whole() {
        let mut bytes = Vec::new();
        put(&mut bytes, DATA, END_STREAM, 3, b"abc");
        put_window(&mut bytes, 0, 70_000);
        for cut in 0..bytes.len() {
            let mut rest = &bytes[..cut];
            let mut kinds = Vec::new();
            while let Some(frame) = next(&mut rest).unwrap() {
                kinds.push((frame.kind, frame.stream, frame.ends()));
            }
            let whole = [(DATA, 3, true), (WINDOW_UPDATE, 0, false)];
            assert_eq!(kinds, whole[..usize::from(cut >= 12)], "cut at {cut}");
            assert_eq!(rest.len(), cut - if cut >= 12 { 12 } else { 0 });
        }
        let mut rest = &bytes[12..];
        assert_eq!(next(&mut rest).unwrap().map(|frame| frame.number()), Some(70_000));
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_no_http2_is_refused() {
        assert!(next(&mut &b"HTTP/1.1 400 Bad Request"[..]).is_err());
    }

    #[test]
    fn pads_and_priorities_are_no_content() {
        for (kind, flags, payload, content) in [
            (DATA, 0, &b"abc"[..], Some(&b"abc"[..])),
            (DATA, PADDED, b"\x02abc", Some(b"a")),
            (DATA, PADDED, b"\x04abc", None),
            (DATA, PADDED, b"", None),
            (HEADERS, PRIORITY, b"\0\0\0\0\x10x", Some(b"x")),
            (HEADERS, PRIORITY | PADDED, b"\x01\0\0\0\0\x10x\0", Some(b"x")),
            (HEADERS, PRIORITY, b"\0", None),
        ] {
            let frame = Frame { kind, flags, stream: 1, payload };
            assert_eq!(frame.content(), content, "{frame:?}");
        }
    }
}
