//! CEL expressions of admission: over a write's objects, which have no schema.
//!
//! In: an expression and named JSON values. Out: its answer, or why there is none in cel-go's words.

use crate::custom::rules;
use cel::objects::{Key, Map};
use std::collections::HashMap;
use std::sync::Arc;

/// A compiled expression, or what is wrong with it.
#[derive(Clone)]
pub struct Program(rules::Compiled);

/// What an expression comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A truth.
    Bool(bool),
    /// A text.
    Text(String),
    /// Anything else.
    Other,
}

/// What expressions can name.
#[derive(Default)]
pub struct Scope {
    values: HashMap<String, cel::Value>,
    variables: HashMap<Key, cel::Value>,
    /// Variables that failed, with why: told to whoever names them.
    failed: HashMap<String, String>,
}

impl Scope {
    /// Names a value.
    pub fn set(&mut self, name: &str, value: &serde_json::Value) {
        self.values.insert(name.to_owned(), rules::to_cel(value, &serde_json::Value::Null));
    }

    /// Names what an expression comes to as `variables.NAME`, for those after it.
    pub fn define(&mut self, name: &str, program: &Program) {
        match program.run(self) {
            Ok(value) => {
                self.variables.insert(Key::from(name), value);
            }
            Err(error) => {
                self.failed.insert(name.to_owned(), error);
            }
        }
    }

    fn context(&self) -> cel::Context<'static, 'static> {
        let mut context = cel::Context::with_env(rules::env());
        for (name, value) in &self.values {
            context.add_variable_from_value(name.as_str(), value.clone());
        }
        let variables = Map { map: Arc::new(self.variables.clone()) };
        context.add_variable_from_value("variables", cel::Value::Map(variables));
        context
    }
}

impl Program {
    /// Compiles an expression; a fault is told when it is asked.
    #[must_use]
    pub fn compile(expression: &str) -> Self {
        Self(rules::compile(expression))
    }

    /// What is wrong with the expression, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.0.as_ref().as_ref().err().map(String::as_str)
    }

    fn run(&self, scope: &Scope) -> Result<cel::Value, String> {
        let program = self.0.as_ref().as_ref().map_err(Clone::clone)?;
        program.execute(&scope.context()).map_err(|error| {
            let error = rules::faulted(&error);
            let name = error.strip_prefix("no such key: ");
            match name.and_then(|name| Some((name, scope.failed.get(name)?))) {
                Some((name, why)) => format!("composited variable {name:?} fails to evaluate: {why}"),
                None => error,
            }
        })
    }

    /// The expression's answer.
    ///
    /// # Errors
    /// It does not compile, or fails on these values.
    pub fn eval(&self, scope: &Scope) -> Result<Answer, String> {
        Ok(match self.run(scope)? {
            cel::Value::Bool(value) => Answer::Bool(value),
            cel::Value::String(text) => Answer::Text(text.to_string()),
            _ => Answer::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_see_objects_and_variables() {
        let mut scope = Scope::default();
        scope.set("object", &json!({"spec": {"replicas": 7, "names": ["a", "b"]}, "metadata": {}}));
        scope.set("oldObject", &serde_json::Value::Null);
        scope.define("many", &Program::compile("object.spec.replicas > 5"));
        scope.define("broken", &Program::compile("object.spec.none > 5"));
        let rows = [
            ("variables.many", Ok(Answer::Bool(true))),
            ("oldObject == null && object.spec.names.all(n, n.size() == 1)", Ok(Answer::Bool(true))),
            ("has(object.metadata.labels)", Ok(Answer::Bool(false))),
            ("object.?spec.?none.orValue(3) == 3", Ok(Answer::Bool(true))),
            ("'have ' + string(object.spec.replicas)", Ok(Answer::Text("have 7".to_owned()))),
            ("object.spec.none", Err("no such key: none".to_owned())),
            (
                "variables.broken",
                Err("composited variable \"broken\" fails to evaluate: no such key: none".to_owned()),
            ),
            ("[1]", Ok(Answer::Other)),
        ];
        for (expression, want) in rows {
            assert_eq!(Program::compile(expression).eval(&scope), want, "{expression}");
        }
        assert!(Program::compile("object.(").fault().is_some());
    }
}
