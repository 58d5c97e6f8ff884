//! The table of defaults, compiled: sections of rules, each a path, conditions and an action.
//!
//! In: `data/defaults.txt` (its head explains the lines). Out: changed objects. A line that does not compile is a
//! programming error and is reported by the test below; at run time such a line would do nothing.

use super::rules;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

static SECTIONS: LazyLock<Sections> =
    LazyLock::new(|| Sections::compile(include_str!("../../data/defaults.txt")));

/// Applies the section `name` (usually a kind); a kind without one has no defaults.
pub(super) fn apply(object: &mut Value, name: &str) {
    if let Some(&section) = SECTIONS.by_name.get(name) {
        SECTIONS.run(section, object);
    }
}

struct Sections {
    by_name: HashMap<&'static str, usize>,
    rules: Vec<Vec<Rule>>,
}

struct Rule {
    path: Vec<Step>,
    when: Vec<Condition>,
    action: Action,
}

#[derive(Clone, Copy)]
enum Step {
    Enter(&'static str),
    Make(&'static str),
    Each(&'static str),
}

enum Action {
    Set { key: &'static str, value: Value, over_zero: bool },
    Section(usize),
    Call(fn(&mut Value)),
}

struct Condition {
    path: Vec<&'static str>,
    wants: Wanted,
}

enum Wanted {
    Present,
    Absent,
    OneOf(Vec<&'static str>),
}

impl Condition {
    fn parse(text: &'static str) -> Self {
        let (path, wants) = match (text.strip_prefix('!'), text.split_once('=')) {
            (Some(path), _) => (path, Wanted::Absent),
            (None, Some((path, values))) => (path, Wanted::OneOf(values.split('|').collect())),
            (None, None) => (text, Wanted::Present),
        };
        Self { path: path.split('.').collect(), wants }
    }

    fn holds(&self, object: &Value) -> bool {
        let found = self.path.iter().try_fold(object, |at, key| at.get(key)).unwrap_or(&Value::Null);
        match &self.wants {
            Wanted::Present => !is_zero(found),
            Wanted::Absent => is_zero(found),
            Wanted::OneOf(values) => found.as_str().is_some_and(|text| values.contains(&text)),
        }
    }
}

impl Rule {
    fn parse(line: &'static str, sections: &HashMap<&'static str, usize>) -> Option<Self> {
        let (line, when) = line.split_once(" if ").unwrap_or((line, ""));
        let when =
            when.split(" & ").map(str::trim).filter(|text| !text.is_empty()).map(Condition::parse).collect();
        let mut words = line.splitn(3, ' ');
        let (path, operator, right) = (words.next()?, words.next()?, words.next()?.trim());
        let mut path: Vec<Step> = path.split('.').filter(|step| !step.is_empty()).map(step).collect();
        let action = match operator {
            ":" => match right.strip_suffix("()") {
                Some(function) => Action::Call(rules::by_name(function)?),
                None => Action::Section(*sections.get(right)?),
            },
            "=" | "~" => {
                let Some(Step::Enter(key)) = path.pop() else { return None };
                Action::Set { key, value: serde_json::from_str(right).ok()?, over_zero: operator == "~" }
            }
            _ => return None,
        };
        Some(Self { path, when, action })
    }
}

fn step(text: &'static str) -> Step {
    match (text.strip_suffix('+'), text.strip_suffix("[]")) {
        (Some(key), _) => Step::Make(key),
        (None, Some(key)) => Step::Each(key),
        (None, None) => Step::Enter(text),
    }
}

impl Sections {
    fn compile(text: &'static str) -> Self {
        let mut by_name = HashMap::new();
        let mut lines: Vec<Vec<&'static str>> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(name) => {
                    by_name.insert(name, lines.len());
                    lines.push(Vec::new());
                }
                None => lines.iter_mut().rev().take(1).for_each(|section| section.push(line)),
            }
        }
        let compile = |section: &Vec<&'static str>| {
            section.iter().filter_map(|line| Rule::parse(line, &by_name)).collect()
        };
        let rules = lines.iter().map(compile).collect();
        Self { by_name, rules }
    }

    fn run(&self, section: usize, object: &mut Value) {
        for rule in &self.rules[section] {
            if rule.when.iter().all(|condition| condition.holds(object)) {
                self.walk(object, &rule.path, &rule.action);
            }
        }
    }

    fn walk(&self, at: &mut Value, path: &[Step], action: &Action) {
        let Some((step, rest)) = path.split_first() else { return self.act(at, action) };
        match *step {
            Step::Enter(key) => {
                if let Some(inner) = at.get_mut(key).filter(|inner| inner.is_object()) {
                    self.walk(inner, rest, action);
                }
            }
            Step::Make(key) => {
                if let Some(map) = at.as_object_mut() {
                    let inner = map.entry(key).or_insert(Value::Null);
                    if inner.is_null() {
                        *inner = Value::Object(Map::new());
                    }
                    self.walk(inner, rest, action);
                }
            }
            Step::Each(key) => {
                for item in at.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                    self.walk(item, rest, action);
                }
            }
        }
    }

    fn act(&self, at: &mut Value, action: &Action) {
        match action {
            Action::Set { key, value, over_zero } => {
                if let Some(map) = at.as_object_mut()
                    && map.get(*key).is_none_or(|old| old.is_null() || (*over_zero && is_zero(old)))
                {
                    map.insert((*key).to_owned(), value.clone());
                }
            }
            Action::Section(section) => self.run(*section, at),
            Action::Call(function) => function(at),
        }
    }
}

/// What Go calls a zero value, in JSON.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_compiles() {
        let text = include_str!("../../data/defaults.txt");
        let sections = Sections::compile(text);
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(['#', '[']));
        for line in lines {
            assert!(Rule::parse(line, &sections.by_name).is_some(), "{line}");
        }
    }
}
