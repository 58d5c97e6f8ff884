//! What expressions of admission can name: the objects, the request, variables that are made when they are asked for,
//! and the authorizer. What they cost is counted together.

use super::eval::Globals;
use super::library::{Asking, Authorizer, Check};
use super::types::{Decl, Field, ListKind, ObjectType, Type};
use super::value::{Fault, Value, told};
use super::{Checked, Environment};
use serde_json::Value as Json;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What an expression comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Bool(bool),
    Text(String),
    Null,
    /// Anything else.
    Other,
}

/// Why an expression came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed.
    Told(String),
    /// The budget of all expressions is spent.
    Budget,
}

/// Names and their values, for one object.
#[derive(Default)]
pub struct Scope<'a> {
    values: Vec<(&'a str, Value<'a>)>,
    variables: HashMap<&'a str, Result<&'a Checked, String>>,
    made: RefCell<HashMap<String, Result<Value<'a>, Fault>>>,
    spent: Cell<u64>,
}

impl<'a> Scope<'a> {
    /// Names a value.
    pub fn set(&mut self, name: &'a str, value: &'a Json) {
        self.values.push((name, Value::of(value, None)));
    }

    /// Lets expressions ask an authorizer; the check is about what is requested.
    pub fn authorize(&mut self, authorizer: &'a dyn Authorizer, requested: Check) {
        self.values.push(("authorizer", Asking::start(authorizer, None)));
        self.values.push(("authorizer.requestResource", Asking::start(authorizer, Some(requested))));
    }

    /// Names what an expression comes to as `variables.NAME`.
    pub fn define(&mut self, name: &'a str, program: Result<&'a Checked, String>) {
        self.variables.insert(name, program);
    }

    /// What all expressions have cost so far.
    pub fn spent(&self) -> u64 {
        self.spent.get()
    }

    /// An expression's answer, within a budget that all share.
    ///
    /// # Errors
    /// It fails on these values, or the budget is spent.
    pub fn eval(&self, program: &'a Checked, budget: u64) -> Result<Answer, Failure> {
        let (answer, cost) = program.run(self);
        self.spent.set(self.spent.get().saturating_add(cost));
        if self.spent.get() > budget {
            return Err(Failure::Budget);
        }
        match answer {
            Ok(Value::Bool(value)) => Ok(Answer::Bool(value)),
            Ok(Value::Text(text)) => Ok(Answer::Text(text.to_string())),
            Ok(Value::Null) => Ok(Answer::Null),
            Ok(_) => Ok(Answer::Other),
            Err(fault) => Err(Failure::Told(fault.to_string())),
        }
    }
}

impl<'a> Globals<'a> for Scope<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Fault>> {
        self.values.iter().find(|(own, _)| *own == name).map(|(_, value)| Ok(value.clone()))
    }

    fn field(&self, name: &str, field: &str) -> Option<Result<Value<'a>, Fault>> {
        if name != "variables" {
            return None;
        }
        if let Some(known) = self.made.borrow().get(field) {
            return Some(known.clone());
        }
        let failed = |why: String| told(format!("composited variable {field:?} fails to evaluate: {why}"));
        let made = match self.variables.get(field)? {
            Err(why) => told(format!("composited variable {field:?} fails to compile: {why}")),
            Ok(program) => {
                let (answer, cost) = program.run(self);
                self.spent.set(self.spent.get().saturating_add(cost));
                answer.or_else(|fault| failed(fault.to_string()))
            }
        };
        self.made.borrow_mut().insert(field.to_owned(), made.clone());
        Some(made)
    }
}

fn plain(ty: Type) -> Arc<Decl> {
    Arc::new(Decl::plain(ty, 0, 0))
}

fn object(name: &str, fields: Vec<(&str, Arc<Decl>)>) -> Arc<Decl> {
    let fields = fields.into_iter().map(|(raw, decl)| (raw.to_owned(), Field { raw: raw.to_owned(), decl }));
    let fields: BTreeMap<String, Field> = fields.collect();
    plain(Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields })))
}

fn list(item: Arc<Decl>) -> Arc<Decl> {
    let ty = Type::list(item.ty.clone());
    Arc::new(Decl { ty, max: 0, min_size: 2, item: Some(item), key: None, list: ListKind::Atomic })
}

fn map(item: Arc<Decl>) -> Arc<Decl> {
    let ty = Type::map(Type::String, item.ty.clone());
    Arc::new(Decl {
        ty,
        max: 0,
        min_size: 2,
        item: Some(item),
        key: Some(plain(Type::String)),
        list: ListKind::Atomic,
    })
}

/// `request`: an AdmissionRequest without its objects.
fn request() -> Arc<Decl> {
    let text = || plain(Type::String);
    let names = |name: &str, third: &'static str| {
        object(name, vec![("group", text()), ("version", text()), (third, text())])
    };
    let kind = || names("kubernetes.GroupVersionKind", "kind");
    let resource = || names("kubernetes.GroupVersionResource", "resource");
    let user = object(
        "kubernetes.UserInfo",
        vec![("username", text()), ("uid", text()), ("groups", list(text())), ("extra", map(list(text())))],
    );
    let fields = vec![
        ("kind", kind()),
        ("resource", resource()),
        ("subResource", text()),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("requestSubResource", text()),
        ("name", text()),
        ("namespace", text()),
        ("operation", text()),
        ("userInfo", user),
        ("dryRun", plain(Type::Bool)),
        ("options", plain(Type::Dyn)),
    ];
    object("kubernetes.AdmissionRequest", fields)
}

