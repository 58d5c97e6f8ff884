//! Generated from `proto/`: etcdserverpb and mvccpb.

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

/// Keys, values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Requests, answers, clients and servers.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub use etcdserverpb::*;
pub use mvccpb::{Event, KeyValue, event::EventType};
