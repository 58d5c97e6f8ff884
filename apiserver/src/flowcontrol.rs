//! API Priority and Fairness: which requests run now, which wait, and which are sent away.
//!
//!     request ─► matching.rs (schema, level, flow) ─► gate.rs ─► queues.rs (seats, fair queues) ─► runs, waits, or 429
//!                                                        │           level.rs, borrowing.rs (lent every ten seconds)
//!                                                        └─► dump.rs (`/debug/api_priority_and_fairness/…`)
//!
//! Here stand the objects that every cluster has from its start, as data, and whether a FlowSchema's priority level exists.
//! As upstream the annotation `apf.kubernetes.io/autoupdate-spec` lets people keep their own.

mod borrowing;
mod counts;
mod dump;
mod gate;
mod level;
mod matching;
mod queues;

pub use gate::{FlowControl, Permit, Told, seats};

use crate::reader::{Objects, Reader};
use coracle_api::status::{GroupResource, Status};
use coracle_api::{defaults, kinds, meta};
use coracle_daemon::clock;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DATA: &str = include_str!("../data/flowcontrol.json");
const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// What is as it is whatever people say, of both kinds.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Who owns the objects, and who owns what their status says: as upstream.
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
const AT_ONCE: usize = 32;

/// Every object with its plural.
fn wanted() -> Vec<(&'static str, Value)> {
    // The data is part of the program: a test reads it.
    let data: Value = serde_json::from_str(DATA).unwrap_or_default();
    let lists = [
        ("priorityLevels", "prioritylevelconfigurations", "PriorityLevelConfiguration"),
        ("flowSchemas", "flowschemas", "FlowSchema"),
    ];
    let of = |(list, plural, kind): (&str, &'static str, &str)| {
        let rows = data[list].as_array().cloned().unwrap_or_default();
        let version = format!("{GROUP}/v1");
        let of_kind = kinds::by_gvk(&version, kind);
        let object = |row: Value| {
            let mut object = json!({"apiVersion": version, "kind": kind, "spec": row["spec"],
                "metadata": {"name": row["name"], "annotations": {AUTOUPDATE: "true"}}});
            if let Some(kind) = &of_kind {
                defaults::apply(&mut object, kind);
            }
            object
        };
        rows.into_iter().map(object).map(|object| (plural, object)).collect::<Vec<_>>()
    };
    lists.into_iter().flat_map(of).collect()
}

/// The configuration that tells a FlowSchema of its priority level; `None` where its status says that already.
fn dangling(schema: &Value, exists: bool) -> Option<Value> {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let (status, reason, end) = match exists {
        true => ("False", "Found", "it exists"),
        false => ("True", "NotFound", "there is no such object"),
    };
    let joint = if exists { "and" } else { "but" };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {joint} {end}"
    );
    let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut told = conditions.iter().filter(|condition| condition["type"] == "Dangling");
    if told.any(|own| own["status"] == status && own["message"] == message.as_str()) {
        return None;
    }
    let condition = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": clock::rfc3339_seconds(clock::now())});
    Some(json!({"apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema",
        "metadata": {"name": meta::name(schema)}, "status": {"conditions": [condition]}}))
}

/// An object as it is to be; `None` where it is so. What nothing works without is as it was, but for how much may be lent of
/// it; of others people keep their own if they say so, or, where nothing is said, if they have changed any.
fn revised(current: &Value, wanted: &Value) -> Option<Value> {
    let mandatory = MANDATORY.contains(&meta::name(wanted));
    let said = current["metadata"]["annotations"][AUTOUPDATE].as_str().and_then(meta::parse_bool);
    let follows = mandatory || said.unwrap_or_else(|| current["metadata"]["generation"] == 1);
    let mut out = current.clone();
    out["metadata"]["annotations"][AUTOUPDATE] = json!(follows.to_string());
    if follows {
        out["spec"] = wanted["spec"].clone();
        if current["spec"]["exempt"].is_object() && wanted["spec"]["exempt"].is_object() {
            out["spec"]["exempt"] = current["spec"]["exempt"].clone();
        }
    }
    (out != *current).then_some(out)
}

async fn ensure(
    reader: &dyn Reader,
    objects: &dyn Objects,
    plural: &str,
    object: &Value,
) -> Result<(), Status> {
    let of = GroupResource::new(GROUP, plural);
    let name = meta::name(object);
    match reader.get(&of, "", name) {
        Some(current) if revised(&current, object).is_none() => Ok(()),
        Some(_) => match objects.modify(&of, "", name, PRODUCER, &|current| revised(current, object)).await {
            // Whoever took it away is followed by whoever sees that.
            Err(status) if status.code == 404 => Ok(()),
            done => done.map(drop),
        },
        None => match objects.create(&of, "", object.clone(), PRODUCER).await {
            Err(status) if status.code == 409 => Ok(()),
            done => done.map(drop),
        },
    }
}

/// Makes what is missing, and what was changed as it was. Safe to run from several apiservers at once.
///
/// # Errors
/// The store cannot be written.
pub async fn maintain(reader: &dyn Reader, objects: &dyn Objects) -> Result<(), Status> {
    let wanted = wanted();
    let all: Vec<_> = wanted.iter().map(|(plural, object)| ensure(reader, objects, plural, object)).collect();
    futures::stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
}

