//! The watch hub: who watches what, and who has something to read.
//!
//! A wake-up carries no data. Publishing marks each watcher that an event concerns with the first revision it has not read, and
//! wakes its stream; the stream then pulls from there, out of the last events or, when those are no longer kept, out of the
//! machine's history. So a slow watcher holds nothing and nobody up, and none loses or repeats an event. When an event concerns
//! many streams, they are woken some at a time, behind whatever else there is to do, and no more often than once a millisecond.

mod hub;
mod index;
#[cfg(test)]
mod tests;

pub use hub::{Hub, Outlet, Pulled, WatcherId};
