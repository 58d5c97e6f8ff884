//! Sets of fields, in the shape that `FieldsV1` has: a tree of path elements (`f:name`, `k:{…}`, `v:…`).

use crate::shape::{Items, Shape};
use serde_json::{Map, Value};

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the path that leads here is in the set.
    member: bool,
    children: Children,
}

/// What is below, by path element and in its order. Most sets have few children and are made in order, for which a vector is
/// the smallest and fastest; whatever may be large is merged and sorted at once, never one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Children(Vec<(String, FieldSet)>);

impl Children {
    /// Where an element is, or belongs.
    fn find(&self, element: &str) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if last.as_str() >= element => {
                self.0.binary_search_by(|(key, _)| key.as_str().cmp(element))
            }
            _ => Err(self.0.len()),
        }
    }

    fn get(&self, element: &str) -> Option<&FieldSet> {
        self.find(element).ok().map(|at| &self.0[at].1)
    }

    fn get_mut(&mut self, element: &str) -> Option<&mut FieldSet> {
        self.find(element).ok().map(|at| &mut self.0[at].1)
    }

    /// What is below an element, empty when it was not there.
    fn or_default(&mut self, element: String) -> &mut FieldSet {
        let at = match self.find(&element) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (element, FieldSet::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    fn remove(&mut self, element: &str) {
        if let Ok(at) = self.find(element) {
            self.0.remove(at);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (&String, &FieldSet)> {
        self.0.iter().map(|(element, child)| (element, child))
    }

    /// Keeps order: elements stay what they are.
    fn map(&self, change: impl FnMut((&String, &FieldSet)) -> Option<(String, FieldSet)>) -> Self {
        Self(self.iter().filter_map(change).collect())
    }

    /// Keeps what `keep` says of those that `other` has as well, and all others.
    fn retain_common(&mut self, other: &Self, mut keep: impl FnMut(&mut FieldSet, &FieldSet) -> bool) {
        let mut theirs = other.iter().peekable();
        self.0.retain_mut(|(element, ours)| {
            while theirs.next_if(|(their, _)| *their < &*element).is_some() {}
            theirs.next_if(|(their, _)| *their == &*element).is_none_or(|(_, theirs)| keep(ours, theirs))
        });
    }

    /// Both in one.
    fn merge(&mut self, other: Self) {
        let mut ours = std::mem::take(&mut self.0).into_iter().peekable();
        for (element, theirs) in other.0 {
            self.0.extend(std::iter::from_fn(|| ours.next_if(|(our, _)| *our < element)));
            match ours.next_if(|(our, _)| *our == element) {
                Some((_, mut both)) => {
                    both.add_all(theirs);
                    self.0.push((element, both));
                }
                None => self.0.push((element, theirs)),
            }
        }
        self.0.extend(ours);
    }
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
        Self { member: true, children: Children::default() }
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
                    let child = self.children.or_default(["f:", key].concat());
                    child.collect(shape.at(key), value);
                    let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    child.member |= is_empty || shape.field(key).is_none();
                }
            }
            Container::List(items, item, list) => {
                let named = |value| (element(items, item, value), value);
                let mut items: Vec<(String, &Value)> = list.into_iter().flatten().map(named).collect();
                items.sort_by(|(one, _), (other, _)| one.cmp(other));
                for same in items.chunk_by(|(one, _), (other, _)| one == other) {
                    let mut child = Self::leaf();
                    // Which of several is meant below such a key is not known: they are owned as one.
                    if let [(_, value)] = same {
                        child.collect(item, value);
                        child.member = true;
                    }
                    self.children.0.push((same[0].0.clone(), child));
                }
            }
        }
        self.children.0.retain(|(_, child)| !child.is_empty());
    }

    /// Adds a path.
    pub fn insert<'a>(&mut self, elements: impl Iterator<Item = &'a str>) {
        let mut at = self;
        for element in elements {
            at = at.children.or_default(element.to_owned());
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
        } else if !other.children.is_empty() {
            self.children.merge(other.children);
        }
    }
    /// Adds the path that leads here.
    pub fn add_self(&mut self) {
        self.member = true;
    }
    /// Adds what is below an element that is not here yet; [`Self::ordered`] once all are.
    pub fn put(&mut self, element: String, below: Self) {
        if !below.is_empty() {
            self.children.0.push((element, below));
        }
    }
    /// Orders what was put.
    pub fn ordered(&mut self) {
        self.children.0.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
    /// Takes out exactly the paths of `other`, not what is below them.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        self.children.retain_common(&other.children, |ours, theirs| {
            ours.subtract(theirs);
            !ours.is_empty()
        });
    }
    /// Takes out the paths of `other` and everything below them.
    pub fn remove_below(&mut self, other: &Self) {
        self.children.retain_common(&other.children, |ours, theirs| {
            if !theirs.member {
                ours.remove_below(theirs);
            }
            !theirs.member && !ours.is_empty()
        });
    }
    /// Takes out one element's own path, and some elements below it with all that is below those.
    pub fn strip(&mut self, element: &str, below: &[&str]) {
        let Some(child) = self.children.get_mut(element) else { return };
        child.member = false;
        for gone in below {
            child.children.remove(gone);
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
        Self { member: self.member && other.member, children: self.children.map(both) }
    }
    /// With every declared field on the way to a path, which removing whole objects needs.
    pub fn with_named_fields(&self, shape: &Shape) -> Self {
        let children = self.children.map(|(element, child)| {
            let key = element.strip_prefix("f:");
            let below = match (key, shape) {
                (Some(key), _) => shape.at(key),
                (None, Shape::List(_, item)) => item,
                (None, _) => &Shape::Any,
            };
            let mut child = child.with_named_fields(below);
            child.member |= key.is_some_and(|key| shape.field(key).is_some());
            Some((element.clone(), child))
        });
        Self { member: self.member, children }
    }

    /// How many paths there are below.
    pub fn count(&self) -> usize {
        self.children.iter().map(|(_, child)| usize::from(child.member) + child.count()).sum()
    }
    /// Every path as people read it: `.spec.containers[name="a"].image`; as many as there is `room` for, in bytes.
    pub fn paths(&self, room: &mut usize) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk("", room, &mut paths);
        paths
    }
    fn walk(&self, prefix: &str, room: &mut usize, paths: &mut Vec<String>) {
        let full = |element: &String| format!("{prefix}{}", readable(element));
        for (element, _) in self.children.iter().filter(|(_, child)| child.member) {
            if *room == 0 {
                return;
            }
            let path = full(element);
            *room = room.saturating_sub(path.len());
            paths.push(path);
        }
        for (element, child) in self.children.iter().filter(|(_, child)| !child.children.is_empty()) {
            if *room == 0 {
                return;
            }
            child.walk(&full(element), room, paths);
        }
    }

    /// Reads `fieldsV1`.
    pub fn decode(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (element, below) in fields.as_object()? {
            if element == "." {
                set.member = true;
            } else if ["f:", "k:", "v:", "i:"].iter().any(|kind| element.starts_with(kind)) {
                let mut child = Self::decode(below)?;
                child.member |= child.children.is_empty();
                set.children.0.push((element.clone(), child));
            }
        }
        Some(set)
    }
    /// Writes `fieldsV1`.
    pub fn encode(self) -> Value {
        let itself = self.member && !self.children.is_empty();
        let itself = itself.then(|| (".".to_owned(), Value::Object(Map::new())));
        let below = self.children.0.into_iter().map(|(element, child)| (element, child.encode()));
        Value::Object(itself.into_iter().chain(below).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const PATHS: [&[&str]; 7] =
        [&["b"], &["b", "x"], &["b", "x", "1"], &["a"], &["c", "y"], &["b", "w"], &["d"]];
    type Paths = BTreeSet<&'static [&'static str]>;

    /// Every set of these paths, in both forms.
    fn all() -> Vec<(Paths, FieldSet)> {
        let chosen = |bits: usize| (0..PATHS.len()).filter(move |at| bits >> at & 1 == 1).map(|at| PATHS[at]);
        let made = |paths: &Paths| {
            let mut set = FieldSet::default();
            paths.iter().rev().for_each(|path| set.insert(path.iter().copied()));
            set
        };
        (0..1 << PATHS.len())
            .map(|bits| {
                let paths = chosen(bits).collect();
                let set = made(&paths);
                (paths, set)
            })
            .collect()
    }

    #[test]
    fn sets_of_fields_are_sets_of_paths() {
        let all = all();
        let of = |wanted: Paths| &all.iter().find(|(paths, _)| *paths == wanted).expect("one of all").1;
        for (ours, set) in &all {
            for (theirs, other) in &all {
                let mut sum = set.clone();
                sum.add_all(other.clone());
                assert_eq!(&sum, of(ours | theirs));
                let mut less = set.clone();
                less.subtract(other);
                assert_eq!(&less, of(ours - theirs));
                let below =
                    |path: &&'static [&'static str]| theirs.iter().any(|their| path.starts_with(their));
                let mut cut = set.clone();
                cut.remove_below(other);
                assert_eq!(&cut, of(ours.iter().copied().filter(|path| !below(path)).collect()));
                assert_eq!(&set.intersect(other), of(ours & theirs));
            }
        }
    }
}
