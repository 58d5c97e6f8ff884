//! Field selectors: the few fields of each kind that a list may be filtered by.
//!
//! Which those are, and where their values stand, is data: `data/field-selectors.json`. There a field has places, the
//! first non-empty of which counts, and perhaps `=TEXT`, the text of an absent value.

use crate::kinds;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

type Places = Vec<String>;
type Fields = HashMap<String, Places>;

static KINDS: LazyLock<HashMap<String, Fields>> = LazyLock::new(|| {
    // The file is part of the program: a test reads it, so it cannot be malformed here.
    serde_json::from_str(include_str!("../../data/field-selectors.json")).unwrap_or_default()
});

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
    /// JSON pointers, split.
    places: Vec<Vec<String>>,
    /// What an absent value reads as.
    absent: String,
}

impl Term {
    fn matches(&self, object: &Value) -> bool {
        let found = self.places.iter().map(|place| at(object, place)).find(|value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            _ => true,
        });
        let equal = match found {
            Some(Value::String(text)) => *text == self.value,
            Some(Value::Bool(flag)) => self.value == if *flag { "true" } else { "false" },
            Some(Value::Number(number)) => self.value == number.to_string(),
            _ => self.value == self.absent,
        };
        equal == self.equal
    }
}

fn at<'a>(object: &'a Value, place: &[String]) -> &'a Value {
    place.iter().fold(object, |value, key| &value[key])
}

/// A parsed field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Parses `a=b,c!=d` and checks the field names against those of `api_version`/`kind`.
    ///
    /// # Errors
    /// Kubernetes' text: `invalid selector: …` or `field label not supported: x`.
    pub fn parse(text: &str, api_version: &str, kind: &str) -> Result<Self, String> {
        let fields = KINDS.get(&format!("{api_version}/{kind}"));
        // Kinds with fields of their own say themselves whether they have a namespace; others take it either way.
        let namespaced =
            fields.is_none() || kinds::by_gvk(api_version, kind).is_none_or(|kind| kind.namespaced);
        Self::build(text, |field| {
            let field = if kind == "Pod" && field == "spec.host" { "spec.nodeName" } else { field };
            if let Some(places) = fields.and_then(|fields| fields.get(field)) {
                return Ok((field.to_owned(), places.clone()));
            }
            metadata(field, namespaced).ok_or_else(|| unsupported(field, kind, fields.is_some()))
        })
    }

    /// The same for a kind of a CustomResourceDefinition, whose `selectableFields` have these JSON paths (`.spec.color`).
    ///
    /// # Errors
    /// Kubernetes' text.
    pub fn parse_custom(text: &str, namespaced: bool, json_paths: &[&str]) -> Result<Self, String> {
        Self::build(text, |field| {
            if json_paths.iter().any(|path| path.strip_prefix('.') == Some(field)) {
                return Ok((field.to_owned(), vec![format!("/{}", field.replace('.', "/"))]));
            }
            metadata(field, namespaced).ok_or_else(|| format!("field label not supported: {field}"))
        })
    }

    /// What a selector asks for, of whatever fields: for those who do not know the kind.
    ///
    /// # Errors
    /// Kubernetes' text.
    pub fn parse_any(text: &str) -> Result<Self, String> {
        Self::build(text, |field| Ok((field.to_owned(), Vec::new())))
    }

    fn build(text: &str, known: impl Fn(&str) -> Result<(String, Places), String>) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in split_unescaped(text).into_iter().filter(|term| !term.is_empty()) {
            let Some((field, equal, value)) = split_term(term) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            let value = unescape(value)?;
            // Nothing that is nothing asks nothing.
            if field.is_empty() && value.is_empty() {
                continue;
            }
            let (field, places) = known(field)?;
            let absent =
                places.iter().find_map(|place| place.strip_prefix('=')).unwrap_or_default().to_owned();
            let places = places.iter().filter_map(|place| place.strip_prefix('/'));
            let places = places.map(|place| place.split('/').map(str::to_owned).collect()).collect();
            terms.push(Term { field, equal, value, places, absent });
        }
        Ok(Self { terms })
    }

    /// Whether it asks nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
    /// The value that `field` must equal, when the selector says so (`metadata.name`, `spec.nodeName`: for indexes).
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
    /// Its terms: field, whether it must be equal, value.
    pub fn terms(&self) -> impl Iterator<Item = (&str, bool, &str)> {
        self.terms.iter().map(|term| (term.field.as_str(), term.equal, term.value.as_str()))
    }
    /// Whether `object` matches.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| term.matches(object))
    }
}

