//! Frames, to and from bytes.
//!
//! ```text
//! control: 1 version(15) type(16)   flags(8) length(24)   payload
//! data:    0 stream(31)             flags(8) length(24)   payload
//! ```

use super::headers::{Decoder, Encoder, Headers};
use bytes::Bytes;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A longer frame ends the connection: clients send far shorter ones.
const FRAME_BYTES_MAX: usize = 1 << 20;
const VERSION: u16 = 3;
const FIN: u8 = 1;

mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    Open {
        /// Odd for those of clients.
        stream: u32,
        /// What it is for.
        headers: Headers,
        /// The opener will send nothing.
        fin: bool,
    },
    /// Accepts a stream.
    Reply {
        /// Which.
        stream: u32,
        /// Mostly none.
        headers: Headers,
        /// The accepter will send nothing.
        fin: bool,
    },
    /// Ends a stream at once, both ways.
    Reset {
        /// Which.
        stream: u32,
        /// Why.
        status: u32,
    },
    /// Wants the same back.
    Ping(u32),
    /// No more streams will be accepted.
    GoAway {
        /// The last one that was.
        last: u32,
        /// Why.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// Which.
        stream: u32,
        /// They.
        headers: Headers,
        /// The sender will send nothing more.
        fin: bool,
    },
    /// Bytes of a stream.
    Data {
        /// Which.
        stream: u32,
        /// They.
        bytes: Bytes,
        /// The sender will send nothing more.
        fin: bool,
    },
    /// Something that changes nothing here: settings, windows (`WINDOW_UPDATE`), types unknown.
    Other,
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY frame: {why}"))
}

