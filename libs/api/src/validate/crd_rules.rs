//! `x-kubernetes-validations` of a CustomResourceDefinition: that they can be read, fit their place, and cost little enough.

use super::node::{Faults, Node};
use crate::custom::rules::{self, RULES, Rule};
use crate::expression::{self, Checked, Decl, Environment};
use crate::status::FieldError;
use serde_json::{Value, json};
use std::sync::Arc;

/// The most that one expression may cost in all the places where it can be asked.
const RULE_LIMIT: u64 = 10_000_000;
/// The most that all may cost together.
const ALL_LIMIT: u64 = 100_000_000;
const EXPENSIVE_TOLD: usize = 4;
const MESSAGE_MAX: usize = 2048;
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const LINE_BREAKS: [char; 2] = ['\n', '\r'];

/// What can be said of rules without reading their expressions.
pub(super) fn written(schema: &Node<'_, '_>, out: &mut Faults) {
    for rule in schema.get(RULES).items() {
        let (text, message) = (rule.get("rule"), rule.get("message"));
        let trimmed = message.text().trim();
        if text.text().trim().is_empty() {
            text.required("rule is not specified", out);
        } else if !message.is_empty() && trimmed.is_empty() {
            message.invalid("message must be non-empty if specified", out);
        } else if message.text().len() > MESSAGE_MAX {
            let start: String = message.text().chars().take(10).collect();
            message.invalid_as(
                &json!(format!("{start}...")),
                "message must have a maximum length of 2048 characters",
                out,
            );
        } else if trimmed.contains(LINE_BREAKS) {
            message.invalid("message must not contain line breaks", out);
        } else if text.text().trim().contains(LINE_BREAKS) && trimmed.is_empty() {
            message.required("message must be specified if rule contains line breaks", out);
        }
        let made = rule.get("messageExpression");
        if !made.is_empty() && made.text().trim().is_empty() {
            made.required("messageExpression must be non-empty if specified", out);
        }
        rule.get("reason").if_set_one_of(&REASONS, out);
        field_path(&rule.get("fieldPath"), schema.value, out);
    }
}

fn field_path(path: &Node<'_, '_>, schema: &Value, out: &mut Faults) {
    let text = path.text();
    if text.is_empty() {
        return;
    }
    if text.trim().is_empty() {
        path.invalid("fieldPath must be non-empty if specified", out);
    }
    if text.contains(LINE_BREAKS) {
        path.invalid("fieldPath must not contain line breaks", out);
    }
    if followed(text, schema).is_err() {
        path.invalid("fieldPath must be a valid path", out);
    }
}

/// Follows `.a['b']` into a schema.
pub(super) fn followed<'s>(path: &str, schema: &'s Value) -> Result<&'s Value, String> {
    let mut rest = path;
    let mut at = schema;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if after.is_empty() {
                return Err("unexpected end of JSON path".to_owned());
            }
            // A delimiter right after the dot is taken as the name.
            let end = end.max(after.chars().next().map_or(0, char::len_utf8));
            name = after[..end].to_owned();
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            if after.is_empty() {
                return Err("unexpected end of JSON path".to_owned());
            }
            let Some(quoted) = after.strip_prefix('\'') else {
                let end = after.find(['.', '[', ']']).unwrap_or(after.len());
                return Err(format!("expected single quoted string but got {}", &after[..end]));
            };
            let (text, end) = unquoted(quoted)?;
            let after = &quoted[end..];
            rest = after.strip_prefix(']').ok_or_else(|| match after {
                "" => "unexpected end of JSON path".to_owned(),
                other => {
                    format!("expected ] but got {}", &other[..other.chars().next().map_or(0, char::len_utf8)])
                }
            })?;
            name = text;
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end.max(1)]));
        }
        let missing = || "does not refer to a valid field".to_owned();
        at = match (at["properties"].as_object(), &at["additionalProperties"]) {
            (Some(properties), _) => properties.get(&name).ok_or_else(missing)?,
            (None, more) if more.is_object() => more,
            _ => return Err(missing()),
        };
    }
    Ok(at)
}

/// The text up to the closing quote, and where that ends.
fn unquoted(text: &str) -> Result<(String, usize), String> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Ok((out, at + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('a') => out.push('\u{7}'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('v') => out.push('\u{b}'),
                Some(c @ ('\'' | '\\')) => out.push(c),
                Some(other) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
                None => break,
            },
            other => out.push(other),
        }
    }
    Err(format!("expected single quoted string but got '{text}"))
}

/// Where in a schema a rule stands.
struct Standing {
    /// How often it can be asked of one object; `None` without a bound.
    times: Option<u64>,
    /// The list around it whose items cannot be told apart.
    uncorrelated: Option<String>,
}

/// What all rules of a version may cost.
#[derive(Default)]
struct Costs {
    total: u64,
    expensive: Vec<(String, u64)>,
}

