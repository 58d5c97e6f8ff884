//! HTTP: what a request is about, how its answer is encoded, and the way of a request through the server.

pub mod contained;
pub mod crossing;
pub mod deprecation;
pub mod drain;
pub mod leftover;
pub mod lenient;
pub mod limits;
pub mod negotiate;
pub mod pipeline;
pub mod request_info;
pub mod respond;
