//! `x-kubernetes-validations`: CEL rules over custom objects.
//!
//! `self` is the value where the rule stands, `oldSelf` what an update replaces. A rule that names `oldSelf` is only asked
//! of updates, unless it takes it as optional. What others refuse of parts that an update leaves as they were is only warned of.
//! All rules of an object share one budget.

use super::Version;
use super::schema::{FAULTS_MAX, in_brackets, in_field, is_same, of_field, old_items};
use crate::expression::{self, Checked, Decl, Environment, Fault, OBJECT_BUDGET, Type, Value as Cel};
use crate::status::FieldError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const RULES: &str = "x-kubernetes-validations";

/// A rule with its message, read and checked.
pub(crate) struct Rule {
    pub program: Result<Checked, String>,
    pub message: Option<Result<Checked, String>>,
    pub uses_old: bool,
}

/// A part of a schema with the rules in it.
pub(crate) struct Part {
    place: Option<Arc<Decl>>,
    rules: Vec<Rule>,
    properties: BTreeMap<String, Part>,
    items: Option<Box<Part>>,
    more: Option<Box<Part>>,
}

/// What rules that stand on a schema may name.
pub(crate) fn environment(place: &Arc<Decl>, optional_old: bool) -> Environment {
    let environment = Environment::default().with("self", place.clone());
    if optional_old {
        environment.typed("oldSelf", Type::optional(place.ty.clone()))
    } else {
        environment.with("oldSelf", place.clone())
    }
}

/// Reads a rule.
pub(crate) fn compile(rule: &Value, place: &Arc<Decl>) -> Rule {
    let environment = environment(place, rule["optionalOldSelf"] == true);
    let text = |key: &str| rule[key].as_str().unwrap_or_default();
    let typed = |program: Checked, wanted: &Type, what: &str| {
        if program.ty().is_exactly(wanted) { Ok(program) } else { Err(what.to_owned()) }
    };
    let program = Checked::compile(text("rule"), &environment)
        .map_err(|why| format!("compilation failed: {why}"))
        .and_then(|program| typed(program, &Type::Bool, "cel expression must evaluate to a bool"))
        .and_then(|program| {
            program.instantiated().map_err(|why| format!("{}{why}", expression::UNINSTANTIATED))
        });
    let message = Some(text("messageExpression")).filter(|text| !text.is_empty()).map(|text| {
        Checked::compile(text, &environment)
            .map_err(|why| format!("messageExpression compilation failed: {why}"))
            .and_then(|program| typed(program, &Type::String, "messageExpression must evaluate to a string"))
            .and_then(|program| {
                program.instantiated().map_err(|why| format!("messageExpression instantiation failed: {why}"))
            })
    });
    let names_old =
        |program: &Result<Checked, String>| program.as_ref().is_ok_and(|own| own.names("oldSelf"));
    let uses_old = names_old(&program) || message.as_ref().is_some_and(names_old);
    Rule { program, message, uses_old }
}

/// The rules of a schema and of all that is in it, read; `None` where there are none. `root` is a whole object's.
pub(crate) fn part(schema: &Value, root: bool) -> Option<Part> {
    let root = root || schema["x-kubernetes-embedded-resource"] == true;
    let written = schema[RULES].as_array().filter(|rules| !rules.is_empty());
    let place = written.and_then(|_| expression::declared(schema, "selfType", root).map(Arc::new));
    let rules: Vec<Rule> = match (&place, written) {
        (Some(place), Some(written)) => written.iter().map(|rule| compile(rule, place)).collect(),
        _ => Vec::new(),
    };
    let inner = |schema: &Value| schema.is_object().then(|| part(schema, false)).flatten();
    let properties: BTreeMap<String, Part> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, property)| Some((key.clone(), inner(property)?)))
        .collect();
    let [items, more] = ["items", "additionalProperties"].map(|key| inner(&schema[key]).map(Box::new));
    if rules.is_empty() && properties.is_empty() && items.is_none() && more.is_none() {
        return None;
    }
    Some(Part { place, rules, properties, items, more })
}

