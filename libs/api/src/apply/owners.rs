//! The entries of `managedFields`: who owns which fields, by which operation.

use super::set::FieldSet;
use super::versions::Change;
use super::{Conflicts, Writer};
use serde_json::{Value, json};

const UPDATES_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// How fields came to be owned. `Apply` sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One owner.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    operation: Operation,
    pub time: String,
    manager: String,
    pub api_version: String,
    subresource: String,
    pub fields: FieldSet,
}

impl Entry {
    /// Whether it is what older ones were folded into.
    fn is_ancient(&self) -> bool {
        self.operation == Operation::Update && self.manager == ANCIENT && self.subresource.is_empty()
    }

    /// Whether both are of one owner. An applier is one, whatever version it writes in.
    fn is_of(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflicts name it.
    fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
    fn decode(entry: &Value) -> Option<Self> {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let operation = match entry["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if entry["fieldsType"] != "FieldsV1" || text("apiVersion").is_empty() {
            return None;
        }
        Some(Self {
            operation,
            time: text("time"),
            manager: text("manager"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            fields: FieldSet::decode(&entry["fieldsV1"])?,
        })
    }
    fn encode(self) -> Value {
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        let mut entry = json!({
            "operation": operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
        });
        // The macro would copy it.
        entry["fieldsV1"] = self.fields.encode();
        for (key, value) in
            [("manager", &self.manager), ("time", &self.time), ("subresource", &self.subresource)]
        {
            if !value.is_empty() {
                entry[key] = value.as_str().into();
            }
        }
        entry
    }
}

/// Whether `managedFields` asks to forget all owners. An empty list of a custom object is read as none at all.
pub(super) fn is_reset(entries: &Value, custom: bool) -> bool {
    let is_empty = |value: &Value| value.is_null() || value.as_str() == Some("");
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => !custom,
        Some([entry]) => entry.as_object().is_some_and(|entry| entry.values().all(is_empty)),
        _ => false,
    }
}

/// All owners of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    entries: Vec<Entry>,
}

impl Owners {
    /// Reads `managedFields`; `None` when there is none, or it is unusable.
    pub fn decode(entries: &Value) -> Option<Self> {
        let entries: Option<Vec<Entry>> = entries.as_array()?.iter().map(Entry::decode).collect();
        Some(Self { entries: entries? }).filter(|owners| !owners.entries.is_empty())
    }
    /// Each owner once: of two entries of one the last is meant.
    pub fn distinct(self) -> Self {
        let mut distinct = Self::default();
        for entry in self.entries {
            distinct.entries.retain(|own| !own.is_of(&entry));
            distinct.entries.push(entry);
        }
        distinct
    }
    /// Those who own `path`, as owners of `other` in a version.
    pub fn narrowed(mut self, path: &FieldSet, other: &FieldSet, version: &str) -> Self {
        self.entries.retain(|entry| !entry.fields.intersect(path).is_empty());
        for entry in &mut self.entries {
            entry.fields = other.clone();
            version.clone_into(&mut entry.api_version);
        }
        self
    }
    /// With `path` owned by those of `narrow` alone, who own it there as `other`; who owned it before keeps the time of that.
    pub fn widened(mut self, mut narrow: Self, other: &FieldSet, path: &FieldSet, version: &str) -> Self {
        for entry in self.entries.iter_mut().filter(|entry| !entry.fields.intersect(path).is_empty()) {
            match narrow.entries.iter().position(|own| own.is_of(entry)) {
                Some(same) => drop(narrow.entries.remove(same)),
                None => entry.fields.subtract(path),
            }
        }
        // Who owns something else there owns nothing here.
        narrow.entries.retain(|entry| !entry.fields.intersect(other).is_empty());
        self.entries.extend(narrow.entries.into_iter().map(|entry| Entry {
            time: String::new(),
            fields: path.clone(),
            api_version: version.to_owned(),
            ..entry
        }));
        self
    }
    /// Writes `managedFields`, in Kubernetes' order.
    pub fn encode(mut self) -> Value {
        self.entries.retain(|entry| !entry.fields.is_empty());
        fn order(entry: &Entry) -> impl Ord {
            (entry.operation, &entry.time, &entry.manager, &entry.api_version, &entry.subresource)
        }
        self.entries.sort_by(|a, b| order(a).cmp(&order(b)));
        Value::Array(self.entries.into_iter().map(Entry::encode).collect())
    }
    /// The entry of a writer, made when there is none. An applier has one, whatever version it writes in.
    pub fn entry(&mut self, operation: Operation, api_version: &str, writer: &Writer<'_>) -> &mut Entry {
        let same = |entry: &Entry| {
            entry.operation == operation
                && entry.manager == writer.manager
                && entry.subresource == writer.subresource
                && (operation == Operation::Apply || entry.api_version == api_version)
        };
        let index = self.entries.iter().position(same).unwrap_or_else(|| {
            self.entries.push(Entry {
                operation,
                time: String::new(),
                manager: writer.manager.to_owned(),
                api_version: api_version.to_owned(),
                subresource: writer.subresource.to_owned(),
                fields: FieldSet::default(),
            });
            self.entries.len() - 1
        });
        &mut self.entries[index]
    }
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Everything that anybody owns.
    pub fn all_fields(&self) -> FieldSet {
        let mut all = FieldSet::default();
        for entry in &self.entries {
            all.add_all(entry.fields.clone());
        }
        all
    }

