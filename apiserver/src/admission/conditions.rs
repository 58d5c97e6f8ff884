//! matchConditions, and what CEL knows of a write.

use super::Attributes;
use super::select::{self, Target};
use super::webhook;
use coracle_api::expression::{Answer, Program, Scope};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;

/// Compiled expressions that are kept; more are compiled again when they are asked for.
const KEPT_MAX: usize = 2000;

/// Expressions of webhooks and policies, compiled once.
#[derive(Default)]
pub struct Conditions {
    programs: Mutex<HashMap<String, Program>>,
}

impl Conditions {
    /// The program of an expression.
    pub fn program(&self, expression: &str) -> Program {
        let mut known = self.programs.lock();
        if known.len() > KEPT_MAX {
            known.clear();
        }
        known.entry(expression.to_owned()).or_insert_with(|| Program::compile(expression)).clone()
    }

    /// What expressions about a write can name.
    pub fn scope(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        target: &Target,
        namespace: Option<&Value>,
    ) -> Scope {
        let mut scope = Scope::default();
        let old = attributes.old.unwrap_or(&Value::Null);
        scope.set("object", &select::converted(target, attributes, object));
        scope.set("oldObject", &select::converted(target, attributes, old));
        scope.set("request", &webhook::request(attributes, object, target));
        scope.set("namespaceObject", namespace.unwrap_or(&Value::Null));
        scope
    }

    /// Whether all conditions hold. One that does not wins over those that fail.
    ///
    /// # Errors
    /// How they failed, unless failures are to be ignored: then they do not hold.
    pub fn met(
        &self,
        conditions: &Value,
        ignore_failure: bool,
        scope: impl FnOnce() -> Scope,
    ) -> Result<bool, String> {
        let Some(conditions) = conditions.as_array().filter(|conditions| !conditions.is_empty()) else {
            return Ok(true);
        };
        let scope = scope();
        let mut errors = Vec::new();
        for condition in conditions {
            let expression = condition["expression"].as_str().unwrap_or_default();
            match self.program(expression).eval(&scope) {
                Ok(Answer::Bool(true)) => {}
                Ok(Answer::Bool(false)) => return Ok(false),
                Ok(_) => errors.push(format!("cel expression must evaluate to a bool: {expression}")),
                Err(error) => {
                    errors.push(format!("expression '{}' resulted in error: {error}", expression.trim()));
                }
            }
        }
        match (errors.as_slice(), ignore_failure) {
            ([], _) => Ok(true),
            (_, true) => Ok(false),
            ([only], false) => Err(only.clone()),
            (all, false) => Err(format!("[{}]", all.join(", "))),
        }
    }
}
