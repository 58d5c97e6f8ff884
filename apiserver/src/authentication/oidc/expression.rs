//! CEL of claim mappings: expressions over `claims` or `user`, whose answers are texts, lists of texts, or yes and no.

use coracle_api::expression::{Checked, Environment, Scope, Value as Cel};
use serde_json::Value;

/// Items of a list that are taken.
const ITEMS_MAX: usize = 1000;

/// An expression that compiled.
pub struct Expression {
    text: String,
    program: Checked,
}

impl Expression {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> anyhow::Result<Self> {
        let program = Checked::compile(text, &Environment::open())
            .map_err(|fault| anyhow::anyhow!("compilation failed: {fault}"))?;
        Ok(Self { text: text.to_owned(), program })
    }

    fn answer<'a>(&'a self, name: &'a str, value: &'a Value) -> Result<Cel<'a>, String> {
        let mut scope = Scope::default();
        scope.set(name, value);
        let (answer, _) = self.program.run(&scope);
        answer.map_err(|why| format!("expression '{}' resulted in error: {why}", self.text))
    }

    /// Whether it holds of `value`, which it calls `name`.
    ///
    /// # Errors
    /// It fails, or is neither.
    pub fn holds(&self, name: &str, value: &Value) -> Result<bool, String> {
        match self.answer(name, value)? {
            Cel::Bool(holds) => Ok(holds),
            _ => Err(format!("expression '{}' is no boolean", self.text)),
        }
    }

    /// Its text.
    ///
    /// # Errors
    /// It fails, or is none.
    pub fn text(&self, name: &str, value: &Value) -> Result<String, String> {
        match self.answer(name, value)? {
            Cel::Text(text) => Ok(text.to_string()),
            _ => Err(format!("expression '{}' is no string", self.text)),
        }
    }

    /// Its texts that are not empty: one, or those of a list; none of null.
    ///
    /// # Errors
    /// It fails, or is something else.
    pub fn texts(&self, name: &str, value: &Value) -> Result<Vec<String>, String> {
        let answer = self.answer(name, value)?;
        let items = match &answer {
            Cel::Null => return Ok(Vec::new()),
            Cel::Text(_) => vec![answer.clone()],
            Cel::List(list) if list.len() > ITEMS_MAX => {
                return Err(format!("expression '{}' has more than {ITEMS_MAX} items", self.text));
            }
            Cel::List(list) => list.iter().collect(),
            _ => return Err(format!("expression '{}' is no list of strings", self.text)),
        };
        let mut texts = Vec::new();
        for item in &items {
            match item {
                Cel::Text(text) if text.is_empty() => {}
                Cel::Text(text) => texts.push(text.to_string()),
                _ => return Err(format!("expression '{}' is no list of strings", self.text)),
            }
        }
        Ok(texts)
    }
}