/// Reads one frame; `None` at the connection's end.
///
/// # Errors
/// The connection breaks, or what comes is no SPDY/3.
pub async fn read(from: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let [a, b, c, d, flags, x, y, z] = head;
    let length = u32::from_be_bytes([0, x, y, z]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(bad("too long"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    let fin = flags & FIN != 0;
    if a & 0x80 == 0 {
        let stream = u32::from_be_bytes([a, b, c, d]);
        return Ok(Some(Frame::Data { stream, bytes: payload.into(), fin }));
    }
    if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
        return Err(bad("another version"));
    }
    control(u16::from_be_bytes([c, d]), fin, &payload, decoder).map(Some)
}

fn control(kind: u16, fin: bool, payload: &[u8], decoder: &mut Decoder) -> io::Result<Frame> {
    let number = |at: usize| {
        let bytes = payload.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(|| bad("cut short"))
    };
    let stream = |at| number(at).map(|number| number & 0x7fff_ffff);
    let mut block = |at: usize| decoder.read(payload.get(at..).ok_or_else(|| bad("cut short"))?);
    Ok(match kind {
        kind::SYN_STREAM => Frame::Open { stream: stream(0)?, headers: block(10)?, fin },
        kind::SYN_REPLY => Frame::Reply { stream: stream(0)?, headers: block(4)?, fin },
        kind::RST_STREAM => Frame::Reset { stream: stream(0)?, status: number(4)? },
        kind::PING => Frame::Ping(number(0)?),
        kind::GOAWAY => Frame::GoAway { last: stream(0)?, status: number(4)? },
        kind::HEADERS => Frame::Headers { stream: stream(0)?, headers: block(4)?, fin },
        _ => Frame::Other,
    })
}

/// The bytes of a frame.
///
/// # Errors
/// The frame is too long, or zlib fails.
pub fn write(frame: &Frame, encoder: &mut Encoder) -> io::Result<Vec<u8>> {
    let whole = |kind: u16, fin: bool, parts: &[&[u8]]| -> io::Result<Vec<u8>> {
        let mut head = (0x8000 | VERSION).to_be_bytes().to_vec();
        head.extend(kind.to_be_bytes());
        finish(head, fin, parts)
    };
    match frame {
        Frame::Open { stream, headers, fin } => {
            let block = encoder.write(headers)?;
            whole(kind::SYN_STREAM, *fin, &[&stream.to_be_bytes(), &[0; 6], &block])
        }
        Frame::Reply { stream, headers, fin } => {
            let block = encoder.write(headers)?;
            whole(kind::SYN_REPLY, *fin, &[&stream.to_be_bytes(), &block])
        }
        Frame::Reset { stream, status } => {
            whole(kind::RST_STREAM, false, &[&stream.to_be_bytes(), &status.to_be_bytes()])
        }
        Frame::Ping(id) => whole(kind::PING, false, &[&id.to_be_bytes()]),
        Frame::GoAway { last, status } => {
            whole(kind::GOAWAY, false, &[&last.to_be_bytes(), &status.to_be_bytes()])
        }
        Frame::Headers { stream, headers, fin } => {
            let block = encoder.write(headers)?;
            whole(kind::HEADERS, *fin, &[&stream.to_be_bytes(), &block])
        }
        Frame::Data { stream, bytes, fin } => finish(stream.to_be_bytes().to_vec(), *fin, &[bytes]),
        Frame::Other => whole(kind::SETTINGS, false, &[&[0; 4]]),
    }
}

fn finish(mut head: Vec<u8>, fin: bool, parts: &[&[u8]]) -> io::Result<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length > FRAME_BYTES_MAX {
        return Err(bad("too long"));
    }
    let length = u32::try_from(length).map_err(|_| bad("too long"))?.to_be_bytes();
    head.push(if fin { FIN } else { 0 });
    head.extend(&length[1..]);
    for part in parts {
        head.extend_from_slice(part);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as the specification draws them.
    #[tokio::test]
    async fn frames_without_headers_have_the_bytes_of_the_specification() {
        let rows: [(Frame, &[u8]); 5] = [
            (
                Frame::Data { stream: 5, bytes: Bytes::from_static(b"hi"), fin: true },
                &[0, 0, 0, 5, 1, 0, 0, 2, b'h', b'i'],
            ),
            (Frame::Data { stream: 7, bytes: Bytes::new(), fin: false }, &[0, 0, 0, 7, 0, 0, 0, 0]),
            (Frame::Reset { stream: 3, status: 5 }, &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5]),
            (Frame::Ping(9), &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]),
            (Frame::GoAway { last: 1, status: 0 }, &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (frame, bytes) in rows {
            assert_eq!(write(&frame, &mut Encoder::new().unwrap()).unwrap(), bytes);
            assert_eq!(read(&mut &*bytes, &mut Decoder::default()).await.unwrap(), Some(frame));
        }
    }

    #[tokio::test]
    async fn frames_with_headers_survive_the_way() {
        let headers = vec![("streamtype".to_owned(), "error".to_owned())];
        let frames = [
            Frame::Open { stream: 1, headers: headers.clone(), fin: false },
            Frame::Reply { stream: 1, headers: Vec::new(), fin: true },
            Frame::Headers { stream: 1, headers, fin: false },
        ];
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::default());
        for frame in frames {
            let bytes = write(&frame, &mut encoder).unwrap();
            assert_eq!(read(&mut &*bytes, &mut decoder).await.unwrap(), Some(frame));
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_connection_and_what_is_unknown_does_not() {
        let refused: [&[u8]; 4] = [
            &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9],
            &[0, 0, 0, 1, 0, 255, 255, 255],
            &[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0],
            &[0x80, 3, 0],
        ];
        for bytes in refused {
            assert!(read(&mut &*bytes, &mut Decoder::default()).await.is_err());
        }
        let ignored: [&[u8]; 2] =
            [&[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 1, 0, 0], &[0x80, 3, 0, 99, 0, 0, 0, 0]];
        for bytes in ignored {
            assert_eq!(read(&mut &*bytes, &mut Decoder::default()).await.unwrap(), Some(Frame::Other));
        }
        assert_eq!(read(&mut &[][..], &mut Decoder::default()).await.unwrap(), None);
    }
}