/// Whether an object is one that is kept as it is to be, of an earlier or later release: people's own do not say so.
fn is_unwanted(object: &Value, names: &BTreeSet<&str>) -> bool {
    let said = object["metadata"]["annotations"][AUTOUPDATE].as_str().and_then(meta::parse_bool);
    said == Some(true) && !names.contains(meta::name(object))
}

/// What no cluster has from its start any more, and says of itself that it had: resource, name and uid.
#[must_use]
pub fn unwanted(reader: &dyn Reader) -> Vec<(GroupResource, String, String)> {
    let wanted = wanted();
    let of_plural = |plural: &str| {
        let of = GroupResource::new(GROUP, plural);
        let names =
            wanted.iter().filter(|(own, _)| *own == plural).map(|(_, object)| meta::name(object)).collect();
        let objects = reader.list(&of, "").into_iter().filter(|object| is_unwanted(object, &names));
        objects
            .map(|object| (of.clone(), meta::name(&object).to_owned(), meta::uid(&object).to_owned()))
            .collect::<Vec<_>>()
    };
    ["flowschemas", "prioritylevelconfigurations"].into_iter().flat_map(of_plural).collect()
}

/// Tells every FlowSchema whether its priority level exists; writes nothing that is told already.
///
/// # Errors
/// The store cannot be written.
pub async fn tell_dangling(reader: &dyn Reader, objects: &dyn Objects) -> Result<(), Status> {
    let (schemas, levels) =
        (GroupResource::new(GROUP, "flowschemas"), GroupResource::new(GROUP, "prioritylevelconfigurations"));
    for schema in reader.list(&schemas, "") {
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
        let exists = reader.get(&levels, "", level).is_some();
        let Some(config) = dangling(&schema, exists) else { continue };
        match objects.apply(&schemas, "status", config, CONSUMER).await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_reads_and_every_schema_has_its_level() {
        let wanted = wanted();
        let names = |plural: &str| -> Vec<String> {
            let own = wanted.iter().filter(|(of, _)| *of == plural);
            own.map(|(_, object)| meta::name(object).to_owned()).collect()
        };
        assert_eq!(names("flowschemas").len(), 13);
        let levels = names("prioritylevelconfigurations");
        for (_, schema) in wanted.iter().filter(|(of, _)| *of == "flowschemas") {
            let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().expect("level");
            assert!(levels.iter().any(|own| own == level), "{level}");
        }
    }

    #[test]
    fn people_keep_what_they_changed_only_where_they_say_so() {
        let wanted = |name: &str| json!({"metadata": {"name": name}, "spec": {"shares": 1}});
        // (name, annotation, generation, annotation then, whether the spec is as it was)
        let rows = [
            ("workload-low", json!("true"), 2, "true", true),
            ("workload-low", json!("false"), 2, "false", false),
            ("workload-low", Value::Null, 1, "true", true),
            ("workload-low", Value::Null, 2, "false", false),
            ("workload-low", json!("perhaps"), 2, "false", false),
            ("catch-all", json!("false"), 2, "true", true),
        ];
        for (name, said, generation, then, restored) in rows {
            let mut current = wanted(name);
            current["spec"]["shares"] = json!(2);
            current["metadata"]["generation"] = json!(generation);
            current["metadata"]["annotations"] = json!({AUTOUPDATE: said});
            let made = revised(&current, &wanted(name)).unwrap_or_else(|| current.clone());
            assert_eq!(made["metadata"]["annotations"][AUTOUPDATE], then, "{current}");
            assert_eq!(made["spec"]["shares"] == 1, restored, "{current}");
            assert_eq!(revised(&made, &wanted(name)), None, "{made}");
        }
        let exempt = |shares: u64| {
            json!({"metadata": {"name": "exempt", "annotations": {AUTOUPDATE: "true"}},
            "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": shares}}})
        };
        assert_eq!(revised(&exempt(3), &exempt(0)), None, "what may be lent is people's own");
    }

    #[test]
    fn only_what_says_that_it_is_kept_is_unwanted() {
        let names = BTreeSet::from(["probes"]);
        for (name, said, is) in [
            ("former", json!("true"), true),
            ("former", json!("1"), true),
            ("former", json!("false"), false),
            ("former", json!("perhaps"), false),
            ("own", Value::Null, false),
            ("probes", json!("true"), false),
        ] {
            let object = json!({"metadata": {"name": name, "annotations": {AUTOUPDATE: said}}});
            assert_eq!(is_unwanted(&object, &names), is, "{object}");
        }
    }

    #[test]
    fn a_schema_is_told_once_whether_its_level_exists() {
        let schema = json!({"spec": {"priorityLevelConfiguration": {"name": "x"}}});
        let mut told = dangling(&schema, false).expect("told");
        told["spec"] = schema["spec"].clone();
        assert_eq!(told["status"]["conditions"][0]["status"], "True");
        assert_eq!(dangling(&told, false), None);
        let found = dangling(&told, true).expect("changed");
        assert_eq!(found["status"]["conditions"].as_array().map(Vec::len), Some(1));
        assert_eq!(found["status"]["conditions"][0]["reason"], "Found");
    }
}