/// What all rules say of an object.
pub(super) fn validate(object: &Value, old: Option<&Value>, version: &Version) -> Told {
    let mut judge = Judge { told: Told::default(), budget: OBJECT_BUDGET, spent: false };
    if let Some(part) = version.rules() {
        let (schema, path) = (version.schema(), &mut String::new());
        let kin = old.map(|old| Kin { value: object, old, schema });
        let own = Own { value: object, old, schema, kin, corresponds: kin.is_some(), root: true };
        judge.value(&own, part, path);
    }
    judge.told
}

/// What rules say.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Faults that refuse the object.
    pub faults: Vec<FieldError>,
    /// Those of what an update leaves as it was, of which its writer is warned.
    pub tolerated: Vec<FieldError>,
}

/// A part of an object that corresponds to a part of the old one.
#[derive(Clone, Copy)]
struct Kin<'a> {
    value: &'a Value,
    old: &'a Value,
    schema: &'a Value,
}

/// A part of an object, as rules look at it.
struct Own<'a> {
    value: &'a Value,
    /// What `oldSelf` is.
    old: Option<&'a Value>,
    schema: &'a Value,
    /// The part itself, or the nearest around it, that corresponds to an old one.
    kin: Option<Kin<'a>>,
    corresponds: bool,
    root: bool,
}

impl<'a> Own<'a> {
    /// The part of a field or an item; `old` is that of the old one which it corresponds to.
    fn inner(&self, value: &'a Value, old: Option<&'a Value>, schema: &'a Value) -> Self {
        let found = old.filter(|_| self.corresponds).map(|old| Kin { value, old, schema });
        Self { value, old, schema, kin: found.or(self.kin), corresponds: found.is_some(), root: false }
    }

    /// Whether an update leaves it as it was.
    fn is_kept(&self) -> bool {
        self.kin.is_some_and(|kin| is_same(kin.value, kin.old, kin.schema))
    }
}

struct Judge {
    told: Told,
    budget: u64,
    /// Whether no further rule is asked.
    spent: bool,
}

/// The place where a rule stands, with its values.
struct Standing<'s> {
    own: &'s Own<'s>,
    old: Option<&'s Value>,
    place: &'s Decl,
    path: &'s str,
    shown: Value,
}

