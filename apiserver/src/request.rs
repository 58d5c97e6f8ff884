//! What a request is about, as every stage after routing sees it.

use coracle_api::kinds::Kind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, e.g. `system:node:n1`.
    pub name: String,
    /// Unique id; empty when unknown.
    pub uid: String,
    /// Groups, `system:authenticated` or `system:unauthenticated` included.
    pub groups: Vec<String>,
    /// Extra attributes, e.g. `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// As objects have it that tell of users: `username`, `uid`, `groups` and `extra`, as far as there are any.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        let mut out = Map::new();
        for (key, value) in [("username", &self.name), ("uid", &self.uid)] {
            if !value.is_empty() {
                out.insert(key.to_owned(), json!(value));
            }
        }
        if !self.groups.is_empty() {
            out.insert("groups".to_owned(), json!(self.groups));
        }
        if !self.extra.is_empty() {
            out.insert("extra".to_owned(), json!(self.extra));
        }
        out
    }
}

/// What is asked for, as authorization and admission see it (Kubernetes' `RequestInfo` and `authorizer.Attributes`).
#[derive(Clone, Debug, Default)]
pub struct RequestInfo {
    /// `/api…` and `/apis…` paths that name a resource.
    pub is_resource: bool,
    /// The path, decoded.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the lower-case HTTP method.
    pub verb: String,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace; empty for cluster scope. For `/api/v1/namespaces/NAME[/…]` on the namespace itself it is NAME, as in Kubernetes.
    pub namespace: String,
    /// Plural.
    pub resource: String,
    /// Subresource or empty.
    pub subresource: String,
    /// Object name or empty.
    pub name: String,
    /// What follows the subresource (`proxy/…`).
    pub rest: String,
    /// `fieldSelector` of a list, watch or deletecollection, as sent; empty when absent.
    pub field_selector: String,
    /// `labelSelector`, likewise.
    pub label_selector: String,
    /// The row of the kind, where the resource is served.
    pub kind: Option<Arc<Kind>>,
}

impl RequestInfo {
    /// Whether it is about reviews, which are answered and not stored.
    #[must_use]
    pub fn is_review(&self) -> bool {
        matches!(self.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
    }
}
