//! Which names a definition gets: those that no other definition of its group has, once and for all.

use super::is_established;
use crate::meta;
use serde_json::{Map, Value, json};

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The status that `definition` should have beside `others`, which may hold itself; `None` where it has it. `now` is RFC 3339.
#[must_use]
pub fn status(definition: &Value, others: &[&Value], now: &str) -> Option<Value> {
    let (requested, current) = (&definition["spec"]["names"], &definition["status"]["acceptedNames"]);
    if crate::strategy::same(requested, current) {
        return None;
    }
    let (accepted, refused) = accepted(requested, current, &Taken::by(definition, others));
    let mut conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match refused {
        Some((reason, message)) => {
            set(&mut conditions, now, "NamesAccepted", false, reason, &message);
            if !is_established(definition) {
                set(&mut conditions, now, "Established", false, "NotAccepted", "not all names are accepted");
            }
        }
        None => {
            set(&mut conditions, now, "NamesAccepted", true, "NoConflicts", "no conflicts found");
            if !is_established(definition) {
                let text = "the initial names have been accepted";
                set(&mut conditions, now, "Established", true, "InitialNamesAccepted", text);
            }
        }
    }
    changed(definition, conditions, Some(accepted))
}

/// The names that are accepted of those requested, and the conflict that is told: the last one.
fn accepted(
    requested: &Value,
    current: &Value,
    taken: &Taken<'_>,
) -> (Value, Option<(&'static str, String)>) {
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut accepted = current.clone();
    if !accepted.is_object() {
        accepted = json!({"plural": "", "kind": ""});
    }
    let mut refused = None;
    for (key, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("shortNames", "ShortNamesConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
    ] {
        let used = if key.to_lowercase().ends_with("kind") { &taken.kinds } else { &taken.resources };
        if key == "shortNames" {
            let names: Vec<&str> = meta::strings(&requested[key]).collect();
            let own: Vec<&str> = meta::strings(&current[key]).collect();
            let foreign = names.iter().copied().filter(|name| !own.contains(name) && used.contains(name));
            let faults: Vec<String> = foreign.map(in_use).collect();
            match faults.as_slice() {
                [] => set_list(&mut accepted, key, &names),
                [one] => refused = Some((reason, one.clone())),
                many => refused = Some((reason, format!("[{}]", many.join(", ")))),
            }
            continue;
        }
        let name = requested[key].as_str().unwrap_or_default();
        if name != current[key].as_str().unwrap_or_default() && used.contains(&name) {
            refused = Some((reason, in_use(name)));
        } else if !name.is_empty() {
            accepted[key] = json!(name);
        }
    }
    let categories: Vec<&str> = meta::strings(&requested["categories"]).collect();
    set_list(&mut accepted, "categories", &categories);
    (accepted, refused)
}

/// What is told of a definition that is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was marked.
    Marked,
    /// Its objects are being deleted.
    Running,
    /// They are gone.
    Done,
    /// There never were any.
    Unborn,
}

/// The status of a definition that is being deleted.
#[must_use]
pub fn terminating(definition: &Value, ending: Ending, now: &str) -> Option<Value> {
    let mut conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (status, reason, message) = match ending {
        Ending::Marked => (
            true,
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        ),
        Ending::Running => (true, "InstanceDeletionInProgress", "CustomResource deletion is in progress"),
        Ending::Done => (false, "InstanceDeletionCompleted", "removed all instances"),
        Ending::Unborn => (false, "NeverEstablished", "resource was never established"),
    };
    set(&mut conditions, now, "Terminating", status, reason, message);
    changed(definition, conditions, None)
}

fn changed(definition: &Value, conditions: Vec<Value>, accepted: Option<Value>) -> Option<Value> {
    let mut status = definition["status"].as_object().cloned().unwrap_or_else(Map::new);
    status.insert("conditions".to_owned(), Value::Array(conditions));
    if let Some(accepted) = accepted {
        status.insert("acceptedNames".to_owned(), accepted);
    }
    let status = Value::Object(status);
    (status != definition["status"]).then_some(status)
}

fn set_list(names: &mut Value, key: &str, list: &[&str]) {
    if let Some(names) = names.as_object_mut() {
        if list.is_empty() {
            names.remove(key);
        } else {
            names.insert(key.to_owned(), json!(list));
        }
    }
}

/// Sets a condition; its time moves only with its status.
fn set(conditions: &mut Vec<Value>, now: &str, kind: &str, status: bool, reason: &str, message: &str) {
    let status = if status { "True" } else { "False" };
    let wanted = |time: &Value| json!({"type": kind, "status": status, "lastTransitionTime": time, "reason": reason, "message": message});
    match conditions.iter_mut().find(|own| own["type"] == kind) {
        Some(own) if own["status"] == status => *own = wanted(&own["lastTransitionTime"]),
        Some(own) => *own = wanted(&json!(now)),
        None => conditions.push(wanted(&json!(now))),
    }
}

/// Names of a group that are accepted, also those that a definition has itself.
struct Taken<'a> {
    resources: Vec<&'a str>,
    kinds: Vec<&'a str>,
}

impl<'a> Taken<'a> {
    fn by(definition: &Value, others: &[&'a Value]) -> Self {
        let mut taken = Self { resources: Vec::new(), kinds: Vec::new() };
        for other in others {
            if other["spec"]["group"] != definition["spec"]["group"] {
                continue;
            }
            let names = &other["status"]["acceptedNames"];
            let text = |key: &str| names[key].as_str().filter(|text| !text.is_empty());
            taken.resources.extend(["plural", "singular"].into_iter().filter_map(text));
            taken.resources.extend(meta::strings(&names["shortNames"]));
            taken.kinds.extend(["kind", "listKind"].into_iter().filter_map(text));
        }
        taken
    }
}
