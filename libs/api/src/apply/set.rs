//! Sets of fields, in the shape that `FieldsV1` has: a tree of path elements (`f:name`, `k:{…}`, `v:…`).

use crate::shape::{Items, Shape};
use serde_json::{Map, Value};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the path that leads here is in the set.
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// The set of one path.
    pub fn path(elements: &[&str]) -> Self {
        let mut set = Self::default();
        set.insert(elements.iter().copied());
        set
    }
    /// The set of the path that leads here.
    pub fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }
    /// The fields that an object names.
    pub fn of(shape: &Shape, value: &Value) -> Self {
        let mut set = Self::default();
        set.collect(shape, value);
        set
    }

    fn collect(&mut self, shape: &Shape, value: &Value) {
        match container(shape, value) {
            Container::Leaf => self.member = true,
            Container::Map(map) => {
                for (key, value) in map.into_iter().flatten() {
                    let child = self.children.entry(format!("f:{key}")).or_default();
                    child.collect(shape.at(key), value);
                    let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    child.member |= is_empty || shape.field(key).is_none();
                }
            }
            Container::List(items, item, list) => {
                let mut twice = HashSet::new();
                for value in list.into_iter().flatten() {
                    let element = element(items, item, value);
                    match self.children.entry(element) {
                        Entry::Vacant(place) => {
                            let child = place.insert(Self::leaf());
                            child.collect(item, value);
                            child.member = true;
                        }
                        Entry::Occupied(place) => drop(twice.insert(place.key().clone())),
                    }
                }
                // Which of them is meant below such a key is not known: they are owned as one.
                for element in twice {
                    self.children.insert(element, Self::leaf());
                }
            }
        }
        self.children.retain(|_, child| !child.is_empty());
    }

    /// Adds a path.
    pub fn insert<'a>(&mut self, elements: impl Iterator<Item = &'a str>) {
        let mut at = self;
        for element in elements {
            if !at.children.contains_key(element) {
                at.children.insert(element.to_owned(), Self::default());
            }
            let Some(next) = at.children.get_mut(element) else { return };
            at = next;
        }
        at.member = true;
    }
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
    pub fn has(&self, element: &str) -> bool {
        self.children.get(element).is_some_and(|child| child.member)
    }
    pub fn below(&self, element: &str) -> Option<&Self> {
        self.children.get(element)
    }

    pub fn add_all(&mut self, other: Self) {
        self.member |= other.member;
        if self.children.is_empty() {
            self.children = other.children;
            return;
        }
        for (element, theirs) in other.children {
            match self.children.entry(element) {
                Entry::Vacant(place) => drop(place.insert(theirs)),
                Entry::Occupied(mut ours) => ours.get_mut().add_all(theirs),
            }
        }
    }
    /// Adds the path that leads here.
    pub fn add_self(&mut self) {
        self.member = true;
    }
    /// Adds what is below an element that is not here yet.
    pub fn put(&mut self, element: String, below: Self) {
        if !below.is_empty() {
            self.children.insert(element, below);
        }
    }
    /// Takes out exactly the paths of `other`, not what is below them.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (element, theirs) in &other.children {
            if let Some(ours) = self.children.get_mut(element) {
                ours.subtract(theirs);
                if ours.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }
    /// Takes out the paths of `other` and everything below them.
    pub fn remove_below(&mut self, other: &Self) {
        for (element, theirs) in &other.children {
            let Some(ours) = self.children.get_mut(element) else { continue };
            if theirs.member {
                self.children.remove(element);
                continue;
            }
            ours.remove_below(theirs);
            if ours.is_empty() {
                self.children.remove(element);
            }
        }
    }
    /// Takes out one element's own path, and some elements below it with all that is below those.
    pub fn strip(&mut self, element: &str, below: &[&str]) {
        let Some(child) = self.children.get_mut(element) else { return };
        child.member = false;
        for gone in below {
            child.children.remove(*gone);
        }
        if child.is_empty() {
            self.children.remove(element);
        }
    }
    pub fn intersect(&self, other: &Self) -> Self {
        let both = |(element, ours): (&String, &Self)| {
            let common = ours.intersect(other.children.get(element)?);
            (!common.is_empty()).then(|| (element.clone(), common))
        };
        Self {
            member: self.member && other.member,
            children: self.children.iter().filter_map(both).collect(),
        }
    }
    /// With every declared field on the way to a path, which removing whole objects needs.
    pub fn with_named_fields(&self, shape: &Shape) -> Self {
        let children = self.children.iter().map(|(element, child)| {
            let key = element.strip_prefix("f:");
            let below = match (key, shape) {
                (Some(key), _) => shape.at(key),
                (None, Shape::List(_, item)) => item,
                (None, _) => &Shape::Any,
            };
            let mut child = child.with_named_fields(below);
            child.member |= key.is_some_and(|key| shape.field(key).is_some());
            (element.clone(), child)
        });
        Self { member: self.member, children: children.collect() }
    }

    /// Every path as people read it: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk("", &mut paths);
        paths
    }
    fn walk(&self, prefix: &str, paths: &mut Vec<String>) {
        let full = |element: &String| format!("{prefix}{}", readable(element));
        paths
            .extend(self.children.iter().filter(|(_, child)| child.member).map(|(element, _)| full(element)));
        for (element, child) in self.children.iter().filter(|(_, child)| !child.children.is_empty()) {
            child.walk(&full(element), paths);
        }
    }

    /// Reads `fieldsV1`.
    pub fn decode(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (element, below) in fields.as_object()? {
            if element == "." {
                set.member = true;
            } else {
                let mut child = Self::decode(below)?;
                child.member |= child.children.is_empty();
                set.children.insert(element.clone(), child);
            }
        }
        Some(set)
    }
    /// Writes `fieldsV1`.
    pub fn encode(self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        fields.extend(self.children.into_iter().map(|(element, child)| (element, child.encode())));
        Value::Object(fields)
    }
}