impl Judge {
    fn value(&mut self, own: &Own<'_>, part: &Part, path: &mut String) {
        if self.spent || self.told.faults.len() >= FAULTS_MAX || own.value.is_null() {
            return;
        }
        self.rules(own, part, path);
        match own.value {
            Value::Object(map) => self.fields(own, map, part, path),
            Value::Array(items) => {
                let Some(part) = &part.items else { return };
                let before = old_items(items, own.old, own.schema);
                for (index, item) in items.iter().enumerate() {
                    let before = before.get(index).copied().flatten();
                    let inner = own.inner(item, before, &own.schema["items"]);
                    in_brackets(path, index, |path| self.value(&inner, part, path));
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, own: &Own<'_>, map: &Map<String, Value>, part: &Part, path: &mut String) {
        for (key, child) in map {
            let before = own.old.and_then(|old| old.get(key));
            let known = own.schema["properties"].get(key);
            let (Some(schema), Some(part)) = (
                of_field(own.schema, key),
                if known.is_some() { part.properties.get(key) } else { part.more.as_deref() },
            ) else {
                continue;
            };
            let mut inner = own.inner(child, before, schema);
            if own.root && matches!(key.as_str(), "apiVersion" | "kind") {
                // Both were converted to the same type: their change is not to be seen.
                (inner.kin, inner.corresponds) = (None, false);
            }
            if known.is_some() {
                in_field(path, key, |path| self.value(&inner, part, path));
            } else {
                in_brackets(path, key, |path| self.value(&inner, part, path));
            }
        }
    }

    fn rules(&mut self, own: &Own<'_>, part: &Part, path: &str) {
        let Some(place) = &part.place else { return };
        let shown = Value::from(own.schema["type"].as_str().unwrap_or("object"));
        let standing = Standing { own, old: own.old.filter(|old| !old.is_null()), place, path, shown };
        let written = own.schema[RULES].as_array().into_iter().flatten();
        for (rule, written) in part.rules.iter().zip(written) {
            if self.spent {
                return;
            }
            self.one(rule, written, &standing);
        }
    }

    fn invalid(&mut self, standing: &Standing<'_>, detail: String) {
        self.told.faults.push(FieldError::invalid(standing.path, &standing.shown, detail));
    }

    /// Evaluates within the budget; tells and ends it all where that is spent.
    fn run<'p>(
        &mut self,
        program: &'p Checked,
        standing: &'p Standing<'_>,
        optional: bool,
    ) -> Option<Result<Cel<'p>, Fault>> {
        let mut values = vec![("self", Cel::of(standing.own.value, Some(standing.place)))];
        let before = standing.old.map(|old| Cel::of(old, Some(standing.place)));
        match (before, optional) {
            (before, true) => values.push(("oldSelf", Cel::Optional(before.map(Arc::new)))),
            (Some(before), false) => values.push(("oldSelf", before)),
            (None, false) => {}
        }
        let (answer, cost) = program.run(&values);
        match self.budget.checked_sub(cost) {
            Some(left) => self.budget = left,
            None => {
                self.spent = true;
                return None;
            }
        }
        Some(answer)
    }

    fn one(&mut self, rule: &Rule, written: &Value, standing: &Standing<'_>) {
        let text = |key: &str| written[key].as_str().unwrap_or_default().trim();
        let program = match &rule.program {
            Ok(_) if text("rule").is_empty() => return,
            Ok(program) => program,
            Err(why) => return self.invalid(standing, format!("rule compile error: {why}")),
        };
        let optional = written["optionalOldSelf"] == true;
        if rule.uses_old && standing.old.is_none() && !optional {
            return;
        }
        let said = match text("message") {
            "" => text("rule").to_owned(),
            message => message.to_owned(),
        };
        let failed =
            || if text("message").is_empty() { format!("failed rule: {said}") } else { said.clone() };
        let Some(answer) = self.run(program, standing, optional) else {
            let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
            return self.invalid(standing, detail.to_owned());
        };
        let detail = match answer {
            Ok(Cel::Bool(true)) => return,
            Ok(_) => match self.message(rule, written, standing, optional) {
                Ok(made) => made.unwrap_or_else(failed),
                Err(why) => {
                    self.spent = true;
                    why
                }
            },
            Err(Fault::NoOverload) => {
                return self.invalid(standing, format!("'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {said}"));
            }
            Err(Fault::Limit) => {
                self.spent = true;
                return self.invalid(standing, format!("'{}': no further validation rules will be run due to call cost exceeds limit for rule: {said}", Fault::Limit));
            }
            Err(Fault::Told(why)) => return self.invalid(standing, format!("{why} evaluating rule: {said}")),
        };
        let path = format!("{}{}", standing.path, named_path(text("fieldPath")));
        let path = path.trim_start_matches('.');
        let shown = &standing.shown;
        let fault = match text("reason") {
            "FieldValueForbidden" => FieldError::forbidden(path, detail),
            "FieldValueRequired" => FieldError::required(path, detail),
            "FieldValueDuplicate" => FieldError::duplicate(path, shown),
            _ => FieldError::invalid(path, shown, detail),
        };
        // What was wrong before may stay so, but for what must not stay as it was.
        if !rule.uses_old && standing.own.is_kept() {
            self.told.tolerated.push(fault);
        } else {
            self.told.faults.push(fault);
        }
    }

    /// The text that `messageExpression` makes, where it makes one.
    fn message(
        &mut self,
        rule: &Rule,
        written: &Value,
        standing: &Standing<'_>,
        optional: bool,
    ) -> Result<Option<String>, String> {
        let Some(Ok(program)) = &rule.message else { return Ok(None) };
        let text = written["messageExpression"].as_str().unwrap_or_default();
        match self.run(program, standing, optional) {
            None => Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned()),
            Some(Err(Fault::Limit)) => Err(format!("no further validation rules will be run due to call cost exceeds limit for messageExpression: {text:?}")),
            Some(Ok(Cel::Text(made))) => {
                let made = made.trim();
                let fine = !made.is_empty() && made.len() <= expression::MESSAGE_MAX && !made.contains(['\n', '\r']);
                Ok(fine.then(|| made.to_owned()))
            }
            Some(_) => Ok(None),
        }
    }
}

/// A rule's `fieldPath` as paths of faults are written: without the quotes of its keys.
fn named_path(path: &str) -> String {
    path.replace("['", ".").replace("']", "")
}
