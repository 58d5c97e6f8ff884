//! Against a model: a list of all events ever, searched from the beginning each time.

use super::{apply, compact, delete, grant, op, put, range, revoke};
use crate::command::Op;
use crate::machine::{KeyRange, Machine, Restore};
use bytes::Bytes;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{Compare, KeyValue, PutRequest, RangeRequest, TxnRequest};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, value: u8, lease: i64 },
    Delete { from: u8, to: u8 },
    Txn { compared: u8, version: i64, then: Vec<u8>, otherwise: Vec<u8>, deleted: u8 },
    Compact { back: i64 },
    Grant { id: i64 },
    Revoke { id: i64 },
}

fn key(number: u8) -> String {
    format!("k{number}")
}

fn steps() -> impl Strategy<Value = Step> {
    let key = || 0u8..6;
    let keys = || proptest::collection::vec(0u8..6, 0..3);
    prop_oneof![
        6 => (key(), any::<u8>(), 0i64..4).prop_map(|(key, value, lease)| Step::Put { key, value, lease }),
        3 => (key(), key()).prop_map(|(from, to)| Step::Delete { from, to }),
        3 => (key(), 0i64..3, keys(), keys(), key()).prop_map(|(compared, version, then, otherwise, deleted)| {
            Step::Txn { compared, version, then, otherwise, deleted }
        }),
        1 => (0i64..6).prop_map(|back| Step::Compact { back }),
        1 => (1i64..4).prop_map(|id| Step::Grant { id }),
        1 => (1i64..4).prop_map(|id| Step::Revoke { id }),
    ]
}

#[derive(Default)]
struct Model {
    revision: i64,
    compacted: i64,
    /// Revision, key, and the value or that it is gone.
    events: Vec<(i64, String, Option<KeyValue>)>,
    leases: BTreeSet<i64>,
}

impl Model {
    fn at(&self, revision: i64) -> BTreeMap<String, KeyValue> {
        let mut all = BTreeMap::new();
        for (at, key, kv) in self.events.iter().filter(|(at, ..)| *at <= revision) {
            match kv {
                Some(kv) => all.insert(key.clone(), KeyValue { mod_revision: *at, ..kv.clone() }),
                None => all.remove(key),
            };
        }
        all
    }

    fn put(&mut self, key: &str, value: &str, lease: i64) {
        let revision = self.revision + 1;
        let old = self.at(revision).remove(key);
        let kv = KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            version: old.map_or(1, |old| old.version + 1),
            mod_revision: revision,
            lease,
        };
        self.events.push((revision, key.to_owned(), Some(kv)));
    }

    fn delete(&mut self, wanted: impl Fn(&str, &KeyValue) -> bool) {
        let revision = self.revision + 1;
        for (key, kv) in self.at(revision) {
            if wanted(&key, &kv) {
                self.events.push((revision, key, None));
            }
        }
    }

    fn finish(&mut self) {
        self.revision += i64::from(self.events.last().is_some_and(|(at, ..)| *at > self.revision));
    }
}

/// The operation of a step on machine and model alike; the model's part is done only if the machine accepts.
fn run(step: &Step, machine: &mut Machine, model: &mut Model) {
    match step {
        Step::Put { key: number, value, lease } => {
            let (key, value) = (key(*number), value.to_string());
            let done = apply(machine, Op::Put(PutRequest { lease: *lease, ..put(&key, &value) }));
            assert_eq!(done.is_ok(), *lease == 0 || model.leases.contains(lease));
            if done.is_ok() {
                model.put(&key, &value, *lease);
            }
        }
        Step::Delete { from, to } => {
            let (from, to) = (key(*from), key(*to));
            apply(machine, Op::DeleteRange(delete(&from, &to))).expect("deletes");
            model.delete(|key, _| key >= from.as_str() && key < to.as_str());
        }
        Step::Txn { compared, version, then, otherwise, deleted } => {
            let holds = model.at(model.revision).get(&key(*compared)).map_or(0, |kv| kv.version) == *version;
            let ops = |keys: &[u8]| {
                let keys: BTreeSet<&u8> = keys.iter().filter(|number| *number != deleted).collect();
                let puts = keys.into_iter().map(|number| op(Request::RequestPut(put(&key(*number), "txn"))));
                let delete = op(Request::RequestDeleteRange(delete(&key(*deleted), "")));
                puts.chain([delete]).collect::<Vec<_>>()
            };
            let compare = Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Version as i32,
                key: key(*compared).into(),
                target_union: Some(TargetUnion::Version(*version)),
                ..Compare::default()
            };
            let request = TxnRequest { compare: vec![compare], success: ops(then), failure: ops(otherwise) };
            apply(machine, Op::Txn(request)).expect("done");
            let chosen: BTreeSet<&u8> = if holds { then } else { otherwise }.iter().collect();
            for number in chosen.into_iter().filter(|number| *number != deleted) {
                model.put(&key(*number), "txn", 0);
            }
            model.delete(|found, _| found == key(*deleted));
        }
        Step::Compact { back } => {
            let target = model.revision - back;
            let done = apply(machine, compact(target));
            assert_eq!(done.is_ok(), target > model.compacted);
            model.compacted = model.compacted.max(target);
        }
        Step::Grant { id } => {
            assert_eq!(apply(machine, grant(*id)).is_ok(), model.leases.insert(*id));
        }
        Step::Revoke { id } => {
            assert_eq!(apply(machine, revoke(*id)).is_ok(), model.leases.remove(id));
            model.delete(|_, kv| kv.lease == *id);
        }
    }
    model.finish();
}

