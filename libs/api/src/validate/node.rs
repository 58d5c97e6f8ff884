//! A place in an object: its value and the way to it. In: a canonical object. Out: faults that name the place.
//!
//! The path is a linked stack on the callers' frames; it becomes text only when there is a fault to report.

use super::Policy;
use crate::labels;
use crate::quantity::Quantity;
use crate::status::{FieldError, go_quoted};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::Write;

/// The faults found so far.
pub(super) type Faults = Vec<FieldError>;

static NULL: Value = Value::Null;
static EMPTY: Value = Value::String(String::new());

pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const IMMUTABLE: &str = "field is immutable";

#[derive(Clone, Copy)]
enum Step<'a> {
    Root(Policy),
    /// A field, or several joined by dots.
    Field(&'a str),
    Index(usize),
    Key(&'a str),
    /// As it stands, brackets and all.
    Raw(&'a str),
}

/// A value, which lives as long as its object, and its path, which lives as long as its parents' frames.
#[derive(Clone, Copy)]
pub(super) struct Node<'v, 'p> {
    pub value: &'v Value,
    parent: Option<&'p Node<'v, 'p>>,
    step: Step<'p>,
}

impl<'v, 'p> Node<'v, 'p> {
    /// An object of a cluster that allows everything.
    pub fn root(value: &'v Value) -> Self {
        Self::under(Policy { allow_privileged: true }, value)
    }

    pub fn under(policy: Policy, value: &'v Value) -> Self {
        Self { value, parent: None, step: Step::Root(policy) }
    }

    /// What the cluster allows, as its root was told.
    pub fn policy(&self) -> Policy {
        match (self.parent, self.step) {
            (Some(parent), _) => parent.policy(),
            (None, Step::Root(policy)) => policy,
            (None, _) => Policy::default(),
        }
    }

    /// The field at `path` (dots go deeper); null where absent.
    pub fn get<'s>(&'s self, path: &'s str) -> Node<'v, 's> {
        let value = path.split('.').try_fold(self.value, |at, key| at.get(key)).unwrap_or(&NULL);
        self.named(path, value)
    }

    /// A child called `path` that shows `value`, for faults told at another place than the value's own.
    pub fn named<'s, 'w>(&'s self, path: &'s str, value: &'w Value) -> Node<'w, 's>
    where
        'v: 'w,
    {
        Node { value, parent: Some(self), step: Step::Field(path) }
    }

    /// The place `index`, such as `[0]`, whether or not there is something.
    pub fn at<'s>(&'s self, index: &'s str) -> Node<'v, 's> {
        Node { value: &NULL, parent: Some(self), step: Step::Raw(index) }
    }

    /// The entry `key` of a map; null where absent.
    pub fn key<'s>(&'s self, key: &'s str) -> Node<'v, 's> {
        Node { value: self.value.get(key).unwrap_or(&NULL), parent: Some(self), step: Step::Key(key) }
    }

    /// The items of a list.
    pub fn items<'s>(&'s self) -> impl DoubleEndedIterator<Item = Node<'v, 's>> + ExactSizeIterator {
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(|(i, value)| Node { value, parent: Some(self), step: Step::Index(i) })
    }

    /// The entries of a map with their keys.
    pub fn entries<'s>(&'s self) -> impl Iterator<Item = (&'v str, Node<'v, 's>)> {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), Node { value, parent: Some(self), step: Step::Key(key) }))
    }

    pub fn path(&self) -> String {
        let mut out = self.parent.map(Node::path).unwrap_or_default();
        match self.step {
            Step::Root(_) => {}
            Step::Field(name) => {
                out.push_str(if out.is_empty() || name.is_empty() { "" } else { "." });
                out.push_str(name);
            }
            Step::Index(i) => drop(write!(out, "[{i}]")),
            Step::Key(key) => drop(write!(out, "[{key}]")),
            Step::Raw(text) => out.push_str(text),
        }
        out
    }

    pub fn text(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number, 0 where absent.
    pub fn int(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    pub fn is_true(&self) -> bool {
        *self.value == true
    }

    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Absent, `""`, `[]` or `{}`.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    pub fn amount(&self) -> Quantity {
        Quantity::parse(self.text()).unwrap_or_default()
    }

    // Reports.

    pub fn invalid(&self, detail: impl Into<String>, out: &mut Faults) {
        out.push(FieldError::invalid(self.path(), self.value, detail));
    }

    /// Invalid, showing `value` in place of the node's own.
    pub fn invalid_as(&self, value: &Value, detail: impl Into<String>, out: &mut Faults) {
        out.push(FieldError::invalid(self.path(), value, detail));
    }

    /// Invalid, showing `shown` as it is.
    pub fn invalid_shown(&self, shown: String, detail: impl Into<String>, out: &mut Faults) {
        let fault = FieldError::invalid(self.path(), &NULL, detail);
        out.push(FieldError { value: Some(shown), ..fault });
    }

    /// Invalid, showing a time as Go prints it.
    pub fn invalid_time(&self, detail: impl Into<String>, out: &mut Faults) {
        match self.text().parse::<jiff::Timestamp>() {
            Ok(time) => {
                self.invalid_shown(time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(), detail, out);
            }
            Err(_) => self.invalid(detail, out),
        }
    }

    /// Invalid, showing a value that is not there the way Go shows a nil pointer.
    pub fn invalid_or_null(&self, detail: impl Into<String>, out: &mut Faults) {
        let nothing = Value::from("null");
        self.invalid_as(if self.is_set() { self.value } else { &nothing }, detail, out);
    }

    /// Invalid, showing a number or a percentage as the struct that Kubernetes keeps it in.
    pub fn invalid_count(&self, detail: impl Into<String>, out: &mut Faults) {
        let shown = match self.value {
            Value::String(text) => {
                format!("intstr.IntOrString{{Type:1, IntVal:0, StrVal:{}}}", go_quoted(text))
            }
            _ => format!("intstr.IntOrString{{Type:0, IntVal:{}, StrVal:\"\"}}", self.int()),
        };
        self.invalid_shown(shown, detail, out);
    }

    /// Invalid without a value: where it would say nothing.
    pub fn invalid_unshown(&self, detail: impl Into<String>, out: &mut Faults) {
        let fault = FieldError::invalid(self.path(), &NULL, detail);
        out.push(FieldError { value: None, ..fault });
    }

    /// Invalid, showing the object as Kubernetes has it inside (see `shapes`).
    pub fn invalid_inside(&self, shape: &'static str, detail: impl Into<String>, out: &mut Faults) {
        self.invalid_shown(super::shapes::compact(self.value, shape), detail, out);
    }

    /// The same for a list of them.
    pub fn invalid_inside_list(&self, shape: &'static str, detail: impl Into<String>, out: &mut Faults) {
        let items = self.items().map(|item| super::shapes::compact(item.value, shape));
        let shown = format!("[{}]", items.collect::<Vec<_>>().join(","));
        self.invalid_shown(if self.is_set() { shown } else { "null".to_owned() }, detail, out);
    }

    pub fn required(&self, detail: impl Into<String>, out: &mut Faults) {
        out.push(FieldError::required(self.path(), detail));
    }

    pub fn forbidden(&self, detail: impl Into<String>, out: &mut Faults) {
        out.push(FieldError::forbidden(self.path(), detail));
    }

    pub fn duplicate(&self, out: &mut Faults) {
        out.push(FieldError::duplicate(self.path(), self.value));
    }

    pub fn duplicate_as(&self, value: &Value, out: &mut Faults) {
        out.push(FieldError::duplicate(self.path(), value));
    }

    /// Duplicate, showing `shown` as it is.
    pub fn duplicate_shown(&self, shown: String, out: &mut Faults) {
        let fault = FieldError::duplicate(self.path(), &NULL);
        out.push(FieldError { value: Some(shown), ..fault });
    }

    pub fn not_found(&self, out: &mut Faults) {
        out.push(FieldError::not_found(self.path(), self.value));
    }

    pub fn not_supported(&self, supported: &[&str], out: &mut Faults) {
        let value = if self.value.is_null() { json!("") } else { self.value.clone() };
        out.push(FieldError::not_supported(self.path(), &value, supported));
    }

    /// The same, showing null as it is.
    pub fn told_unsupported(&self, supported: &[&str], out: &mut Faults) {
        out.push(FieldError::not_supported(self.path(), self.value, supported));
    }

    /// The same, showing `shown` as it is.
    pub fn unsupported_shown(&self, shown: &str, supported: &[&str], out: &mut Faults) {
        let fault = FieldError::not_supported(self.path(), &NULL, supported);
        out.push(FieldError { value: Some(shown.to_owned()), ..fault });
    }

    /// The same, showing the object as Kubernetes has it inside (see `shapes`).
    pub fn unsupported_inside(&self, shape: &'static str, supported: &[&str], out: &mut Faults) {
        self.unsupported_shown(&super::shapes::compact(self.value, shape), supported, out);
    }

    pub fn too_long(&self, max: i64, out: &mut Faults) {
        out.push(FieldError::too_long(self.path(), max));
    }

    pub fn too_many(&self, max: usize, out: &mut Faults) {
        out.push(FieldError::too_many(self.path(), self.len(), max));
    }

    // Checks. Each says nothing where all is well.

    /// `Required value` unless there is something.
    pub fn must_be_given(&self, out: &mut Faults) -> bool {
        if self.is_empty() {
            self.required("", out);
        }
        !self.is_empty()
    }

    /// One fault for each complaint of `check` about the text.
    pub fn text_must(&self, check: impl Fn(&str) -> Vec<String>, out: &mut Faults) {
        for complaint in check(self.text()) {
            self.invalid_as(&json!(self.text()), complaint, out);
        }
    }

    /// The same where the text is not empty.
    pub fn text_may(&self, check: impl Fn(&str) -> Vec<String>, out: &mut Faults) {
        if !self.text().is_empty() {
            self.text_must(check, out);
        }
    }

    /// Given, and then as `check` says.
    pub fn required_text(&self, check: impl Fn(&str) -> Vec<String>, out: &mut Faults) {
        if self.must_be_given(out) {
            self.text_must(check, out);
        }
    }

    pub fn not_negative(&self, out: &mut Faults) {
        if self.int() < 0 {
            self.invalid(NOT_NEGATIVE, out);
        }
    }

    /// A number that, where given, is `low..=high`.
    pub fn between(&self, low: i64, high: i64, out: &mut Faults) {
        if self.is_set() && !(low..=high).contains(&self.int()) {
            self.invalid(format!("must be between {low} and {high}, inclusive"), out);
        }
    }

    /// A port number; absent counts as 0 and is refused.
    pub fn port(&self, out: &mut Faults) {
        if !(1..=65535).contains(&self.int()) {
            self.invalid_as(&json!(self.int()), "must be between 1 and 65535, inclusive", out);
        }
    }

    /// One of `supported`, where given, be it empty.
    pub fn if_set_one_of(&self, supported: &[&str], out: &mut Faults) {
        if self.is_set() {
            self.must_be_one_of(supported, out);
        }
    }

    /// A domain name of at least two labels; all complaints about it are one fault.
    pub fn domain_name(&self, out: &mut Faults) {
        if !self.must_be_given(out) {
            return;
        }
        let text = self.text().strip_suffix('.').unwrap_or(self.text());
        let complaints = labels::is_dns1123_subdomain(text);
        if !complaints.is_empty() {
            return self.invalid_as(&json!(text), complaints.join(","), out);
        }
        if !text.contains('.') {
            let detail = "should be a domain with at least two segments separated by dots";
            return self.invalid_as(&json!(text), detail, out);
        }
        let odd = text.split('.').find(|label| !labels::is_dns1123_label(label).is_empty());
        if let Some(label) = odd {
            self.invalid_as(&json!(label), labels::is_dns1123_label(label).join(","), out);
        }
    }

    /// `domain/path`, which an IngressClass, for one, names its controller with.
    pub fn domain_prefixed_path(&self, out: &mut Faults) {
        let text = self.text();
        let parts = text.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
        match parts {
            _ if text.is_empty() => self.required("", out),
            None => self.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")", out),
            Some((domain, path)) => {
                for complaint in labels::is_dns1123_subdomain(domain) {
                    self.invalid_as(&json!(domain), complaint, out);
                }
                for complaint in labels::is_http_path(path) {
                    self.invalid_as(&json!(path), complaint, out);
                }
            }
        }
    }

    /// One of `supported`, where given and not empty.
    pub fn may_be_one_of(&self, supported: &[&str], out: &mut Faults) {
        if !self.is_empty() {
            self.must_be_one_of(supported, out);
        }
    }

    /// One of `supported`; absent is told as unsupported.
    pub fn must_be_one_of(&self, supported: &[&str], out: &mut Faults) {
        if !supported.contains(&self.text()) {
            self.not_supported(supported, out);
        }
    }

    /// Given, and one of `supported`.
    pub fn required_one_of(&self, supported: &[&str], out: &mut Faults) {
        if self.must_be_given(out) {
            self.must_be_one_of(supported, out);
        }
    }

    /// Equal to what is stored.
    pub fn same_as(&self, old: &Node<'_, '_>, out: &mut Faults) {
        if !crate::strategy::same(self.value, old.value) {
            // What was a text and is none any more is an empty one to Go.
            let emptied = !self.is_set() && old.value.is_string();
            self.invalid_as(if emptied { &EMPTY } else { self.value }, IMMUTABLE, out);
        }
    }

    /// A resource amount that is not negative.
    pub fn amount_not_negative(&self, out: &mut Faults) {
        if self.amount() < Quantity::ZERO {
            self.invalid(NOT_NEGATIVE, out);
        }
    }
}

/// Texts that stood before. A list may be as long as a body: what is looked for in it is found at once.
pub(super) type Seen<'v> = HashSet<&'v str>;

/// Reports items of a list that were there before.
pub(super) fn unique<'v: 'p, 'p>(items: impl Iterator<Item = Node<'v, 'p>>, out: &mut Faults) {
    let mut seen = HashSet::new();
    for item in items.filter(|item| !item.is_empty()) {
        if !seen.insert(item.value) {
            item.duplicate(out);
        }
    }
}

/// Whether addresses are of both families.
pub(super) fn addresses_by_family(addresses: &[&str]) -> bool {
    let six = |text: &&str| text.contains(':');
    addresses.iter().any(six) && !addresses.iter().all(six)
}

/// `a, b` as Go shows a list of quoted texts.
pub(super) fn quoted_list(texts: &[&str]) -> String {
    texts.iter().map(|text| go_quoted(text)).collect::<Vec<_>>().join(", ")
}
