//! matchConditions and the expressions of policies: what CEL knows of a write, and what it says.

use super::Attributes;
use super::select::{self, Target};
use super::webhook;
use crate::authorization::{Authorization, Refused};
use crate::request::{RequestInfo, UserInfo};
use coracle_api::expression::{self, Answer, Authorizer, Check, Compiled, Decision, Failure, Policy, Scope};
use coracle_daemon::panics::Mutex;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Compiled expressions that are kept; more are compiled again when they are asked for.
const KEPT_MAX: usize = 2000;

/// Expressions of webhooks and policies, compiled once.
#[derive(Default)]
pub struct Conditions {
    webhooks: Mutex<HashMap<String, Arc<Vec<Compiled>>>>,
    policies: Mutex<HashMap<String, Known>>,
}

/// A policy, and its programs.
type Known = (Arc<Value>, Arc<Policy>);

/// What a write shows to expressions.
pub struct Shown<'a> {
    object: Cow<'a, Value>,
    old: Cow<'a, Value>,
    request: Value,
    namespace: Option<&'a Value>,
    asker: Asker<'a>,
}

/// What other servers have said to the expressions about one write, and what they are still to be asked. Expressions do not
/// wait: they are evaluated again once what they asked for is known.
#[derive(Default)]
pub struct Answers {
    known: Mutex<HashMap<String, Decision>>,
    wanted: Mutex<Vec<(String, UserInfo, RequestInfo)>>,
}

impl Answers {
    /// Asks what is still to be asked; whether there was anything.
    pub async fn fetch(&self, authorization: &Authorization) -> bool {
        let wanted = std::mem::take(&mut *self.wanted.lock());
        let any = !wanted.is_empty();
        for (key, user, request) in wanted {
            let decision = told(authorization.decide(&user, &request).await);
            self.known.lock().insert(key, decision);
        }
        any
    }
}

fn told(decided: Result<(), Refused>) -> Decision {
    match decided {
        Ok(()) => Decision { allowed: true, ..Decision::default() },
        Err(Refused { reason, failure, .. }) => Decision { allowed: false, reason, error: failure },
    }
}

/// Asks the server's own authorization on behalf of expressions.
struct Asker<'a> {
    authorization: &'a Authorization,
    attributes: &'a Attributes<'a>,
    answers: &'a Answers,
}

impl Authorizer for Asker<'_> {
    fn decide(&self, check: &Check) -> Decision {
        let user = match &check.service_account {
            Some((namespace, name)) => UserInfo {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                groups: [
                    "system:serviceaccounts",
                    &format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated",
                ]
                .map(str::to_owned)
                .to_vec(),
                ..UserInfo::default()
            },
            None => self.attributes.user.clone(),
        };
        let request = RequestInfo {
            is_resource: check.path.is_empty(),
            verb: check.verb.clone(),
            path: check.path.clone(),
            group: check.group.clone(),
            version: "*".to_owned(),
            resource: check.resource.clone(),
            subresource: check.subresource.clone(),
            namespace: check.namespace.clone(),
            name: check.name.clone(),
            field_selector: check.field_selector.clone(),
            label_selector: check.label_selector.clone(),
            ..RequestInfo::default()
        };
        if !self.authorization.asks_others() {
            return told(self.authorization.decide_now(&user, &request));
        }
        let key = format!("{user:?} {request:?}");
        if let Some(known) = self.answers.known.lock().get(&key) {
            return known.clone();
        }
        self.answers.wanted.lock().push((key, user, request));
        Decision::default()
    }
}

impl<'a> Shown<'a> {
    /// What expressions about a write can name.
    pub fn new(
        authorization: &'a Authorization,
        attributes: &'a Attributes<'a>,
        object: &'a Value,
        target: &Target,
        namespace: Option<&'a Value>,
        answers: &'a Answers,
    ) -> Self {
        let old = attributes.old.unwrap_or(&Value::Null);
        Self {
            object: select::converted(target, attributes, object),
            old: select::converted(target, attributes, old),
            request: webhook::request(attributes, object, target),
            namespace,
            asker: Asker { authorization, attributes, answers },
        }
    }

