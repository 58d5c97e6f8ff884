//! What holds for every kind: shown on objects made of the table of types, the same ones in every run.

mod diffs;
mod objects;

use crate::apply::{self, Writer};
use crate::kinds::{self, Kind};
use crate::patch::{json_patch, merge_patch, strategic};
use crate::{decode, defaults, protobuf, schema, shape, strategy, table, validate};
use objects::{Random, sparse};
use serde_json::{Value, json};
use std::sync::Arc;

/// Objects of each kind.
const SEEDS: u64 = 6;
const SUBRESOURCES: [&str; 7] =
    ["", "status", "scale", "resize", "ephemeralcontainers", "approval", "finalize"];

/// Kinds that have objects of their own, with a type in the table.
fn stored() -> impl Iterator<Item = &'static Arc<Kind>> {
    kinds::builtin().iter().filter(|kind| schema::of(kind).is_some())
}

/// A canonical object.
fn object(kind: &Kind, seed: u64) -> Value {
    let object = Random::new(&kind.kind, seed).object(kind);
    let decoded = decode::json(object.to_string().as_bytes(), kind);
    let decoded = decoded.unwrap_or_else(|error| panic!("{} {seed}: {error}: {object}", kind.kind));
    assert!(decoded.findings.is_empty(), "{} {seed}: {:?}", kind.kind, decoded.findings);
    decoded.object
}

/// Objects are large: what differs is told, as a patch.
#[track_caller]
fn same(found: &Value, wanted: &Value, what: impl std::fmt::Display) {
    assert!(found == wanted, "{what}: {}", diffs::json_patch(found, wanted, false));
}

fn for_each_object(check: impl Fn(&Kind, u64, Value)) {
    for kind in stored() {
        (0..SEEDS).for_each(|seed| check(kind, seed, object(kind, seed)));
    }
}

/// Two objects of a kind with the same name, as somebody would write them: nothing null or empty, keys of lists unique.
fn for_each_pair(check: impl Fn(&Kind, Value, Value)) {
    for kind in stored() {
        let shape = shape::of(kind);
        let written = |seed| sparse(&shape, object(kind, seed));
        (0..SEEDS).for_each(|seed| check(kind, written(seed), written(seed + 1000)));
    }
}

#[test]
fn what_is_canonical_stays_as_it_is() {
    for_each_object(|kind, seed, object| {
        let again = decode::canonical(object.clone(), kind).expect("canonical already");
        same(&again.object, &object, format!("{} {seed}", kind.kind));
        assert!(again.findings.is_empty());
    });
}

#[test]
fn protobuf_carries_every_kind_there_and_back() {
    for_each_object(|kind, seed, object| {
        let bytes = protobuf::encode(&object).unwrap_or_else(|error| panic!("{} {seed}: {error}", kind.kind));
        same(&protobuf::decode(&bytes).expect("decodes"), &object, format!("{} {seed}", kind.kind));
    });
}

#[test]
fn every_object_has_a_cell_for_each_column() {
    for kind in kinds::builtin() {
        // An IPAddress tells its age beyond its columns.
        let beyond = usize::from(kind.kind == "IPAddress");
        let columns = table::columns(kind).as_array().map(|columns| columns.len() + beyond);
        let bare = json!({"metadata": {"name": "n"}});
        let objects = schema::of(kind).into_iter().flat_map(|_| (0..SEEDS).map(|seed| object(kind, seed)));
        for object in objects.chain([bare]) {
            for now in [jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::MAX] {
                assert_eq!(Some(table::cells(kind, &object, now).len()), columns, "{}", kind.kind);
            }
        }
    }
}

#[test]
fn defaults_of_defaults_change_nothing() {
    for_each_object(|kind, seed, mut object| {
        defaults::apply(&mut object, kind);
        let mut twice = object.clone();
        defaults::apply(&mut twice, kind);
        same(&twice, &object, format!("{} {seed}", kind.kind));
        let again = decode::canonical(object.clone(), kind).expect("defaults fit their types");
        same(&again.object, &object, format!("{} {seed}", kind.kind));
    });
}

#[test]
fn writes_of_every_kind_and_subresource_are_judged() {
    for_each_object(|kind, seed, mut object| {
        defaults::apply(&mut object, kind);
        strategy::converted(&mut object, kind);
        strategy::prepare_create(&mut object, kind);
        let _ = validate::create(&object, kind, validate::Policy::default());
        let _ = validate::warnings(&object, None, kind);
        for subresource in SUBRESOURCES {
            let mut new = self::object(kind, seed + 1);
            defaults::apply(&mut new, kind);
            strategy::prepare_update(&mut new, &object, kind, subresource);
            let _ = validate::update(
                &new,
                &object,
                kind,
                subresource,
                validate::Policy::default(),
                &mut Vec::new(),
            );
            let _ = validate::warnings(&new, Some(&object), kind);
        }
    });
}

#[test]
fn an_update_that_changes_nothing_has_no_faults_of_its_own() {
    for_each_object(|kind, seed, mut object| {
        defaults::apply(&mut object, kind);
        strategy::prepare_create(&mut object, kind);
        crate::meta::set(&mut object, "uid", "u");
        crate::meta::set(&mut object, "resourceVersion", "1");
        let mut new = object.clone();
        strategy::prepare_update(&mut new, &object, kind, "");
        same(&new, &object, format!("{} {seed}", kind.kind));
    });
}

#[test]
fn json_patches_of_differences_make_the_other_object() {
    for_each_pair(|kind, one, other| {
        let patch = diffs::json_patch(&one, &other, true);
        let patched = json_patch(&one, patch.to_string().as_bytes()).expect("applies");
        same(&patched.object, &other, &kind.kind);
    });
}

#[test]
fn merge_patches_of_differences_make_the_other_object() {
    for_each_pair(|kind, one, other| {
        let patch = diffs::merge_patch(&one, &other);
        let patched = merge_patch(&one, patch.to_string().as_bytes()).expect("applies");
        same(&patched.object, &other, &kind.kind);
    });
}

#[test]
fn strategic_patches_of_differences_make_the_other_object() {
    for_each_pair(|kind, one, other| {
        let patch = diffs::strategic(&shape::of(kind), &one, &other);
        let patched = strategic(&one, patch.to_string().as_bytes(), kind).expect("applies");
        same(&patched.object, &other, &kind.kind);
    });
}

#[test]
fn applying_another_configuration_makes_the_other_object() {
    let writer = Writer { manager: "m", subresource: "", now: "2026-01-02T03:04:05Z" };
    let applied = |live: Option<&Value>, config: &Value, kind: &Kind| {
        apply::declared(config, kind).expect("declared");
        apply::apply(live, config, kind, &writer, false).expect("nobody else owns anything")
    };
    let unowned = |mut object: Value| {
        crate::meta::remove(&mut object, "managedFields");
        object
    };
    for_each_pair(|kind, mut one, mut other| {
        // Nobody owns anything of these.
        if kind.kind == "CertificateSigningRequest" {
            return;
        }
        for object in [&mut one, &mut other] {
            // Nobody owns what this path does not write, nor metadata that only the server does.
            object.as_object_mut().expect("an object").remove("status");
            for key in
                ["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"]
            {
                crate::meta::remove(object, key);
            }
        }
        let live = applied(None, &one, kind);
        same(&unowned(live.clone()), &one, &kind.kind);
        let again = applied(Some(&live), &one, kind);
        same(&again, &live, format!("{} applied again", kind.kind));
        let changed = applied(Some(&live), &other, kind);
        same(&unowned(changed), &other, format!("{} onto {one}", kind.kind));
    });
}