impl Costs {
    fn add(&mut self, path: String, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost < ALL_LIMIT / 100 {
            return;
        }
        self.expensive.push((path, cost));
        self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        self.expensive.truncate(EXPENSIVE_TOLD);
    }
}

/// Reads all rules of a version's schema and counts what they may cost.
pub(super) fn read(schema: &Node<'_, '_>, out: &mut Faults) {
    let mut costs = Costs::default();
    walk(schema, &Standing { times: Some(1), uncorrelated: None }, true, &mut costs, out);
    if costs.total > ALL_LIMIT {
        for (path, _) in &costs.expensive {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            out.push(FieldError::forbidden(path.as_str(), detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        schema.forbidden(too_expensive(what, costs.total, ALL_LIMIT), out);
    }
}

fn walk(schema: &Node<'_, '_>, standing: &Standing, root: bool, costs: &mut Costs, out: &mut Faults) {
    let root = root || schema.get("x-kubernetes-embedded-resource").is_true();
    let (properties, more, items) =
        (schema.get("properties"), schema.get("additionalProperties"), schema.get("items"));
    for (_, property) in properties.entries() {
        walk(&property, &standing.inside(1, None), false, costs, out);
    }
    if more.value.is_object() {
        let most = schema.get("maxProperties").value.as_u64();
        walk(&more, &standing.inside_each(most, None), false, costs, out);
    }
    if items.value.is_object() {
        let keyed = schema.get("x-kubernetes-list-type").text() == "map";
        let path = (!keyed).then(|| schema.path());
        walk(&items, &standing.inside_each(schema.get("maxItems").value.as_u64(), path), false, costs, out);
    }
    let own = schema.get(RULES);
    if own.is_empty() {
        return;
    }
    match expression::declared(schema.value, "selfType", root).map(Arc::new) {
        Some(place) => own.items().for_each(|rule| one(&rule, &place, standing, costs, out)),
        None => out.push(FieldError::internal(
            own.path(),
            "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations",
        )),
    }
}

impl Standing {
    fn inside(&self, times: u64, list: Option<String>) -> Self {
        self.inside_each(Some(times), list)
    }

    fn inside_each(&self, most: Option<u64>, list: Option<String>) -> Self {
        let times = self.times.zip(most).map(|(own, more)| own.saturating_mul(more));
        Self { times, uncorrelated: self.uncorrelated.clone().or(list) }
    }
}

fn one(rule: &Node<'_, '_>, place: &Arc<Decl>, standing: &Standing, costs: &mut Costs, out: &mut Faults) {
    let read = rules::compile(rule.value, place);
    let Rule { program, message, uses_old } = &read;
    // Of a rule that cannot be read nothing more is looked at.
    let (message, uses_old) = if program.is_ok() { (message.as_ref(), *uses_old) } else { (None, false) };
    let environment = rules::environment(place, rule.get("optionalOldSelf").is_true());
    let (text, made) = (rule.get("rule"), rule.get("messageExpression"));
    let unreadable = |at: &Node<'_, '_>, why: &str, out: &mut Faults| {
        let fault = FieldError::invalid(at.path(), &Value::Null, why);
        out.push(FieldError { value: Some(as_go_has_it(rule)), ..fault });
    };
    let cost = program.as_ref().map_or(0, |program| {
        let times = standing.times.unwrap_or_else(|| expression::cardinality(place.min_size));
        most(program, &environment).saturating_mul(times)
    });
    if cost > RULE_LIMIT {
        text.forbidden(too_expensive("estimated rule cost", cost, RULE_LIMIT), out);
    }
    costs.add(text.path(), cost);
    if let Err(why) = program {
        unreadable(&text, why, out);
    }
    match message {
        Some(Err(why)) => unreadable(&made, why, out),
        Some(Ok(program)) => {
            let cost = most(program, &environment);
            if cost > RULE_LIMIT {
                made.forbidden(too_expensive("estimated messageExpression cost", cost, RULE_LIMIT), out);
            }
            costs.add(made.path(), cost);
        }
        None => {}
    }
    match (uses_old, &standing.uncorrelated) {
        (true, Some(list)) => {
            let detail =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
            text.invalid(detail, out);
        }
        (false, _) if rule.get("optionalOldSelf").is_set() => {
            rule.get("optionalOldSelf").invalid("may not be set if oldSelf is not used in rule", out);
        }
        _ => {}
    }
}

fn most(program: &Checked, environment: &Environment) -> u64 {
    program.most(environment)
}

#[expect(clippy::cast_precision_loss, reason = "it is told with one digit")]
fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule's JSON with Go's names, in their order.
fn as_go_has_it(rule: &Node<'_, '_>) -> String {
    let text = |key: &str| json!(rule.get(key).text());
    let or_null = |key: &str| rule.get(key).value.clone();
    format!(
        r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{},"FieldPath":{},"OptionalOldSelf":{}}}"#,
        text("rule"),
        text("message"),
        text("messageExpression"),
        or_null("reason"),
        text("fieldPath"),
        or_null("optionalOldSelf")
    )
}
