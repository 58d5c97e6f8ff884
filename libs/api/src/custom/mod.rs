//! Custom kinds: what a CustomResourceDefinition makes of itself at run time.
//!
//! In: definitions and objects as JSON. Out: rows of the table of kinds, accepted names, and objects pruned, defaulted
//! and judged by the version's structural schema and its CEL rules.
//!
//!     names.rs     which names of a definition are accepted, and its conditions
//!     structure.rs pruning and defaults
//!     embedded.rs  objects within objects
//!     formats.rs   formats of texts
//!     scale.rs     what the scale subresource shows
//!     schema.rs    validation by OpenAPI schema
//!     rules.rs     validation by x-kubernetes-validations

mod embedded;
mod formats;
pub mod names;
pub(crate) mod rules;
mod scale;
mod schema;
mod structure;
#[cfg(test)]
mod tests;

pub use structure::{default, read};

use crate::kinds::{Kind, Subresource};
use crate::pattern::Pattern;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The verbs of every custom kind, in the order of its discovery.
pub const VERBS: [&str; 8] =
    ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// One version of a definition, as in `spec.versions`, with its list's kind; patterns and rules are compiled once.
#[derive(Default)]
pub struct Version {
    value: Value,
    /// Whether its schema is one of whole objects.
    whole: bool,
    /// The schemas of all versions of the definition, by apiVersion: objects may be stored in any of them.
    family: Arc<HashMap<String, Value>>,
    patterns: Mutex<HashMap<String, Option<Pattern>>>,
    rules: OnceLock<Option<rules::Part>>,
}

impl Version {
    /// A version's row of a definition.
    #[must_use]
    pub fn new(value: Value) -> Self {
        Self { value, whole: true, ..Self::default() }
    }

    /// The structural schema; null where there is none.
    #[must_use]
    pub fn schema(&self) -> &Value {
        &self.value["schema"]["openAPIV3Schema"]
    }

    /// The webhook that makes objects of other versions; `None` where only their apiVersion differs.
    #[must_use]
    pub fn conversion(&self) -> Option<&Value> {
        let conversion = &self.value["conversion"];
        (conversion["strategy"] == "Webhook").then(|| &conversion["webhook"])
    }

    /// Whether its definition has a version of that apiVersion.
    #[must_use]
    pub fn is_in(&self, version: &str) -> bool {
        self.family.is_empty() || self.family.contains_key(version)
    }

    /// A stored object as it is in the version `wanted`, which this one is: without what its schema does not know (any more),
    /// with the defaults of the version that it is stored in. `None` where it is so already.
    #[must_use]
    pub fn read_as(&self, stored: &Value, wanted: &str) -> Option<Value> {
        let version = stored["apiVersion"].as_str().unwrap_or_default();
        let same = version == wanted;
        let own = if same { Some(self.schema()) } else { self.family.get(version) };
        if same && own.is_none_or(|schema| structure::fits(stored, schema)) {
            return None;
        }
        let mut object = stored.clone();
        if let Some(schema) = own {
            structure::prune_by(&mut object, schema);
            structure::default_by(&mut object, schema);
        }
        if !same {
            object["apiVersion"] = json!(wanted);
            structure::prune_by(&mut object, self.schema());
        }
        Some(object)
    }

    /// An object in the version that it is to be stored in, without what that does not know.
    #[must_use]
    pub fn stored_as(&self, mut object: Value, wanted: &str) -> Value {
        if object["apiVersion"] != wanted || self.conversion().is_some() {
            object["apiVersion"] = json!(wanted);
            if let Some(schema) = self.family.get(wanted) {
                structure::prune_by(&mut object, schema);
            }
        }
        object
    }

    fn pattern(&self, text: &str) -> Option<Pattern> {
        let mut known = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(text.to_owned()).or_insert_with(|| Pattern::new(text).ok()).clone()
    }

    /// Its rules, read when they are first asked for.
    fn rules(&self) -> Option<&rules::Part> {
        self.rules.get_or_init(|| rules::part(self.schema(), self.whole)).as_ref()
    }
}

