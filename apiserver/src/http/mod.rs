//! HTTP: what a request is about, and how its answer is encoded.

pub mod contained;
pub mod crossing;
pub mod deprecation;
pub mod leftover;
pub mod lenient;
pub mod limits;
pub mod messages;
pub mod negotiate;
pub mod request_info;
pub mod respond;
