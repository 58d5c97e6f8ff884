//! What watchers are told: the changes of one revision, each encoded once however many watch it.

use super::Record;
use bytes::Bytes;
use coracle_etcd::proto::{Event as EventMessage, EventType, KeyValue};
use prost::Message;
use std::sync::{Arc, OnceLock};

/// One change of one key.
#[derive(Debug)]
pub struct Event {
    /// The new state.
    pub record: Arc<Record>,
    /// The state before, while history still has it.
    pub previous: Option<Arc<Record>>,
    plain: OnceLock<Bytes>,
    with_previous: OnceLock<Bytes>,
}

/// All changes of one revision, in order; never empty.
#[derive(Debug)]
pub struct Batch {
    /// The revision.
    pub revision: i64,
    /// Its changes.
    pub events: Vec<Event>,
}

impl Event {
    /// Of a change and what it replaced.
    #[must_use]
    pub fn new(record: Arc<Record>, previous: Option<Arc<Record>>) -> Self {
        Self { record, previous, plain: OnceLock::new(), with_previous: OnceLock::new() }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.record.kv.key
    }

    /// As an `mvccpb.Event` on the wire.
    #[must_use]
    pub fn encoded(&self, with_previous: bool) -> Bytes {
        let cell = if with_previous { &self.with_previous } else { &self.plain };
        cell.get_or_init(|| self.message(with_previous).encode_to_vec().into()).clone()
    }

    fn message(&self, with_previous: bool) -> EventMessage {
        let kv = &self.record.kv;
        let (kind, kv) = if self.record.tombstone {
            let gone = KeyValue { key: kv.key.clone(), mod_revision: kv.mod_revision, ..KeyValue::default() };
            (EventType::Delete, gone)
        } else {
            (EventType::Put, kv.clone())
        };
        let previous = self.previous.as_ref().filter(|_| with_previous).map(|record| record.kv.clone());
        EventMessage { r#type: kind as i32, kv: Some(kv), prev_kv: previous }
    }
}
