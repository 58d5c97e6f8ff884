//! What a request is about, as every stage after routing sees it.

use coracle_api::kinds::Kind;
use http::HeaderMap;
use http::header::{self, HeaderName};
use percent_encoding::percent_decode_str;
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

/// The words of a header that lists some, in all of its lines.
pub fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether a request asks to go on as a WebSocket (RFC 6455).
#[must_use]
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let is =
        |name: HeaderName, word: &str| listed(headers, &name).any(|known| known.eq_ignore_ascii_case(word));
    is(header::CONNECTION, "upgrade") && is(header::UPGRADE, "websocket")
}

/// Whether each `%` of a text begins an escape.
#[must_use]
pub fn escapes_are_whole(text: &str) -> bool {
    let is_hex = |digits: &str| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    text.split('%').skip(1).all(|after| after.get(..2).is_some_and(is_hex))
}

/// `%xx` decoded, with marks for what is no text.
#[must_use]
pub fn unescaped(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The key of an extra attribute, as the name of a header carries it; one with broken escapes is taken as it stands.
#[must_use]
pub fn extra_key(escaped: &str) -> String {
    if escapes_are_whole(escaped) { unescaped(escaped) } else { escaped.to_owned() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_extras_are_decoded_unless_their_escapes_are_broken() {
        for (header, key) in [
            ("scopes", "scopes"),
            ("example.org%2fa%25b", "example.org/a%b"),
            ("a%2fb%zz", "a%2fb%zz"),
            ("a%+fb", "a%+fb"),
            ("a%2", "a%2"),
            ("%c3%bc", "ü"),
        ] {
            assert_eq!(extra_key(header), key, "{header}");
        }
    }
}
