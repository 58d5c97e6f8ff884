//! A client that costs next to nothing, as it shares the machine with what it measures: one HTTP/2 connection, one call at a
//! time, bytes made beforehand, and of answers only what tells that they are whole.

use super::frames::{self, Frame};
use super::messages::{Messages, Told};
use super::requests::Request;
use anyhow::{Context, Result, bail, ensure};
use coracle_etcd::hpack;
use mio::net::TcpStream;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

/// What a server may send on a stream, and on a connection, before it is told that more was read.
const WINDOW: u32 = 4 << 20;
/// What either side may send as long as nobody says otherwise.
const WINDOW_UNTOLD: u32 = 65_535;

/// A connection.
pub struct Wire {
    stream: TcpStream,
    /// What the socket did not take yet.
    out: Vec<u8>,
    /// The beginning of a frame.
    held: Vec<u8>,
    call: Call,
    /// What the server takes on the connection.
    may_send: u64,
    /// What was read and the server was not told of.
    untold: u32,
}

/// The last call.
#[derive(Default)]
struct Call {
    /// Its stream; 0 before the first.
    stream: u32,
    messages: Messages,
    /// Whether a message came.
    carried: bool,
    ended: bool,
    untold: u32,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        let stream = std::net::TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        stream.set_nonblocking(true).context("cannot use a socket")?;
        let mut out = frames::PREFACE.to_vec();
        let window = [&frames::INITIAL_WINDOW.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
        frames::put(&mut out, frames::SETTINGS, 0, 0, &window);
        frames::put_window(&mut out, 0, WINDOW - WINDOW_UNTOLD);
        Ok(Self {
            stream: TcpStream::from_std(stream),
            out,
            held: Vec::new(),
            call: Call::default(),
            may_send: WINDOW_UNTOLD.into(),
            untold: 0,
        })
    }

    /// For whoever waits until there is something to read.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Makes a call, which [`Wire::flush`] sends.
    ///
    /// # Errors
    /// The server does not take it yet.
    pub fn ask(&mut self, request: &Request, n: u64) -> Result<()> {
        let stream = if self.call.stream == 0 { 1 } else { self.call.stream + 2 };
        let more = self.may_send.checked_sub(request.weight() as u64);
        self.may_send = more.context("the server does not tell that it has read what was sent")?;
        self.call = Call { stream, ..Call::default() };
        request.put(&mut self.out, stream, n);
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        Ok(())
    }

