//! The one registry of all kinds: every verb on every resource, driven by the kind's rows.
//!
//!     Call ─► decode ─► patch ─► default ─► mutate ─► prepare ─► validate ─► admit ─► compare-and-swap ─► encode ─► Reply

pub mod call;
pub mod convert;

pub use call::{Call, Reply, ReplyBody};
