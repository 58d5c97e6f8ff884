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