    /// Reads what came, and tells what messages hold. Returns whether the call ended with success.
    ///
    /// # Errors
    /// The call failed, or the connection broke.
    pub fn read(&mut self, buffer: &mut [u8], told: &mut impl FnMut(Told)) -> Result<bool> {
        loop {
            let had = self.held.len();
            match self.stream.read(&mut buffer[had..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(read) => {
                    buffer[..had].copy_from_slice(&self.held);
                    let mut rest = &buffer[..had + read];
                    while let Some(frame) = frames::next(&mut rest)? {
                        self.take(&frame, told)?;
                    }
                    self.held.clear();
                    self.held.extend_from_slice(rest);
                    // A socket that gave less than it could has no more.
                    if had + read < buffer.len() {
                        return Ok(self.call.ended);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(self.call.ended),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }

    fn take(&mut self, frame: &Frame<'_>, told: &mut impl FnMut(Told)) -> Result<()> {
        let is_ours = frame.stream == self.call.stream && !self.call.ended;
        match frame.kind {
            frames::DATA => {
                self.count(frame, is_ours);
                if is_ours {
                    let carried = &mut self.call.carried;
                    let content = frame.content().context("a frame of pads")?;
                    self.call.messages.feed(content, &mut |what| {
                        *carried |= what == Told::End;
                        told(what);
                    })?;
                }
            }
            frames::HEADERS if is_ours && frame.ends() => {
                ensure!(self.call.carried, "refused: {}", words(frame.content().unwrap_or_default()));
            }
            frames::RST_STREAM if is_ours => bail!("the server gave the call up: {}", frame.number()),
            frames::SETTINGS if frame.flags & frames::ACK == 0 => {
                frames::put(&mut self.out, frames::SETTINGS, frames::ACK, 0, &[]);
            }
            frames::PING if frame.flags & frames::ACK == 0 => {
                frames::put(&mut self.out, frames::PING, frames::ACK, 0, frame.payload);
            }
            frames::WINDOW_UPDATE if frame.stream == 0 => self.may_send += u64::from(frame.number()),
            frames::GOAWAY => bail!("the server ends the connection"),
            _ => {}
        }
        if is_ours && frame.ends() {
            ensure!(self.call.carried, "an answer without a message");
            self.call.ended = true;
        }
        Ok(())
    }

    /// Tells the server, now and then, that its frames are read.
    fn count(&mut self, frame: &Frame<'_>, is_ours: bool) {
        let bytes = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
        self.untold += bytes;
        if self.untold > WINDOW / 2 {
            frames::put_window(&mut self.out, 0, std::mem::take(&mut self.untold));
        }
        if is_ours && !frame.ends() {
            self.call.untold += bytes;
            if self.call.untold > WINDOW / 2 {
                frames::put_window(&mut self.out, frame.stream, std::mem::take(&mut self.call.untold));
            }
        }
    }
}

/// What header fields say in full: of a refusal, its code and its reason.
fn words(block: &[u8]) -> String {
    let (mut at, mut words) = (0, Vec::new());
    while let Some(field) = hpack::next_literal(block, &mut at) {
        words.extend(field.value.unpacked().map(|text| String::from_utf8_lossy(&text).into_owned()));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_etcd::proto::{PutResponse, RangeRequest};
    use frames::{ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS};
    use mio::{Events, Interest, Poll, Token};
    use prost::Message;
    use std::net::TcpListener;
    use std::time::Duration;

    /// Frames by kind, flags, stream and payload.
    type Sent<'a> = &'a [(u8, u8, u32, &'a [u8])];

    /// What comes of a call that a server answers like this before it closes the connection, and what it was sent.
    fn called(sent: Sent<'_>) -> (Result<usize>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut wire = Wire::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let request = Request::new("a", "/b/C", &RangeRequest::default(), None).unwrap();
        wire.ask(&request, 0).unwrap();
        wire.flush().unwrap();
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in sent {
            frames::put(&mut bytes, *kind, *flags, *stream, payload);
        }
        server.write_all(&bytes).unwrap();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(wire.socket(), Token(0), Interest::READABLE).unwrap();
        let (mut events, mut messages) = (Events::with_capacity(1), 0);
        let mut closed = false;
        let outcome = loop {
            // The end that comes with an answer is told once.
            if !closed {
                poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
                closed = events.iter().any(|event| event.is_read_closed());
            }
            match wire.read(&mut [0; 1 << 16], &mut |told| messages += usize::from(told == Told::End)) {
                Ok(false) => {}
                Ok(true) => break Ok(messages),
                Err(error) => break Err(error),
            }
        };
        wire.flush().unwrap();
        drop(wire);
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).unwrap();
        (outcome, heard)
    }

    #[test]
    fn a_call_succeeds_with_a_message_and_an_end_and_else_fails_with_what_the_server_said() {
        let message = [&[0, 0, 0, 0, 0][..], &PutResponse::default().encode_to_vec()].concat();
        let fields = END_HEADERS;
        let refusal = b"\x88\x40\x0bgrpc-status\x0213\x40\x0cgrpc-message\x07no room";
        let whole: Sent<'_> = &[
            (SETTINGS, 0, 0, &[]),
            (HEADERS, fields, 1, &[0x88]),
            (DATA, 0, 1, &message),
            (HEADERS, fields | END_STREAM, 1, &[0x88]),
        ];
        for (sent, wanted) in [
            (whole, None),
            (&[(HEADERS, fields | END_STREAM, 1, refusal)], Some("refused: 13, no room")),
            (&[(DATA, END_STREAM, 1, &[])], Some("an answer without a message")),
            (&[(RST_STREAM, 0, 1, &[0, 0, 0, 7])], Some("the server gave the call up: 7")),
            (&[(RST_STREAM, 0, 3, &[0, 0, 0, 7])], Some("the server closed the connection")),
            (&[(GOAWAY, 0, 0, &[0; 8])], Some("the server ends the connection")),
            (&whole[..3], Some("the server closed the connection")),
        ] {
            let outcome = called(sent).0.map_err(|error| error.to_string());
            assert_eq!(outcome, wanted.map_or(Ok(1), |wanted| Err(wanted.to_owned())), "{sent:?}");
        }
    }

    #[test]
    fn settings_and_pings_are_answered() {
        let (_, heard) = called(&[(SETTINGS, 0, 0, &[]), (PING, 0, 0, b"12345678"), (DATA, 0, 1, &[0; 5])]);
        let mut rest = heard.strip_prefix(frames::PREFACE).unwrap();
        let mut acknowledged = Vec::new();
        while let Some(frame) = frames::next(&mut rest).unwrap() {
            if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK != 0 {
                acknowledged.push((frame.kind, frame.payload.to_vec()));
            }
        }
        assert_eq!(acknowledged, [(SETTINGS, Vec::new()), (PING, b"12345678".to_vec())]);
    }
}
