//! The authorizer: whether a user may do something, asked in steps.

use super::super::value::{Fault, Value, told};
use super::{Cost, Opaque, Written};
use crate::labels;
use std::sync::Arc;

/// What is asked of an authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Namespace and name of the ServiceAccount to ask for, instead of who makes the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
    pub verb: String,
}

/// What an authorizer says.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// Who decides.
pub trait Authorizer: Send + Sync {
    /// Whether that may be done.
    fn decide(&self, check: &Check) -> Decision;
}

/// A question in the making, or its answer.
#[derive(Clone)]
pub struct Asking<'a> {
    authorizer: &'a dyn Authorizer,
    stage: Stage,
    check: Check,
    decision: Decision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Start,
    Path,
    Group,
    Resource,
    Decided,
}

impl std::fmt::Debug for Asking<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.check.fmt(f)
    }
}

impl<'a> Asking<'a> {
    /// The variable `authorizer`, or with a check begun `authorizer.requestResource`.
    pub fn start<'v>(authorizer: &'a dyn Authorizer, check: Option<Check>) -> Value<'v>
    where
        'a: 'v,
    {
        let stage = if check.is_some() { Stage::Resource } else { Stage::Start };
        let check = check.unwrap_or_default();
        of(Asking { authorizer, stage, check, decision: Decision::default() })
    }

    pub fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Start => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decided => "kubernetes.authorization.Decision",
        }
    }
}

const ON_RESOURCE: &[&str] = &["resource_check.(string) resource_check"];

pub const TABLE: &[Written] = &[
    ("path", &["authorizer.(string) path_check"], Cost::One, |args| {
        step(args, Stage::Start, Stage::Path, |check, path| {
            if path.trim().is_empty() {
                return Err("path must not be empty");
            }
            check.path = path;
            Ok(())
        })
    }),
    ("group", &["authorizer.(string) group_check"], Cost::One, |args| {
        step(args, Stage::Start, Stage::Group, |check, group| {
            check.group = group;
            Ok(())
        })
    }),
    ("serviceAccount", &["authorizer.(string, string) authorizer"], Cost::One, service_account),
    ("resource", &["group_check.(string) resource_check"], Cost::One, |args| {
        step(args, Stage::Group, Stage::Resource, |check, resource| {
            if resource.trim().is_empty() {
                return Err("resource must not be empty");
            }
            check.resource = resource;
            Ok(())
        })
    }),
    ("subresource", ON_RESOURCE, Cost::One, |args| resource(args, |check, text| check.subresource = text)),
    ("namespace", ON_RESOURCE, Cost::One, |args| resource(args, |check, text| check.namespace = text)),
    ("name", ON_RESOURCE, Cost::One, |args| resource(args, |check, text| check.name = text)),
    ("fieldSelector", ON_RESOURCE, Cost::One, |args| {
        resource(args, |check, text| check.field_selector = text)
    }),
    ("labelSelector", ON_RESOURCE, Cost::One, |args| {
        resource(args, |check, text| check.label_selector = text)
    }),
    ("check", &["path_check.(string) decision", "resource_check.(string) decision"], Cost::Ask, decide),
    ("allowed", &["decision.() bool"], Cost::One, |args| Ok(Value::Bool(decided(args)?.allowed))),
    ("reason", &["decision.() string"], Cost::One, |args| Ok(Value::text(decided(args)?.reason.as_str()))),
    ("errored", &["decision.() bool"], Cost::One, |args| Ok(Value::Bool(decided(args)?.error.is_some()))),
    ("error", &["decision.() string"], Cost::One, |args| {
        Ok(Value::text(decided(args)?.error.as_deref().unwrap_or_default()))
    }),
];

fn asking<'s, 'a>(args: &'s [Value<'a>]) -> Result<&'s Asking<'a>, Fault> {
    match args.first() {
        Some(Value::Opaque(value)) => match value.as_ref() {
            Opaque::Authorizer(asking) => Ok(asking),
            _ => Err(Fault::NoOverload),
        },
        _ => Err(Fault::NoOverload),
    }
}

fn of<'a>(asking: Asking<'a>) -> Value<'a> {
    Value::Opaque(Arc::new(Opaque::Authorizer(Box::new(asking))))
}

fn step<'a>(
    args: &[Value<'a>],
    from: Stage,
    to: Stage,
    change: fn(&mut Check, String) -> Result<(), &'static str>,
) -> Result<Value<'a>, Fault> {
    let [_, Value::Text(text)] = args else { return Err(Fault::NoOverload) };
    let mut next = asking(args)?.clone();
    if next.stage != from {
        return Err(Fault::NoOverload);
    }
    next.stage = to;
    match change(&mut next.check, text.to_string()) {
        Ok(()) => Ok(of(next)),
        Err(why) => told(why),
    }
}

fn resource<'a>(args: &[Value<'a>], change: fn(&mut Check, String)) -> Result<Value<'a>, Fault> {
    let [_, Value::Text(text)] = args else { return Err(Fault::NoOverload) };
    let mut next = asking(args)?.clone();
    if next.stage != Stage::Resource {
        return Err(Fault::NoOverload);
    }
    change(&mut next.check, text.to_string());
    Ok(of(next))
}

fn service_account<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [_, Value::Text(namespace), Value::Text(name)] = args else { return Err(Fault::NoOverload) };
    let mut next = asking(args)?.clone();
    if next.stage != Stage::Start {
        return Err(Fault::NoOverload);
    }
    if !labels::is_dns1123_subdomain(name).is_empty() {
        return told("Invalid service account name");
    }
    if !labels::is_dns1123_label(namespace).is_empty() {
        return told("Invalid service account namespace");
    }
    next.check.service_account = Some((namespace.to_string(), name.to_string()));
    Ok(of(next))
}

fn decide<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let [_, Value::Text(verb)] = args else { return Err(Fault::NoOverload) };
    let mut next = asking(args)?.clone();
    if !matches!(next.stage, Stage::Path | Stage::Resource) {
        return Err(Fault::NoOverload);
    }
    next.check.verb = verb.to_string();
    next.decision = next.authorizer.decide(&next.check);
    next.stage = Stage::Decided;
    Ok(of(next))
}

fn decided<'s>(args: &'s [Value<'_>]) -> Result<&'s Decision, Fault> {
    let asking = asking(args)?;
    if asking.stage == Stage::Decided { Ok(&asking.decision) } else { Err(Fault::NoOverload) }
}
