//! Label and field selectors: parse once, match many times.

use serde_json::Value;

/// A parsed label selector; empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<String>,
}

impl LabelSelector {
    /// Parses the query syntax (`a=b,c in (d,e),!f,g>1`).
    ///
    /// # Errors
    /// Kubernetes' text, e.g. `unable to parse requirement: …`.
    pub fn parse(text: &str) -> Result<Self, String> {
        unimplemented!("B {text}")
    }
    /// From a `metav1.LabelSelector` object; `Null` matches nothing, `{}` everything.
    ///
    /// # Errors
    /// An unknown operator or malformed requirement.
    pub fn from_object(selector: &Value) -> Result<Self, String> {
        unimplemented!("B {selector}")
    }
    /// Whether it asks nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
    /// Whether `labels` (an object of strings, or Null) match.
    #[must_use]
    pub fn matches(&self, labels: &Value) -> bool {
        unimplemented!("B {labels}")
    }
}

/// A parsed field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Parses `a=b,c!=d` and checks the field names against those of `api_version`/`kind`.
    ///
    /// # Errors
    /// Kubernetes' text: `invalid selector: …` or `field label not supported: x`.
    pub fn parse(text: &str, api_version: &str, kind: &str) -> Result<Self, String> {
        unimplemented!("B {text} {api_version} {kind}")
    }
    /// Whether it asks nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
    /// The value that `field` must equal, when the selector says so (`metadata.name`, `spec.nodeName`: for indexes).
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|(name, equal, _)| *equal && name == field)
            .map(|(_, _, value)| value.as_str())
    }
    /// Whether `object` matches.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        unimplemented!("B {object}")
    }
}
