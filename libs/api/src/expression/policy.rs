//! All expressions of a ValidatingAdmissionPolicy, or the conditions of a webhook, read and checked together.
//!
//! In: a policy's spec, and what is declared of its objects and parameters where that is known. Out: programs, each with
//! its place in the spec, or why it is none.

use super::scope::policy_environment;
use super::types::{Decl, Type};
use super::{Checked, Environment};
use serde_json::Value as Json;
use std::sync::Arc;

/// A program, or what is wrong with it.
pub type Compiled = Result<Checked, String>;

/// How it begins what is told of a program that is right and cannot be made all the same: no fault of who wrote it, they say.
pub const UNINSTANTIATED: &str = "program instantiation failed: ";

/// What an expression may come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Bool,
    Text,
    TextOrNull,
    Any,
}

/// The expressions of a policy, in the order of its spec.
#[derive(Default)]
pub struct Policy {
    pub conditions: Vec<Compiled>,
    pub variables: Vec<(String, Compiled)>,
    /// Each with the expression of its message.
    pub validations: Vec<(Compiled, Option<Compiled>)>,
    pub annotations: Vec<Compiled>,
}

impl Wanted {
    fn check(self, program: Checked) -> Compiled {
        let ty = program.ty();
        let (fits, told) = match self {
            Self::Bool => (matches!(ty, Type::Bool), "must evaluate to bool"),
            Self::Text => (matches!(ty, Type::String), "must evaluate to string"),
            Self::TextOrNull => {
                (matches!(ty, Type::String | Type::Null), "must evaluate to one of [string null_type]")
            }
            Self::Any => (true, ""),
        };
        if fits { Ok(program) } else { Err(format!("{told} but got {ty}")) }
    }
}

fn text<'j>(value: &'j Json, key: &str) -> &'j str {
    value[key].as_str().unwrap_or_default()
}

fn items(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}

/// Reads the conditions under which a webhook is called.
#[must_use]
pub fn conditions(list: &Json) -> Vec<Compiled> {
    let environment = policy_environment(None, None, None);
    items(list).map(|one| compile(text(one, "expression"), &environment, Wanted::Bool)).collect()
}

fn compile(text: &str, environment: &Environment, wanted: Wanted) -> Compiled {
    let program = Checked::compile(text, environment).map_err(|why| format!("compilation failed: {why}"))?;
    wanted.check(program)?.instantiated().map_err(|why| format!("{UNINSTANTIATED}{why}"))
}

impl Policy {
    /// Reads a policy's expressions.
    #[must_use]
    pub fn compile(spec: &Json, object: Option<&Arc<Decl>>, params: Option<&Arc<Decl>>) -> Self {
        let params = spec["paramKind"].is_object().then_some(params);
        let mut known: Vec<(String, Type)> = Vec::new();
        let mut variables = Vec::new();
        for variable in items(&spec["variables"]) {
            let environment = policy_environment(object, params, Some(&known));
            let expression = text(variable, "expression");
            let program = compile(expression, &environment, Wanted::Any);
            let name = text(variable, "name").to_owned();
            // Those after it may name one that is wrong all the same: that is told once. One that is missing nobody knows.
            if !expression.trim().is_empty() {
                let ty = program.as_ref().map_or(Type::Dyn, |program| program.ty().clone());
                known.push((name.clone(), ty));
            }
            variables.push((name, program));
        }
        let environment =
            policy_environment(object, params, (!variables.is_empty()).then_some(known.as_slice()));
        // A message tells nobody what others may do.
        let unauthorized = environment.clone().without("authorizer");
        let without_variables = policy_environment(object, params, None);
        let condition = |one| compile(text(one, "expression"), &without_variables, Wanted::Bool);
        let validation = |one| {
            let message = Some(text(one, "messageExpression")).filter(|text| !text.trim().is_empty());
            let message = message.map(|text| compile(text, &unauthorized, Wanted::Text));
            (compile(text(one, "expression"), &environment, Wanted::Bool), message)
        };
        let annotation = |one| compile(text(one, "valueExpression"), &environment, Wanted::TextOrNull);
        Self {
            conditions: items(&spec["matchConditions"]).map(condition).collect(),
            validations: items(&spec["validations"]).map(validation).collect(),
            annotations: items(&spec["auditAnnotations"]).map(annotation).collect(),
            variables,
        }
    }
}

