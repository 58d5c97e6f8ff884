//! Generated from `proto/`: etcdserverpb, mvccpb, v3lockpb and v3electionpb.

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

/// Keys, values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Requests, answers, clients and servers.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

pub use etcdserverpb::*;
pub use mvccpb::{Event, KeyValue, event::EventType};
