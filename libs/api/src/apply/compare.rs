//! What differs between two objects, as sets of fields.

use super::set::{Container, FieldSet, container, element, is_keyless};
use crate::shape::Shape;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The fields that a change added, changed or removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
    /// Whether an item of a list has none of the keys that tell it from others.
    pub keyless: bool,
}

impl Changes {
    /// Leaves out `fields` and everything below them.
    pub fn forget(&mut self, fields: &FieldSet) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.remove_below(fields);
        }
    }
}

pub(super) fn compare(shape: &Shape, old: &Value, new: &Value) -> Changes {
    visit(shape, Some(old), Some(new))
}

impl Changes {
    /// Of one field, that stands for itself.
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let mut changes = Self::default();
        match (old, new) {
            (None, Some(_)) => changes.added = FieldSet::leaf(),
            (Some(_), None) => changes.removed = FieldSet::leaf(),
            (old, new) if old != new => changes.modified = FieldSet::leaf(),
            _ => {}
        }
        changes
    }

    /// Takes in what changed below a path element.
    fn below(&mut self, element: String, changes: Self) {
        let Self { added, modified, removed, keyless } = changes;
        self.keyless |= keyless;
        if modified.is_empty() && removed.is_empty() {
            return self.added.put(element, added);
        }
        self.added.put(element.clone(), added);
        self.modified.put(element.clone(), modified);
        self.removed.put(element, removed);
    }

    fn maps(&mut self, shape: &Shape, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>) {
        let element = |key: &str| ["f:", key].concat();
        for (key, is) in new.into_iter().flatten() {
            let was = old.and_then(|old| old.get(key));
            if was != Some(is) {
                self.below(element(key), visit(shape.at(key), was, Some(is)));
            }
        }
        for (key, was) in old.into_iter().flatten() {
            if new.is_none_or(|new| !new.contains_key(key)) {
                self.below(element(key), visit(shape.at(key), Some(was), None));
            }
        }
        self.ordered();
    }

    fn lists(&mut self, item: &Shape, old: Keyed<'_>, new: Keyed<'_>) {
        let was = by_key(&old);
        let is = by_key(&new);
        for (key, before) in was.iter().filter(|(key, _)| !is.contains_key(*key)) {
            self.below((*key).to_owned(), Changes::items(item, before, &[]));
        }
        for (key, now) in &is {
            let before = was.get(key).map_or(&[][..], Vec::as_slice);
            self.below((*key).to_owned(), Changes::items(item, before, now));
        }
        self.ordered();
    }

    fn ordered(&mut self) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.ordered();
        }
    }

    /// Of the items under one key. Several of one key stand for themselves, without anything below.
    fn items(item: &Shape, old: &[&Value], new: &[&Value]) -> Self {
        match (old, new) {
            ([] | [_], [] | [_]) => visit(item, old.first().copied(), new.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                let modified = if old == new { FieldSet::default() } else { FieldSet::leaf() };
                Self { modified, ..Self::default() }
            }
            ([_, _, ..], _) => {
                let mut changes = new.first().map(|new| visit(item, None, Some(new))).unwrap_or_default();
                changes.removed.add_self();
                changes
            }
            (_, _) => {
                let mut changes = old.first().map(|old| visit(item, Some(old), None)).unwrap_or_default();
                changes.added.add_self();
                changes
            }
        }
    }
}

fn visit(shape: &Shape, old: Option<&Value>, new: Option<&Value>) -> Changes {
    let mut changes = Changes::default();
    if old == new {
        return changes;
    }
    let null = Value::Null;
    let (was, is) = (container(shape, old.unwrap_or(&null)), container(shape, new.unwrap_or(&null)));
    match (was, is) {
        (Container::Map(was), Container::Map(is)) => {
            if is_empty(was.map(Map::len), is.map(Map::len)) {
                return Changes::leaf(old, new);
            }
            changes.maps(shape, was, is);
        }
        // Null is nothing in a field of any type.
        (Container::Leaf, Container::Map(is)) if matches!(shape, Shape::Any) && is_null(old) => {
            if is_empty(None, is.map(Map::len)) {
                return Changes::leaf(old, new);
            }
            changes.maps(shape, None, is);
        }
        (Container::Map(was), Container::Leaf) if matches!(shape, Shape::Any) && is_null(new) => {
            if is_empty(was.map(Map::len), None) {
                return Changes::leaf(old, new);
            }
            changes.maps(shape, was, None);
        }
        (Container::List(items, item, was), Container::List(_, _, is)) => {
            if is_empty(was.map(Vec::len), is.map(Vec::len)) {
                return Changes::leaf(old, new);
            }
            let keyed = |list: Option<&'_ Vec<Value>>| -> Vec<String> {
                list.into_iter().flatten().map(|value| element(items, item, value)).collect()
            };
            let nameless = |value: &Value| is_keyless(items, item, value);
            changes.keyless = [was, is].into_iter().flatten().flatten().any(nameless);
            changes.lists(item, (&keyed(was), was), (&keyed(is), is));
        }
        _ => return Changes::leaf(old, new),
    }
    if old.is_none() {
        changes.added.add_self();
    } else if new.is_none() {
        changes.removed.add_self();
    }
    changes
}

/// The items of each path element.
fn by_key<'a>(list: &Keyed<'a>) -> HashMap<&'a str, Vec<&'a Value>> {
    let values = list.1.map_or(&[][..], Vec::as_slice);
    let mut all: HashMap<&str, Vec<&Value>> = HashMap::new();
    for (key, value) in list.0.iter().zip(values) {
        all.entry(key).or_default().push(value);
    }
    all
}

/// A list with the path elements of its items.
type Keyed<'a> = (&'a [String], Option<&'a Vec<Value>>);

fn is_empty(old: Option<usize>, new: Option<usize>) -> bool {
    old.unwrap_or_default() == 0 && new.unwrap_or_default() == 0
}

fn is_null(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}
