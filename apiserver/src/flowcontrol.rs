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
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::clock;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

const DATA: &str = include_str!("../data/flowcontrol.json");
const GROUP: &str = "flowcontrol.apiserver.k8s.io";
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
        let object = |row: Value| {
            json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "spec": row["spec"],
                "metadata": {"name": row["name"], "annotations": {AUTOUPDATE: "true"}}})
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

async fn ensure(objects: &dyn Objects, plural: &str, object: &Value) -> Result<(), Status> {
    let of = GroupResource::new(GROUP, plural);
    match objects.get_fresh(&of, "", meta::name(object)).await? {
        Some(_) => Ok(()),
        None => match objects.create(&of, "", object.clone(), PRODUCER).await {
            Err(status) if status.code == 409 => Ok(()),
            done => done.map(drop),
        },
    }
}

/// Makes what is missing. Safe to run from several apiservers at once.
///
/// # Errors
/// The store cannot be written.
pub async fn bootstrap(objects: &dyn Objects) -> Result<(), Status> {
    let wanted = wanted();
    let all: Vec<_> = wanted.iter().map(|(plural, object)| ensure(objects, plural, object)).collect();
    futures::stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
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
