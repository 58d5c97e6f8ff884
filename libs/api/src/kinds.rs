//! The one table of kinds: names, scope, verbs, subresources. A CustomResourceDefinition makes the same row at run time.
//!
//! The built-in rows stand in `data/kinds.json`, in the order of discovery, and are read once.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// A subresource of a kind, such as `pods/exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `exec` …
    pub name: String,
    /// Group, version and kind of its body.
    pub group: String,
    /// See `group`.
    pub version: String,
    /// See `group`.
    pub kind: String,
    /// Verbs of discovery.
    pub verbs: Vec<String>,
}

/// One served kind in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group, empty for core.
    pub group: String,
    /// API version, such as `v1`.
    pub version: String,
    /// CamelCase singular.
    pub kind: String,
    /// Lower-case plural, as in URLs.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// kubectl's short names.
    pub short_names: Vec<String>,
    /// `all` and the like.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs of discovery, sorted.
    pub verbs: Vec<String>,
    /// Subresources in table order.
    pub subresources: Vec<Subresource>,
    /// The group and version that objects are stored in (`apps/v1`).
    pub storage_version: String,
    /// Full schema definition name (`io.k8s.api.apps.v1.Deployment`); empty for kinds without one.
    pub definition: String,
    /// Set for kinds that come from a CustomResourceDefinition: the version's schema and options.
    pub custom: Option<Arc<crate::custom::Version>>,
}

impl Kind {
    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
    /// The kind of its lists.
    #[must_use]
    pub fn list_kind(&self) -> String {
        let told = self.custom.as_ref().and_then(|version| version["listKind"].as_str());
        told.filter(|told| !told.is_empty()).map_or_else(|| format!("{}List", self.kind), str::to_owned)
    }
    /// Group and plural, as errors name it.
    #[must_use]
    pub fn group_resource(&self) -> crate::status::GroupResource {
        crate::status::GroupResource::new(&self.group, &self.plural)
    }
    /// Group and kind, as `Invalid` errors name it: an Event is the first group's, wherever it is asked for.
    #[must_use]
    pub fn group_kind(&self) -> crate::status::GroupResource {
        let group = if self.group == "events.k8s.io" { "" } else { &self.group };
        crate::status::GroupResource::new(group, &self.kind)
    }
    /// Whether `verb` is offered.
    #[must_use]
    pub fn offers(&self, verb: &str) -> bool {
        self.verbs.iter().any(|offered| offered == verb)
    }
    /// Whether what is made at `subresource`, or as the kind itself, is answered and kept nowhere: reviews, bindings, tokens.
    #[must_use]
    pub fn only_answers(&self, subresource: &str) -> bool {
        let verbs = self.subresource(subresource).map_or(&self.verbs, |sub| &sub.verbs);
        verbs.iter().all(|verb| verb == "create")
    }
    /// The subresource of that name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
}

struct Table {
    kinds: Vec<Arc<Kind>>,
    by_resource: HashMap<(String, String, String), usize>,
    by_gvk: HashMap<(String, String), usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // The data is part of the program: a test reads it.
    let rows: Vec<Value> = serde_json::from_str(include_str!("../data/kinds.json")).unwrap_or_default();
    let kinds: Vec<Arc<Kind>> = rows.iter().map(|row| Arc::new(kind(row))).collect();
    let places = || kinds.iter().enumerate();
    let by_resource = places()
        .map(|(at, kind)| ((kind.group.clone(), kind.version.clone(), kind.plural.clone()), at))
        .collect();
    let by_gvk = places().map(|(at, kind)| ((kind.api_version(), kind.kind.clone()), at)).collect();
    Table { kinds, by_resource, by_gvk }
});

fn kind(row: &Value) -> Kind {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
    let subresource = |row: &Value| Subresource {
        name: text(&row["name"]),
        group: text(&row["group"]),
        version: text(&row["version"]),
        kind: text(&row["kind"]),
        verbs: texts(&row["verbs"]),
    };
    let (group, version, name) = (text(&row["group"]), text(&row["version"]), text(&row["kind"]));
    let definition = definition(&group, &version, &name);
    Kind {
        group,
        version,
        kind: name,
        plural: text(&row["plural"]),
        singular: text(&row["singular"]),
        short_names: texts(&row["shortNames"]),
        categories: texts(&row["categories"]),
        namespaced: row["namespaced"] == true,
        verbs: texts(&row["verbs"]),
        subresources: row["subresources"].as_array().into_iter().flatten().map(subresource).collect(),
        storage_version: text(&row["storageVersion"]),
        definition,
        custom: None,
    }
}

/// The full name of a built-in type's schema.
#[must_use]
pub fn definition(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "meta.k8s.io" => format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}"),
        "apiextensions.k8s.io" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
        }
        "apiregistration.k8s.io" => {
            format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}")
        }
        group => format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or_default()),
    }
}

/// Every built-in kind that is served by default, in discovery order.
#[must_use]
pub fn builtin() -> &'static [Arc<Kind>] {
    &TABLE.kinds
}

/// The built-in kind at a URL's group, version and plural.
#[must_use]
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Kind>> {
    let key = (group.to_owned(), version.to_owned(), plural.to_owned());
    TABLE.kinds.get(*TABLE.by_resource.get(&key)?)
}

/// The built-in kind of an object's `apiVersion` and `kind`.
#[must_use]
pub fn by_gvk(api_version: &str, kind: &str) -> Option<&'static Arc<Kind>> {
    TABLE.kinds.get(*TABLE.by_gvk.get(&(api_version.to_owned(), kind.to_owned()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads() {
        assert!(builtin().len() > 50);
        let pods = by_resource("", "v1", "pods").expect("pods");
        assert_eq!(["", "status", "eviction"].map(|name| pods.only_answers(name)), [false, false, true]);
        assert_eq!((pods.kind.as_str(), pods.definition.as_str()), ("Pod", "io.k8s.api.core.v1.Pod"));
        assert!(pods.subresource("eviction").is_some() && pods.offers("watch"));
        assert_eq!(by_gvk("apps/v1", "Deployment").expect("deployment").plural, "deployments");
    }
}
