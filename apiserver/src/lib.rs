//! The apiserver: HTTP in, store out. decode → authenticate → authorize → admit → registry → encode.
//!
//! Stateless but for its watch cache; any number run side by side.

pub mod admission;
pub mod authentication;
pub mod authorization;
pub mod reader;
pub mod registry;
pub mod request;
pub mod storage;
pub mod streaming;
