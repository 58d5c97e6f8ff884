//! Which objects a list or watch is about: namespace, name, labels, fields.

use super::Call;
use crate::storage::cache::in_namespace;
use crate::storage::entry::Entry;
use crate::storage::keys;
use coracle_api::kinds::Kind;
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::status::Status;
use serde_json::Value;

/// A parsed selection. Matching by namespace and name looks at keys only.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty for all.
    pub namespace: String,
    name: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Of a call's path and query.
    ///
    /// # Errors
    /// 400 for selectors that cannot be read.
    pub fn read(call: &Call, kind: &Kind) -> Result<Self, Status> {
        let labels = LabelSelector::parse(call.query("labelSelector")).map_err(Status::bad_request)?;
        let text = call.query("fieldSelector");
        let fields = match &kind.custom {
            Some(custom) => {
                let paths = custom["selectableFields"].as_array().into_iter().flatten();
                let paths: Vec<&str> = paths.filter_map(|field| field["jsonPath"].as_str()).collect();
                FieldSelector::parse_custom(text, kind.namespaced, &paths)
            }
            None => FieldSelector::parse(text, &kind.api_version(), &kind.kind),
        };
        let fields = fields.map_err(Status::bad_request)?;
        let asked = fields.exact("metadata.name").map(str::to_owned);
        let named = Some(call.info.name.clone()).filter(|name| !name.is_empty());
        if let (Some(asked), Some(named)) = (&asked, &named)
            && asked != named
        {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        let namespace = if kind.namespaced { call.info.namespace.clone() } else { String::new() };
        Ok(Self { namespace, name: asked.or(named), labels, fields })
    }

    /// Where it looks, whatever the labels and fields of what is there.
    #[must_use]
    pub fn place(&self) -> Self {
        Self { namespace: self.namespace.clone(), name: self.name.clone(), ..Self::default() }
    }

    /// A key behind its resource's prefix as it stands behind this selection's own.
    #[must_use]
    pub fn within<'t>(&self, tail: &'t str) -> &'t str {
        if self.namespace.is_empty() { tail } else { keys::split(tail).1 }
    }

    /// Whether it takes everything in its namespace.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.name.is_none() && self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether `entry` is where it looks, whatever its labels and fields.
    #[must_use]
    pub fn names(&self, entry: &Entry) -> bool {
        in_namespace(entry, &self.namespace)
            && self.name.as_ref().is_none_or(|name| keys::split(&entry.tail).1 == name)
    }

    /// Whether what is nowhere stored is in it.
    #[must_use]
    pub fn takes(&self, object: &Value) -> bool {
        self.name.as_ref().is_none_or(|name| object["metadata"]["name"] == name.as_str())
            && self.labels.matches(&object["metadata"]["labels"])
            && self.fields.matches(object)
    }

    /// Whether `entry` is in it.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        if !self.names(entry) {
            return false;
        }
        // Whether what cannot be read belongs here nobody can tell: it is not kept quiet.
        if entry.fault().is_some() {
            return true;
        }
        (self.labels.is_empty() || self.labels.matches(&entry.value()["metadata"]["labels"]))
            && (self.fields.is_empty() || self.fields.matches(entry.value()))
    }
}