fn all() -> RangeRequest {
    range("k", "\0", 0)
}

/// What `machine` tells is what `model` tells, at every revision that is left.
fn same(machine: &Machine, model: &Model) {
    assert_eq!((machine.revision(), machine.compacted()), (model.revision, model.compacted));
    for revision in model.compacted.max(1)..=model.revision {
        let found = machine.range(&RangeRequest { revision, ..all() }).expect("reads");
        assert_eq!(found.kvs, model.at(revision).into_values().collect::<Vec<_>>(), "at {revision}");
        let some = range("k1", "k4", revision);
        let wanted: Vec<KeyValue> = model
            .at(revision)
            .into_iter()
            .filter(|(key, _)| ("k1".."k4").contains(&key.as_str()))
            .map(|(_, kv)| kv)
            .collect();
        assert_eq!(machine.range(&some).expect("reads").kvs, wanted);
    }
    let everything = KeyRange::new(&Bytes::from_static(b"k"), &Bytes::from_static(b"\0"));
    for from in model.compacted.max(1)..=model.revision + 1 {
        let mut told = Vec::new();
        let mut next = from;
        while next <= model.revision {
            // In small steps, which must not lose or repeat anything.
            let (batches, then) = machine.history(&everything, next, 2).expect("kept");
            assert!(then > next);
            next = then;
            for batch in batches {
                told.extend(
                    batch
                        .events
                        .iter()
                        .map(|event| (batch.revision, event.key().clone(), event.record.tombstone)),
                );
            }
        }
        let kept = |at: i64, key: &str| {
            at > model.compacted
                || !model
                    .events
                    .iter()
                    .any(|(later, other, _)| other == key && *later > at && *later <= model.compacted)
        };
        let wanted: Vec<(i64, Bytes, bool)> = model
            .events
            .iter()
            .filter(|(at, key, _)| *at >= from && kept(*at, key))
            .map(|(at, key, kv)| (*at, Bytes::from(key.clone()), kv.is_none()))
            .collect();
        assert_eq!(told, wanted, "from {from}");
    }
    for id in &model.leases {
        let attached: Vec<String> = model
            .at(model.revision)
            .into_iter()
            .filter(|(_, kv)| kv.lease == *id)
            .map(|(key, _)| key)
            .collect();
        let keys: Vec<String> = machine
            .lease(*id)
            .map(|(_, keys)| keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect())
            .expect("granted");
        assert_eq!(keys, attached, "lease {id}");
    }
    assert_eq!(machine.leases().count(), model.leases.len());
}

fn restored(machine: &Machine, chunk_bytes: usize) -> Machine {
    let mut restore = Restore::new();
    for chunk in machine.view().chunks(chunk_bytes) {
        restore.chunk(&chunk).expect("a chunk");
    }
    restore.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_machine_is_its_model_and_a_snapshot_is_the_machine(
        before in proptest::collection::vec(steps(), 0..40),
        after in proptest::collection::vec(steps(), 0..12),
    ) {
        let (mut machine, mut model) = (Machine::new(), Model { revision: 1, ..Model::default() });
        for step in &before {
            run(step, &mut machine, &mut model);
        }
        same(&machine, &model);
        // A restored machine goes on as the first would have.
        let mut copy = restored(&machine, 64);
        same(&copy, &model);
        prop_assert_eq!(copy.size(), machine.size());
        let mut copied_model =
            Model { revision: model.revision, compacted: model.compacted, events: model.events.clone(), leases: model.leases.clone() };
        for step in &after {
            run(step, &mut machine, &mut model);
            run(step, &mut copy, &mut copied_model);
        }
        same(&copy, &model);
        prop_assert_eq!(copy.hash_kv(0), machine.hash_kv(0));
        prop_assert_eq!(copy.view().chunks(1 << 20).collect::<Vec<_>>(), machine.view().chunks(1 << 20).collect::<Vec<_>>());
    }

    #[test]
    fn changes_add_up_to_the_rows_of_a_snapshot(steps in proptest::collection::vec(steps(), 0..40)) {
        let (mut machine, mut model) = (Machine::new(), Model { revision: 1, ..Model::default() });
        let mut image = BTreeMap::new();
        for step in &steps {
            run(step, &mut machine, &mut model);
            for row in machine.take_effects().changes.iter().map(super::super::Change::row) {
                match row.value {
                    Some(value) => image.insert(row.key, value),
                    None => image.remove(&row.key),
                };
            }
        }
        let rows: BTreeMap<_, _> = machine.view().rows().map(|row| (row.key, row.value.unwrap_or_default())).collect();
        prop_assert_eq!(image, rows);
    }
}
