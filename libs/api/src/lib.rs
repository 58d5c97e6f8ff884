//! The Kubernetes API as data and pure functions: kinds, schemas, codecs, patches, selectors, defaults, validation.
//!
//! In: bytes or `serde_json::Value`s and a [`kinds::Kind`]. Out: values, findings, errors. No tokio, no sockets, no clock:
//! whoever needs a time passes it in.

pub mod apply;
pub mod autoscaling;
pub mod cron;
pub mod custom;
pub mod decode;
pub mod defaults;
pub mod discovery;
pub mod expression;
mod json;
pub mod kinds;
pub mod labels;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod pattern;
#[cfg(test)]
mod properties;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
mod shape;
pub mod status;
pub mod strategy;
pub mod table;
pub mod validate;