impl Deref for Version {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.value
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Version {}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Whether a definition is served: its names are accepted, now or before.
#[must_use]
pub fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The kinds that a definition serves, the most preferred version first.
#[must_use]
pub fn kinds(definition: &Value) -> Vec<Arc<Kind>> {
    if !is_established(definition) {
        return Vec::new();
    }
    let spec = &definition["spec"];
    let versions = || spec["versions"].as_array().into_iter().flatten();
    let name = |version: &Value| version["name"].as_str().unwrap_or_default().to_owned();
    let storage = versions().find(|version| version["storage"] == true).map(name).unwrap_or_default();
    let group = spec["group"].as_str().unwrap_or_default();
    let schema =
        |version| (format!("{group}/{}", name(version)), version["schema"]["openAPIV3Schema"].clone());
    let family: Arc<HashMap<String, Value>> = Arc::new(versions().map(schema).collect());
    let mut served: Vec<&Value> = versions().filter(|version| version["served"] == true).collect();
    served.sort_by_cached_key(|version| std::cmp::Reverse(priority(&name(version))));
    served.iter().map(|version| Arc::new(kind(definition, version, (&storage, &family)))).collect()
}

fn kind(
    definition: &Value,
    version: &Value,
    (storage, family): (&str, &Arc<HashMap<String, Value>>),
) -> Kind {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, name, kind) = (text(&spec["group"]), text(&version["name"]), text(&names["kind"]));
    let terminating = definition["metadata"]["deletionTimestamp"].is_string();
    // What is said; finalizers can still be taken away.
    let verbs = VERBS.iter().filter(|verb| !terminating || !matches!(**verb, "create" | "patch" | "update"));
    let sub = |sub: &str, group: &str, version: &str, kind: &str| Subresource {
        name: sub.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        verbs: ["get", "patch", "update"].map(str::to_owned).to_vec(),
    };
    let mut subresources = Vec::new();
    if version["subresources"]["status"].is_object() {
        subresources.push(sub("status", &group, &name, &kind));
    }
    if version["subresources"]["scale"].is_object() {
        subresources.push(sub("scale", "autoscaling", "v1", "Scale"));
    }
    let mut row = version.clone();
    row["listKind"] = json!(text(&names["listKind"]));
    row["conversion"] = spec["conversion"].clone();
    if let Some(newer) = successor(spec, &name) {
        row["successor"] = json!(newer);
    }
    let reversed: Vec<&str> = group.rsplit('.').collect();
    Kind {
        version: name.clone(),
        plural: text(&names["plural"]),
        singular: text(&names["singular"]),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        verbs: verbs.map(|verb| (*verb).to_owned()).collect(),
        subresources,
        storage_version: format!("{group}/{storage}"),
        definition: format!("{}.{name}.{kind}", reversed.join(".")),
        custom: Some(Arc::new(Version { family: family.clone(), ..Version::new(row) })),
        group,
        kind,
    }
}

/// The newest version that is served, not deprecated, and newer than `of`.
fn successor<'a>(spec: &'a Value, of: &str) -> Option<&'a str> {
    let versions = spec["versions"].as_array().into_iter().flatten();
    let good = versions.filter(|version| version["served"] == true && version["deprecated"] != true);
    good.filter_map(|version| version["name"].as_str())
        .filter(|name| priority(name) > priority(of))
        .max_by_key(|name| priority(name))
}

/// Kubernetes' order of versions: GA before beta before alpha before others, the newest first.
#[must_use]
pub fn priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = || (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other() };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(digits);
    let Ok(major) = major.parse() else { return other() };
    let ranked = |rank, minor| (rank, major, minor, std::cmp::Reverse(String::new()));
    if rest.is_empty() {
        return ranked(3, 0);
    }
    for (stage, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some(Ok(minor)) = rest.strip_prefix(stage).map(str::parse) {
            return ranked(rank, minor);
        }
    }
    other()
}

/// Faults of a custom object by its version's schema and rules. What an update leaves as it was is not judged again.
/// `before` are those of its metadata.
pub(crate) fn validate(
    object: &Value,
    old: Option<&Value>,
    version: &Version,
    before: &[FieldError],
) -> rules::Told {
    let mut faults = schema::validate(object, old, version);
    let blocking = schema::blocks(before) || schema::blocks(&faults);
    faults.extend(embedded::validate(object, old, version.schema()));
    scale::validate(object, &version["subresources"]["scale"], &mut faults);
    let mut tolerated = Vec::new();
    if version.rules().is_none() {
        return rules::Told { faults, tolerated };
    }
    if blocking {
        faults.push(FieldError::invalid(
            "",
            &Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ));
    } else {
        let told = rules::validate(object, old, version);
        faults.extend(told.faults);
        tolerated = told.tolerated;
    }
    rules::Told { faults, tolerated }
}

/// Faults of a schema's default, with the paths of its fields.
pub(crate) fn validate_default(default: &Value, schema: &Value, root: bool) -> Vec<FieldError> {
    let version = Version { value: json!({"schema": {"openAPIV3Schema": schema}}), ..Version::default() };
    let mut faults = Vec::new();
    if structure::has_unknown(default, schema) {
        faults.push(FieldError::invalid("", default, "must not have unknown fields"));
    }
    faults.extend(embedded::missing(default, schema, root));
    let own = schema::validate(default, None, &version);
    let blocking = schema::blocks(&own);
    faults.extend(own);
    if !blocking && version.rules().is_some() {
        faults.extend(rules::validate(default, None, &version).faults);
    }
    faults
}
