//! What every client of our own apiserver is made of: a connection, reflectors, work queues, controller loops,
//! leader election and events, on kube-rs.
//!
//!     apiserver ──list+watch──► Reflector ──► Store ──changes──► Queue ──keys──► controller::run ──► API calls
//!
//! Invariants: a wake-up carries a key, never data (whoever is woken reads the store); no periodic relist and no
//! polling; every task belongs to a [`Scope`] and ends with it.

mod connect;
pub mod controller;
pub mod errors;
pub mod events;
#[cfg(feature = "fake")]
pub mod fake;
mod key;
pub mod leader;
pub mod placement;
pub mod queue;
mod readable;
mod ready;
pub mod reflector;
mod scope;
pub mod store;

pub use connect::{ConnectError, connect};
pub use events::{EventType, Recorder};
pub use key::{Key, ObjectId, controller_of};
pub use queue::Queue;
pub use reflector::Reflector;
pub use scope::Scope;
pub use store::{Change, Changes, Store};