/// `namespaceObject`: what policies may see of a Namespace.
fn namespace() -> Arc<Decl> {
    let text = || plain(Type::String);
    let time = || plain(Type::Timestamp);
    let metadata = vec![
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("labels", map(text())),
        ("annotations", map(text())),
        ("UID", text()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", plain(Type::Int)),
        ("deletionTimestamp", time()),
        ("generation", plain(Type::Int)),
        ("resourceVersion", text()),
        ("finalizers", list(text())),
    ];
    let condition = vec![
        ("status", text()),
        ("type", text()),
        ("lastTransitionTime", time()),
        ("message", text()),
        ("reason", text()),
    ];
    let status =
        vec![("conditions", list(object("kubernetes.NamespaceCondition", condition))), ("phase", text())];
    let fields = vec![
        ("metadata", object("kubernetes.NamespaceMetadata", metadata)),
        ("spec", object("kubernetes.NamespaceSpec", vec![("finalizers", list(text()))])),
        ("status", object("kubernetes.NamespaceStatus", status)),
    ];
    object("kubernetes.Namespace", fields)
}

/// What expressions of admission may name: `object` and `params` may be declared, else anything goes.
/// The `variables` come with the types of their expressions; where there are none to come, nothing is called so.
#[must_use]
pub fn policy_environment(
    object_place: Option<&Arc<Decl>>,
    params: Option<Option<&Arc<Decl>>>,
    variables: Option<&[(String, Type)]>,
) -> Environment {
    let any = || plain(Type::Dyn);
    let shown = object_place.cloned().unwrap_or_else(any);
    let mut environment = Environment::default()
        .with("object", shown.clone())
        .with("oldObject", shown)
        .with("request", request())
        .with("namespaceObject", namespace())
        .typed("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
        .typed("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"));
    if let Some(place) = params {
        environment = environment.with("params", place.cloned().unwrap_or_else(any));
    }
    let Some(variables) = variables else { return environment };
    let variables = variables.iter().map(|(name, ty)| (name.as_str(), plain(ty.clone()))).collect();
    environment.with("variables", object_of_variables(variables))
}

fn object_of_variables(fields: Vec<(&str, Arc<Decl>)>) -> Arc<Decl> {
    object("kubernetes.variables", fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_see_objects_and_variables() {
        let object = json!({"spec": {"replicas": 7, "names": ["a", "b"]}, "metadata": {}});
        let environment = policy_environment(None, None, None);
        let compile = |text: &str, environment: &Environment| Checked::compile(text, environment);
        let (many, broken) = (
            compile("object.spec.replicas > 5", &environment).expect("many"),
            compile("object.spec.none > 5", &environment).expect("broken"),
        );
        let known = [("many".to_owned(), many.ty().clone()), ("broken".to_owned(), broken.ty().clone())];
        let environment = policy_environment(None, None, Some(&known));
        let rows = [
            ("variables.many", Ok(Answer::Bool(true))),
            ("oldObject == null && object.spec.names.all(n, n.size() == 1)", Ok(Answer::Bool(true))),
            ("has(object.metadata.labels)", Ok(Answer::Bool(false))),
            ("object.?spec.?none.orValue(3) == 3", Ok(Answer::Bool(true))),
            ("'have ' + string(object.spec.replicas)", Ok(Answer::Text("have 7".to_owned()))),
            ("object.spec.none", Err(Failure::Told("no such key: none".to_owned()))),
            (
                "variables.broken",
                Err(Failure::Told(
                    "composited variable \"broken\" fails to evaluate: no such key: none".to_owned(),
                )),
            ),
            ("[1]", Ok(Answer::Other)),
        ];
        for (expression, want) in rows {
            let program =
                compile(expression, &environment).unwrap_or_else(|why| panic!("{expression}: {why}"));
            let mut scope = Scope::default();
            scope.set("object", &object);
            scope.set("oldObject", &Json::Null);
            scope.define("many", Ok(&many));
            scope.define("broken", Ok(&broken));
            assert_eq!(scope.eval(&program, 10_000), want, "{expression}");
        }
        let why = compile("variables.none", &environment).expect_err("no such variable");
        assert!(why.contains("undefined field 'none'"), "{why}");
        assert!(compile("object.(", &environment).is_err());
    }

    struct OnlyPods;
    impl Authorizer for OnlyPods {
        fn decide(&self, check: &Check) -> super::super::Decision {
            super::super::Decision { allowed: check.resource == "pods", ..Default::default() }
        }
    }

    #[test]
    fn expressions_ask_the_authorizer_within_the_budget() {
        let environment = policy_environment(None, None, None);
        let rows = [
            ("authorizer.group('').resource('pods').check('get').allowed()", Ok(Answer::Bool(true))),
            ("authorizer.requestResource.check('get').allowed()", Ok(Answer::Bool(false))),
            (
                "authorizer.path(' ').check('get').allowed()",
                Err(Failure::Told("path must not be empty".to_owned())),
            ),
        ];
        for (text, want) in rows {
            let program = Checked::compile(text, &environment).expect(text);
            let mut scope = Scope::default();
            scope.authorize(&OnlyPods, Check { resource: "secrets".to_owned(), ..Check::default() });
            assert_eq!(scope.eval(&program, 1_000_000), want, "{text}");
            assert_eq!(scope.eval(&program, 1), Err(Failure::Budget));
        }
    }
}
