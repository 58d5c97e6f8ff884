//! The part of SPDY/3.1 that Kubernetes' clients use for exec, attach and port-forward: the server's side.
//!
//! In: a byte stream after the upgrade. Out: streams that the client opened, each with its headers, the client's bytes and a
//! way to answer. Flow control is left to TCP, as in Kubernetes' own implementation, whose peers send no `WINDOW_UPDATE`.

mod connection;
mod frame;
mod headers;

pub use connection::{Connection, Stream};

#[cfg(test)]
pub use frame::{Frame, read, write};
#[cfg(test)]
pub use headers::{Decoder, Encoder};
