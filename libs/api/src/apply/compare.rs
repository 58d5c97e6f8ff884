//! What differs between two objects, as sets of fields.

use super::set::{Container, FieldSet, container, element};
use crate::shape::Shape;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The fields that a change added, changed or removed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Changes {
    /// Leaves out `fields` and everything below them.
    pub fn forget(&mut self, fields: &FieldSet) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.remove_below(fields);
        }
    }
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

pub(super) fn compare(shape: &Shape, old: &Value, new: &Value) -> Changes {
    let mut walk = Walk { path: Vec::new(), changes: Changes::default() };
    walk.visit(shape, Some(old), Some(new));
    walk.changes
}

struct Walk {
    path: Vec<String>,
    changes: Changes,
}

impl Walk {
    fn note(&mut self, set: fn(&mut Changes) -> &mut FieldSet) {
        set(&mut self.changes).insert(self.path.iter().map(String::as_str));
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, Some(_)) => self.note(|changes| &mut changes.added),
            (Some(_), None) => self.note(|changes| &mut changes.removed),
            (old, new) if old != new => self.note(|changes| &mut changes.modified),
            _ => {}
        }
    }

    fn visit(&mut self, shape: &Shape, old: Option<&Value>, new: Option<&Value>) {
        if old == new {
            return;
        }
        let null = Value::Null;
        let (was, is) = (container(shape, old.unwrap_or(&null)), container(shape, new.unwrap_or(&null)));
        match (was, is) {
            (Container::Map(was), Container::Map(is)) => {
                if is_empty(was.map(Map::len), is.map(Map::len)) {
                    return self.leaf(old, new);
                }
                self.maps(shape, was, is);
            }
            // Null is nothing in a field of any type.
            (Container::Leaf, Container::Map(is)) if matches!(shape, Shape::Any) && is_null(old) => {
                if is_empty(None, is.map(Map::len)) {
                    return self.leaf(old, new);
                }
                self.maps(shape, None, is);
            }
            (Container::Map(was), Container::Leaf) if matches!(shape, Shape::Any) && is_null(new) => {
                if is_empty(was.map(Map::len), None) {
                    return self.leaf(old, new);
                }
                self.maps(shape, was, None);
            }
            (Container::List(items, item, was), Container::List(_, _, is)) => {
                if is_empty(was.map(Vec::len), is.map(Vec::len)) {
                    return self.leaf(old, new);
                }
                let keyed = |list: Option<&'_ Vec<Value>>| -> Vec<String> {
                    list.into_iter().flatten().map(|value| element(items, item, value)).collect()
                };
                self.lists(item, &(keyed(was), was), &(keyed(is), is));
            }
            _ => return self.leaf(old, new),
        }
        if old.is_none() {
            self.note(|changes| &mut changes.added);
        } else if new.is_none() {
            self.note(|changes| &mut changes.removed);
        }
    }

    fn step(&mut self, element: String, shape: &Shape, old: Option<&Value>, new: Option<&Value>) {
        self.path.push(element);
        self.visit(shape, old, new);
        self.path.pop();
    }

    fn maps(&mut self, shape: &Shape, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>) {
        for (key, is) in new.into_iter().flatten() {
            let was = old.and_then(|old| old.get(key));
            if was != Some(is) {
                self.step(format!("f:{key}"), shape.at(key), was, Some(is));
            }
        }
        for (key, was) in old.into_iter().flatten() {
            if new.is_none_or(|new| !new.contains_key(key)) {
                self.step(format!("f:{key}"), shape.at(key), Some(was), None);
            }
        }
    }

    fn lists(&mut self, item: &Shape, old: &Keyed<'_>, new: &Keyed<'_>) {
        let by_key = |list: &Keyed<'_>| -> HashMap<String, usize> {
            list.0.iter().enumerate().rev().map(|(index, key)| (key.clone(), index)).collect()
        };
        let (was, is) = (by_key(old), by_key(new));
        for (key, index) in &is {
            let before = was.get(key).and_then(|index| old.1?.get(*index));
            self.step(key.clone(), item, before, new.1.and_then(|list| list.get(*index)));
        }
        for (key, index) in was.iter().filter(|(key, _)| !is.contains_key(*key)) {
            self.step(key.clone(), item, old.1.and_then(|list| list.get(*index)), None);
        }
    }
}

/// A list with the path elements of its items.
type Keyed<'a> = (Vec<String>, Option<&'a Vec<Value>>);

fn is_empty(old: Option<usize>, new: Option<usize>) -> bool {
    old.unwrap_or_default() == 0 && new.unwrap_or_default() == 0
}

fn is_null(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}