    fn is_applier(entry: &Entry, writer: &Writer<'_>) -> bool {
        entry.operation == Operation::Apply
            && entry.manager == writer.manager
            && entry.subresource == writer.subresource
    }

    /// The fields of others that an apply would change, by owner.
    pub fn conflicts(&self, change: &Change<'_>, writer: &Writer<'_>) -> Conflicts {
        let others = self.entries.iter().filter(|entry| !Self::is_applier(entry, writer));
        others
            .map(|entry| {
                let changes = change.in_version(&entry.api_version);
                let mut touched = entry.fields.intersect(&changes.modified);
                touched.add_all(entry.fields.intersect(&changes.added));
                (entry.shown(), touched)
            })
            .filter(|(_, fields)| !fields.is_empty())
            .collect()
    }
    /// Takes from everybody but an applier what changed or went: an applier's fields are what it applied.
    pub fn lose(&mut self, change: &Change<'_>, applier: Option<&Writer<'_>>) {
        for entry in &mut self.entries {
            if applier.is_some_and(|writer| Self::is_applier(entry, writer)) {
                continue;
            }
            let changes = change.in_version(&entry.api_version);
            entry.fields.subtract(&changes.modified);
            entry.fields.subtract(&changes.added);
            entry.fields.subtract(&changes.removed);
        }
        self.entries.retain(|entry| !entry.fields.is_empty());
    }
    /// Folds the oldest update entries of each version into one, so that their number stays bounded. What was folded before
    /// is lost where it is not the oldest of all, as upstream: it is then folded into itself and taken away.
    pub fn cap_updates(&mut self) {
        let is_update = |entry: &Entry| entry.operation == Operation::Update;
        let mut count = self.entries.iter().filter(|entry| is_update(entry)).count();
        if count <= UPDATES_MAX {
            return;
        }
        self.entries
            .sort_by(|a, b| (a.operation, &a.time, &a.manager).cmp(&(b.operation, &b.time, &b.manager)));
        let mut entries: Vec<Option<Entry>> =
            std::mem::take(&mut self.entries).into_iter().map(Some).collect();
        let mut firsts: Vec<(String, usize)> = Vec::new();
        for at in 0..entries.len() {
            let Some(entry) = entries[at].clone().filter(|entry| is_update(entry) && count > UPDATES_MAX)
            else {
                continue;
            };
            let known = firsts.iter().find(|(version, _)| *version == entry.api_version);
            let Some(first) = known.map(|(_, first)| *first) else {
                firsts.push((entry.api_version, at));
                continue;
            };
            let is_bucket = |own: &Option<Entry>| {
                own.as_ref().is_some_and(|own| own.is_ancient() && own.api_version == entry.api_version)
            };
            let bucket = entries.iter().position(is_bucket).unwrap_or(first);
            if let Some(bucket) = &mut entries[bucket] {
                ANCIENT.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.time.clone_from(&entry.time);
                bucket.fields.add_all(entry.fields);
            }
            entries[at] = None;
            count -= 1;
        }
        self.entries = entries.into_iter().flatten().collect();
    }

    /// Takes out those who wrote in versions that are not known.
    pub fn forget_versions(&mut self, known: impl Fn(&str) -> bool) {
        self.entries.retain(|entry| known(&entry.api_version));
    }
}