/// What the expressions of a policy get wrong about objects of a kind: their places, and what is said of each.
#[must_use]
pub fn misfits(spec: &Json, object: &Arc<Decl>, params: Option<&Arc<Decl>>) -> Vec<(String, String)> {
    let policy = Policy::compile(spec, Some(object), params);
    let mut all = Vec::new();
    let mut tell = |place: String, compiled: &Compiled| {
        // What an expression comes to is not looked at here, as upstream.
        if let Err(why) = compiled
            && let Some(why) = why.strip_prefix("compilation failed: ")
        {
            all.push((place, why.to_owned()));
        }
    };
    for (index, (validation, message)) in policy.validations.iter().enumerate() {
        tell(format!("spec.validations[{index}].expression"), validation);
        if let Some(message) = message {
            tell(format!("spec.validations[{index}].messageExpression"), message);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::declared;
    use serde_json::json;

    #[test]
    fn expressions_of_a_policy_are_read_with_the_variables_before_them() {
        let spec = json!({"variables": [{"name": "a", "expression": "1"}, {"name": "b", "expression": "variables.a + 1"},
                {"name": "c", "expression": "variables.later"}],
            "matchConditions": [{"name": "x", "expression": "variables.a == 1"}],
            "validations": [{"expression": "variables.b > 1", "messageExpression": "1"}, {"expression": "params.x"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "null"}]});
        let policy = Policy::compile(&spec, None, None);
        let told = |compiled: &Compiled| compiled.as_ref().err().cloned().unwrap_or_default();
        assert!(policy.variables[0].1.is_ok() && policy.variables[1].1.is_ok());
        assert!(told(&policy.variables[2].1).contains("undefined field 'later'"));
        assert!(told(&policy.conditions[0]).contains("undeclared reference to 'variables'"));
        assert!(policy.validations[0].0.is_ok() && policy.annotations[0].is_ok());
        let message = policy.validations[0].1.as_ref().map(told);
        assert_eq!(message.as_deref(), Some("must evaluate to string but got int"));
        assert_eq!(
            told(&policy.validations[1].0),
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x\n | ^"
        );
    }

    #[test]
    fn messages_ask_no_authorizer() {
        let asked = "authorizer.path('/x').check('get').reason()";
        let spec =
            json!({"validations": [{"expression": format!("{asked} == ''"), "messageExpression": asked}]});
        let policy = Policy::compile(&spec, None, None);
        let (validation, message) = &policy.validations[0];
        let why = message.as_ref().and_then(|message| message.as_ref().err());
        assert!(validation.is_ok());
        assert!(why.is_some_and(|why| why.contains("undeclared reference to 'authorizer'")), "{why:?}");
    }

    #[test]
    fn variables_that_are_not_there_are_no_name() {
        for (variables, want) in [
            (json!([]), "undeclared reference to 'variables'"),
            (json!([{"name": "a", "expression": ""}]), "undefined field 'a'"),
        ] {
            let spec = json!({"variables": variables, "validations": [{"expression": "variables.a > 1"}]});
            let why = Policy::compile(&spec, None, None).validations[0].0.as_ref().err().cloned();
            assert!(why.as_ref().is_some_and(|why| why.contains(want)), "{why:?}");
        }
    }

    #[test]
    fn policies_are_checked_against_the_kinds_that_they_are_about() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}});
        let object = Arc::new(declared(&schema, "Deployment", true).expect("a declaration"));
        let spec = json!({"validations": [{"expression": "object.spec.replicas > 1"}, {"expression": "object.spec.foo > 1"},
            {"expression": "object.spec.replicas > '1'"}]});
        let told = misfits(&spec, &object, None);
        let places: Vec<&str> = told.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, ["spec.validations[1].expression", "spec.validations[2].expression"]);
        assert_eq!(
            told[0].1,
            "ERROR: <input>:1:12: undefined field 'foo'\n | object.spec.foo > 1\n | ...........^"
        );
        assert_eq!(
            told[1].1,
            "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | .....................^"
        );
    }
}