fn metadata(field: &str, namespaced: bool) -> Option<(String, Places)> {
    let place = match field {
        "metadata.name" => "/metadata/name",
        "metadata.namespace" if namespaced => "/metadata/namespace",
        _ => return None,
    };
    Some((field.to_owned(), vec![place.to_owned()]))
}

fn unsupported(field: &str, kind: &str, has_own_list: bool) -> String {
    match (has_own_list, kind) {
        (true, "Job") => format!("field label {field:?} not supported for Job"),
        (true, _) => format!("field label not supported: {field}"),
        (false, _) => {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
    }
}

/// Splits at commas that no backslash escapes.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let index = term.find('=')?;
    if let Some(field) = term[..index].strip_suffix('!') {
        return Some((field, false, &term[index + 1..]));
    }
    let value = &term[index + 1..];
    Some((&term[..index], true, value.strip_prefix('=').unwrap_or(value)))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => text.push(escaped),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(format!("invalid field selector: invalid escape sequence: {sequence}"));
                }
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            _ => text.push(c),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_reads() {
        assert!(KINDS.len() > 10);
    }

    #[test]
    fn matches_by_kind() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "x"}, "status": {"phase": "Running"}});
        let rows = [
            ("metadata.name=p", true),
            ("metadata.name==p", true),
            ("metadata.name!=p", false),
            ("spec.host=x", true),
            ("spec.nodeName=x,status.phase!=Running", false),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
            ("spec.nodeName=", false),
            ("", true),
            (",", true),
            ("metadata.namespace=n", true),
            ("status.podIPs=a", false),
        ];
        for (text, want) in rows {
            assert_eq!(FieldSelector::parse(text, "v1", "Pod").unwrap().matches(&pod), want, "{text}");
        }
        let node_name = FieldSelector::parse("spec.host=x", "v1", "Pod").unwrap();
        assert_eq!(node_name.exact("spec.nodeName"), Some("x"));
        let event = json!({"involvedObject": {"name": "p"}, "source": {}, "reportingComponent": "k"});
        let events =
            |text: &str, version: &str| FieldSelector::parse(text, version, "Event").unwrap().matches(&event);
        assert!(events("involvedObject.name=p,source=k", "v1"));
        assert!(events("regarding.name=p,reportingController=k", "events.k8s.io/v1"));
        let job = FieldSelector::parse("status.successful=2", "batch/v1", "Job").unwrap();
        assert!(job.matches(&json!({"status": {"succeeded": 2}})) && !job.matches(&json!({})));
        let custom = FieldSelector::parse_custom("spec.color=red", true, &[".spec.color"]).unwrap();
        assert!(custom.matches(&json!({"spec": {"color": "red"}})));
    }

    #[test]
    fn faults() {
        let rows = [
            (
                "data.a=1",
                "v1",
                "ConfigMap",
                "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
            ("spec.nope=x", "v1", "Pod", "field label not supported: spec.nope"),
            ("metadata.namespace=x", "v1", "Node", "field label not supported: metadata.namespace"),
            ("metadata.namespace=x", "v1", "Namespace", "field label not supported: metadata.namespace"),
            ("bad", "v1", "ConfigMap", "invalid selector: 'bad'; can't understand 'bad'"),
            ("x=1", "batch/v1", "Job", "field label \"x\" not supported for Job"),
            ("metadata.name=a\\x", "v1", "Pod", "invalid field selector: invalid escape sequence: \\x"),
        ];
        for (text, version, kind, want) in rows {
            assert_eq!(FieldSelector::parse(text, version, kind).unwrap_err(), want);
        }
        assert!(FieldSelector::parse_custom("spec.x=1", true, &[]).is_err());
        assert!(FieldSelector::parse_custom("=", true, &[]).is_ok_and(|selector| selector.is_empty()));
        assert!(FieldSelector::parse_custom("=x", true, &[]).is_err());
        let any = FieldSelector::parse_any("spec.x==1,a!=b").unwrap();
        assert_eq!(any.terms().collect::<Vec<_>>(), [("spec.x", true, "1"), ("a", false, "b")]);
        assert_eq!(unescape("a\\,b\\=c\\\\").unwrap(), "a,b=c\\");
    }
}