/// What a value is made of, as far as ownership goes.
pub(super) enum Container<'s, 'v> {
    Leaf,
    Map(Option<&'v Map<String, Value>>),
    List(&'s Items, &'s Shape, Option<&'v Vec<Value>>),
}

/// How `value` divides; null counts as the empty container of its shape.
pub(super) fn container<'s, 'v>(shape: &'s Shape, value: &'v Value) -> Container<'s, 'v> {
    match (shape, value) {
        (Shape::List(items, item), Value::Array(list)) if *items != Items::Atomic => {
            Container::List(items, item, Some(list))
        }
        (Shape::List(items, item), Value::Null) if *items != Items::Atomic => {
            Container::List(items, item, None)
        }
        (Shape::Map(true, _), _) => Container::Leaf,
        (Shape::Named(_) | Shape::Inline(_), _) if shape.fields().is_none_or(|found| found.atomic) => {
            Container::Leaf
        }
        (Shape::Map(..) | Shape::Named(_) | Shape::Inline(_) | Shape::Any, Value::Object(map)) => {
            Container::Map(Some(map))
        }
        (Shape::Map(..) | Shape::Named(_) | Shape::Inline(_), Value::Null) => Container::Map(None),
        _ => Container::Leaf,
    }
}

/// The path element of a list item.
pub(super) fn element(items: &Items, item: &Shape, value: &Value) -> String {
    let Items::Keyed(keys) = items else { return format!("v:{value}") };
    let mut text = String::from("k:{");
    for key in keys {
        let default;
        let found = match value.get(key) {
            Some(found) if !found.is_null() => found,
            _ => {
                default = item.key_default(key).unwrap_or_default();
                &default
            }
        };
        if text.len() > 3 {
            text.push(',');
        }
        text.push_str(&format!("\"{key}\":{found}"));
    }
    text.push('}');
    text
}

/// Whether an item lacks a key of its list that has no default.
pub(super) fn is_keyless(items: &Items, item: &Shape, value: &Value) -> bool {
    let Items::Keyed(keys) = items else { return false };
    keys.iter().any(|key| value[key].is_null() && item.key_default(key).is_none())
}

fn readable(element: &str) -> String {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    match element.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys = parsed(keys);
            let keys = keys.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
            format!("[{}]", keys.collect::<Vec<_>>().join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        Some((_, index)) => format!("[{index}]"),
        None => String::new(),
    }
}
