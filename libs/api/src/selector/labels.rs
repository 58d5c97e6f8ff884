//! Label selectors: requirements, all of which must hold.

use super::parse;
use crate::labels::{is_qualified_name, is_valid_label_value};
use serde_json::Value;
use std::fmt;

/// What a requirement asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Its value is this one; `In` with one value says the same, and is shown otherwise.
    Equals,
    /// It is absent or has another value than this one.
    NotEquals,
    /// Its value is one of several.
    In,
    /// It is absent or has another value.
    NotIn,
    /// It is present.
    Exists,
    /// It is absent.
    DoesNotExist,
    /// It is an integer above the one given.
    Gt,
    /// It is an integer below the one given.
    Lt,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What is asked.
    pub operator: Operator,
    /// The values that the operator speaks of, sorted.
    pub values: Vec<String>,
}

impl Requirement {
    /// Checks key and values.
    ///
    /// # Errors
    /// Kubernetes' text.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        check_key("key", key)?;
        values.sort();
        values.dedup();
        let shown = || serde_json::to_string(&values).unwrap_or_default();
        let fault = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::Gt | Operator::Lt if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(format!("values: Invalid value: {}: {fault}", shown()));
        }
        if matches!(operator, Operator::Gt | Operator::Lt) && values[0].parse::<i64>().is_err() {
            let fault = "for 'Gt', 'Lt' operators, the value must be an integer";
            return Err(format!("values[0]: Invalid value: {:?}: {fault}", values[0]));
        }
        for (i, value) in values.iter().enumerate() {
            let faults = is_valid_label_value(value);
            if !faults.is_empty() {
                return Err(format!("values[{i}][{key}]: Invalid value: {value:?}: {}", faults.join("; ")));
            }
        }
        Ok(Self { key: key.to_owned(), operator, values })
    }

    fn matches(&self, labels: &Value) -> bool {
        let label = labels.get(&self.key).and_then(Value::as_str);
        let listed = |label: &str| self.values.binary_search_by(|value| value.as_str().cmp(label)).is_ok();
        match self.operator {
            Operator::Equals | Operator::In => label.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::Gt => self.compare(label).is_some_and(|(label, bound)| label > bound),
            Operator::Lt => self.compare(label).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn compare(&self, label: Option<&str>) -> Option<(i64, i64)> {
        Some((label?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        match self.operator {
            Operator::Equals => write!(f, "{}={values}", self.key),
            Operator::NotEquals => write!(f, "{}!={values}", self.key),
            Operator::In => write!(f, "{} in ({values})", self.key),
            Operator::NotIn => write!(f, "{} notin ({values})", self.key),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::Gt => write!(f, "{}>{values}", self.key),
            Operator::Lt => write!(f, "{}<{values}", self.key),
        }
    }
}

/// A parsed label selector; empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Set for an absent selector object, which selects nothing at all.
    nothing: bool,
}

impl LabelSelector {
    /// Parses the query syntax (`a=b,c in (d,e),!f,g>1`).
    ///
    /// # Errors
    /// Kubernetes' text, e.g. `unable to parse requirement: …`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = parse::requirements(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// From a `metav1.LabelSelector` object; `Null` matches nothing, `{}` everything.
    ///
    /// # Errors
    /// An unknown operator or malformed requirement.
    pub fn from_object(selector: &Value) -> Result<Self, String> {
        if selector.is_null() {
            return Ok(Self { requirements: Vec::new(), nothing: true });
        }
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(|value| value.as_str().map(str::to_owned)).collect();
            requirements.push(Requirement::new(
                expression["key"].as_str().unwrap_or_default(),
                operator,
                values,
            )?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// From a plain map of labels, as Services and ReplicationControllers have it; never an error.
    #[must_use]
    pub fn from_map(labels: &Value) -> Self {
        let requirements = labels.as_object().into_iter().flatten().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        });
        Self { requirements: requirements.collect(), nothing: false }
    }

    /// Whether it asks nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }
    /// Its terms, sorted by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
    /// Whether `labels` (an object of strings, or Null) match.
    #[must_use]
    pub fn matches(&self, labels: &Value) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The fault of a key at `path`, if any.
pub(super) fn check_key(path: &str, key: &str) -> Result<(), String> {
    let faults = is_qualified_name(key);
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("{path}: Invalid value: {key:?}: {}", faults.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn matches_as_kubernetes_does() {
        let labels = json!({"n": "3", "odd": "1", "empty": ""});
        let rows = [
            ("", true),
            ("odd=1", true),
            ("odd==1", true),
            ("odd!=1,n", false),
            ("n in (0,3,9)", true),
            ("n notin (0,1,2),n", true),
            ("n>2", true),
            ("n<3", false),
            ("!odd", false),
            ("!x", true),
            ("x!=1", true),
            ("x notin (a)", true),
            ("n in ()", false),
            ("empty=", true),
            ("empty in (,)", true),
            ("x", false),
            ("odd>x1", false),
            (" odd = 1 , n ", true),
            ("in in (in)", false),
        ];
        for (text, want) in rows {
            match LabelSelector::parse(text) {
                Ok(selector) => assert_eq!(selector.matches(&labels), want, "{text}"),
                Err(fault) => {
                    assert_eq!((text, fault.contains("must be an integer")), ("odd>x1", true), "{fault}");
                }
            }
        }
        assert!(!LabelSelector::parse("odd=1").unwrap().matches(&Value::Null));
    }

    #[test]
    fn objects() {
        let select = |object: Value| LabelSelector::from_object(&object);
        let labels = json!({"a": "b"});
        assert!(!select(Value::Null).unwrap().matches(&labels) && !select(Value::Null).unwrap().is_empty());
        assert!(select(json!({})).unwrap().matches(&labels) && select(json!({})).unwrap().is_empty());
        assert!(select(json!({"matchLabels": {"a": "b"}})).unwrap().matches(&labels));
        let expression = |operator: &str, values: Value| {
            select(json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}))
        };
        assert!(expression("NotIn", json!(["c"])).unwrap().matches(&labels));
        assert_eq!(
            expression("Is", json!([])),
            Err("\"Is\" is not a valid label selector operator".to_owned())
        );
        assert_eq!(
            expression("In", json!([])).unwrap_err(),
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
        );
        assert_eq!(expression("In", json!(["y", "x"])).unwrap().to_string(), "a in (x,y)");
        assert_eq!(expression("In", json!(["y"])).unwrap().to_string(), "a in (y)");
        assert_eq!(select(json!({"matchLabels": {"a": "y"}})).unwrap().to_string(), "a=y");
    }

    #[test]
    fn faults() {
        let rows = [
            ("bad key!", "unable to parse requirement: found 'key', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("=", "found '=', expected: !, identifier, or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ];
        for (text, want) in rows {
            assert_eq!(LabelSelector::parse(text).unwrap_err(), want, "{text}");
        }
    }
}