    /// The same as names and values.
    pub fn scope(&self) -> Scope<'_> {
        let mut scope = Scope::default();
        scope.set("object", &self.object);
        scope.set("oldObject", &self.old);
        scope.set("request", &self.request);
        scope.set("namespaceObject", self.namespace.unwrap_or(&Value::Null));
        let request = self.asker.attributes.request;
        let requested = Check {
            group: request.group.clone(),
            resource: request.resource.clone(),
            subresource: request.subresource.clone(),
            namespace: request.namespace.clone(),
            name: self.asker.attributes.name(&self.object).to_owned(),
            ..Check::default()
        };
        scope.authorize(&self.asker, requested);
        scope
    }
}

/// How an expression failed, in Kubernetes' words.
pub fn failed(expression: &str, failure: &Failure) -> String {
    match failure {
        Failure::Told(why) => format!("expression '{}' resulted in error: {why}", expression.trim()),
        Failure::Budget => {
            "validation failed due to running out of cost budget, no further validation rules will be run"
                .to_owned()
        }
    }
}

impl Conditions {
    /// The programs of a webhook's conditions.
    pub fn of_webhook(&self, conditions: &Value) -> Arc<Vec<Compiled>> {
        let key = conditions.to_string();
        if let Some(known) = self.webhooks.lock().get(&key) {
            return known.clone();
        }
        let programs = Arc::new(expression::conditions(conditions));
        keep(&self.webhooks, key, programs.clone());
        programs
    }

    /// The programs of a policy.
    pub fn of_policy(&self, policy: &Arc<Value>) -> Arc<Policy> {
        let name = coracle_api::meta::name(policy);
        if let Some((own, programs)) = self.policies.lock().get(name)
            && (Arc::ptr_eq(own, policy) || own["spec"] == policy["spec"])
        {
            return programs.clone();
        }
        let programs = Arc::new(Policy::compile(&policy["spec"], None, None));
        keep(&self.policies, name.to_owned(), (policy.clone(), programs.clone()));
        programs
    }
}

/// Keeps what was compiled, which is done without the lock: others need not wait, and expressions are anybody's.
fn keep<T>(all: &Mutex<HashMap<String, T>>, key: String, one: T) {
    let mut all = all.lock();
    if all.len() > KEPT_MAX {
        all.clear();
    }
    all.insert(key, one);
}

/// Whether all conditions hold. One that does not wins over those that fail.
///
/// # Errors
/// How they failed, unless failures are to be ignored: then they do not hold.
pub fn met<'a>(
    conditions: &Value,
    programs: &'a [Compiled],
    ignore_failure: bool,
    scope: &Scope<'a>,
) -> Result<bool, String> {
    let mut errors = Vec::new();
    for (condition, program) in conditions.as_array().into_iter().flatten().zip(programs) {
        let text = condition["expression"].as_str().unwrap_or_default();
        let answer = match program {
            Ok(program) => {
                scope.eval(program, expression::CONDITIONS_BUDGET).map_err(|failure| failed(text, &failure))
            }
            Err(why) => Err(format!("compilation error: {why}")),
        };
        match answer {
            Ok(Answer::Bool(true)) => {}
            Ok(Answer::Bool(false)) => return Ok(false),
            Ok(_) => errors.push(format!("cel expression must evaluate to a bool: {text}")),
            Err(error) => errors.push(error),
        }
    }
    match (errors.as_slice(), ignore_failure) {
        ([], _) => Ok(true),
        (_, true) => Ok(false),
        ([only], false) => Err(only.clone()),
        (all, false) => Err(format!("[{}]", all.join(", "))),
    }
}
