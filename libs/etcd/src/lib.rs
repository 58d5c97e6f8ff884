//! The etcd v3 protocol: generated messages, and [`Kv`], the few calls that an apiserver makes, with its client.
//!
//! In: requests. Out: answers, or an error that tells whether a write may have happened.

pub mod channel;
pub mod client;
pub mod codec;
mod error;
pub mod gathered;
pub mod hpack;
pub mod kv;
mod members;
pub mod memory;
pub mod proto;
mod watch;

pub use client::{Client, ClientTls};
pub use error::KvError;
pub use kv::Kv;
pub use watch::{WatchBatch, WatchStream};
