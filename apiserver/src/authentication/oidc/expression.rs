//! CEL of claim mappings: expressions over `claims` or `user`, whose answers are texts, lists of texts, or yes and no.

use coracle_api::expression::{Answer, Program, Scope};
use serde_json::Value;

/// Items of a list that are taken.
const ITEMS_MAX: usize = 1000;

/// An expression that compiled.
pub struct Expression {
    text: String,
    program: Program,
}

impl Expression {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> anyhow::Result<Self> {
        let program = Program::compile(text);
        if let Some(fault) = program.fault() {
            anyhow::bail!("compilation failed: {fault}");
        }
        Ok(Self { text: text.to_owned(), program })
    }

    fn answer(&self, program: &Program, name: &str, value: &Value) -> Result<Answer, String> {
        let mut scope = Scope::default();
        scope.set(name, value);
        program.eval(&scope).map_err(|why| format!("expression '{}' resulted in error: {why}", self.text))
    }

    /// Whether it holds of `value`, which it calls `name`.
    ///
    /// # Errors
    /// It fails, or is neither.
    pub fn holds(&self, name: &str, value: &Value) -> Result<bool, String> {
        match self.answer(&self.program, name, value)? {
            Answer::Bool(holds) => Ok(holds),
            _ => Err(format!("expression '{}' is no boolean", self.text)),
        }
    }

    /// Its text.
    ///
    /// # Errors
    /// It fails, or is none.
    pub fn text(&self, name: &str, value: &Value) -> Result<String, String> {
        match self.answer(&self.program, name, value)? {
            Answer::Text(text) => Ok(text),
            _ => Err(format!("expression '{}' is no string", self.text)),
        }
    }

    /// Its texts: one, or those of a list; none of null.
    ///
    /// # Errors
    /// It fails, or is something else.
    pub fn texts(&self, name: &str, value: &Value) -> Result<Vec<String>, String> {
        match self.answer(&self.program, name, value)? {
            Answer::Text(text) if text.is_empty() => return Ok(Vec::new()),
            Answer::Text(text) => return Ok(vec![text]),
            _ => {}
        }
        let absent = Program::compile(&format!("({}) == null", self.text));
        if self.answer(&absent, name, value)? == Answer::Bool(true) {
            return Ok(Vec::new());
        }
        // Lists come out of an expression item by item.
        let ask = |text: String| match self.answer(&Program::compile(&text), name, value)? {
            Answer::Text(text) => Ok(text),
            _ => Err(format!("expression '{}' is no list of strings", self.text)),
        };
        let count: usize = ask(format!("string(size({}))", self.text))?.parse().unwrap_or(usize::MAX);
        if count > ITEMS_MAX {
            return Err(format!("expression '{}' has more than {ITEMS_MAX} items", self.text));
        }
        let items = (0..count).map(|index| ask(format!("({})[{index}]", self.text)));
        Ok(items.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|item| !item.is_empty()).collect())
    }
}
