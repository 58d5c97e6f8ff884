//! ValidatingAdmissionPolicies with their bindings and parameters.
//!
//! In: a write. Out: warnings, or the Status with which the first binding denies it.

use super::conditions::{self, Answers, Conditions, Shown};
use super::select::{self, GROUP, Target};
use super::{Attributes, Context};
use crate::audit;
use crate::meters::admission::Check;
use coracle_api::expression::{Answer, Compiled, MESSAGE_MAX, OBJECT_BUDGET, Policy, Scope};
use coracle_api::kinds;
use coracle_api::meta;
use coracle_api::selector::LabelSelector;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::clock::Instant;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const OF_POLICY: &str = "failed to configure policy: ";
/// Bytes of an audit annotation.
const ANNOTATION_MAX: usize = 10 << 10;
const NO_PARAMS: &str = "no params found for policy binding with `Deny` parameterNotFoundAction";

/// What one validation says against a write.
struct Objection {
    message: String,
    reason: String,
    /// Which of the policy's validations it is.
    index: usize,
    /// It denies whatever the binding does with those of validations.
    denies: bool,
}

/// What is told the audit log of one policy, by key: each binding and parameter may add a value.
type Annotations = BTreeMap<String, Vec<String>>;

/// Asks every policy that a binding brings to bear.
///
/// # Errors
/// The Status that refuses the write.
pub async fn validate(
    context: &Context,
    conditions: &Conditions,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<Vec<String>, Status> {
    let mut warnings = Vec::new();
    // Who could refuse reviews could keep the cluster from working.
    if attributes.request.is_review() {
        return Ok(warnings);
    }
    let mut policies = context.list(GROUP, "validatingadmissionpolicies", "");
    if policies.is_empty() {
        return Ok(warnings);
    }
    policies.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    let mut bindings = context.list(GROUP, "validatingadmissionpolicybindings", "");
    bindings.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    let mut denied = None;
    for policy in &policies {
        let own = bindings.iter().filter(|binding| binding["spec"]["policyName"] == meta::name(policy));
        let Some(target) = matched(context, &policy["spec"]["matchConstraints"], attributes, object).await?
        else {
            continue;
        };
        let mut annotations = Annotations::new();
        for binding in own {
            let resources = &binding["spec"]["matchResources"];
            if resources.is_object() && matched(context, resources, attributes, object).await?.is_none() {
                continue;
            }
            let bound = Bound { context, conditions, attributes, object, policy, binding, target: &target };
            let began = Instant::now();
            for objection in bound.objections(&mut annotations).await? {
                bound.act(&objection, &mut warnings, &mut denied, began.elapsed());
            }
        }
        for (key, values) in annotations {
            audit::annotate(&key, || values.join(", "));
        }
    }
    match denied {
        Some(status) => Err(status),
        None => Ok(warnings),
    }
}

/// The version in which constraints speak of a write, if they do. Bindings may leave out the rules.
async fn matched(
    context: &Context,
    constraints: &Value,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<Option<Target>, Status> {
    let policy = &constraints["matchPolicy"];
    if select::target(context, &constraints["excludeResourceRules"], policy, attributes, object).is_some()
        || !select::of_object(&constraints["objectSelector"], attributes, object)?
        || !select::in_namespace(context, &constraints["namespaceSelector"], attributes, object).await?
    {
        return Ok(None);
    }
    let every =
        json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    let rules = match constraints["resourceRules"].as_array() {
        Some(rules) if !rules.is_empty() => &constraints["resourceRules"],
        _ => &every,
    };
    Ok(select::target(context, rules, policy, attributes, object))
}

/// A policy with one of its bindings, on one write.
struct Bound<'a> {
    context: &'a Context,
    conditions: &'a Conditions,
    attributes: &'a Attributes<'a>,
    object: &'a Value,
    policy: &'a Arc<Value>,
    binding: &'a Value,
    target: &'a Target,
}

impl Bound<'_> {
    fn act(
        &self,
        objection: &Objection,
        warnings: &mut Vec<String>,
        denied: &mut Option<Status>,
        took: Duration,
    ) {
        let count = |enforcement_action| self.count(objection, enforcement_action, took);
        if objection.denies {
            denied.get_or_insert_with(|| self.denial(objection));
            return;
        }
        let (policy, binding) = (meta::name(self.policy), meta::name(self.binding));
        for action in meta::strings(&self.binding["spec"]["validationActions"]) {
            match action {
                "Warn" => {
                    count("warn");
                    warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                        objection.message
                    ));
                }
                "Audit" => {
                    count("audit");
                    self.note_failure(objection);
                }
                "Deny" => {
                    count("deny");
                    denied.get_or_insert_with(|| self.denial(objection));
                }
                _ => {}
            }
        }
    }

    fn count(&self, objection: &Objection, enforcement_action: &'static str, took: Duration) {
        let error_type = match objection.message.as_str() {
            message if message.starts_with("compilation") => "compile_error",
            message if message.starts_with("validation failed due to running out of cost") => "out_of_budget",
            // Also where the write is what is wrong.
            _ => "invalid_error",
        };
        let (policy, policy_binding) = (meta::name(self.policy), meta::name(self.binding));
        let (policy, policy_binding) = (policy.to_owned(), policy_binding.to_owned());
        self.context.meters.checked(&Check { policy, policy_binding, error_type, enforcement_action }, took);
    }

    /// Of a write's failures the first is noted.
    fn note_failure(&self, objection: &Objection) {
        audit::annotate("validation.policy.admission.k8s.io/validation_failure", || {
            let text = |text: &str| json!(text).to_string();
            format!(
                "[{{\"message\":{},\"policy\":{},\"binding\":{},\"expressionIndex\":{},\"validationActions\":{}}}]",
                text(&objection.message),
                text(meta::name(self.policy)),
                text(meta::name(self.binding)),
                objection.index,
                self.binding["spec"]["validationActions"]
            )
        });
    }

    fn denial(&self, objection: &Objection) -> Status {
        // What is wrong with a policy is so whatever binds it.
        let of_policy = objection.message.starts_with(OF_POLICY);
        let binding =
            if of_policy { String::new() } else { format!(" with binding '{}'", meta::name(self.binding)) };
        let message = format!(
            "ValidatingAdmissionPolicy '{}'{binding} denied request: {}",
            meta::name(self.policy),
            objection.message
        );
        let mut status = self.attributes.forbidden(self.object, &message);
        let reason = if objection.reason.is_empty() { "Invalid" } else { &objection.reason };
        status.reason = reason.to_owned();
        status.code = match reason {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        status.details["causes"] = json!([{"message": message}]);
        status
    }

    fn ignores_failure(&self) -> bool {
        self.policy["spec"]["failurePolicy"] == "Ignore"
    }

    /// What a failure of the policy itself amounts to.
    fn failed(&self, message: String) -> Vec<Objection> {
        if self.ignores_failure() {
            return Vec::new();
        }
        vec![Objection { message, reason: String::new(), index: 0, denies: false }]
    }

    async fn objections(&self, annotations: &mut Annotations) -> Result<Vec<Objection>, Status> {
        let params = match self.params() {
            Ok(params) => params,
            Err(error) => return Ok(self.failed(error)),
        };
        let namespace = select::namespace(self.context, self.attributes).await.unwrap_or_default();
        let programs = self.conditions.of_policy(self.policy);
        let (authorization, answers) = (&self.context.authorization, Answers::default());
        loop {
            let mut noted = Annotations::new();
            let all = {
                let (attributes, object, target) = (self.attributes, self.object, self.target);
                let namespace = namespace.as_deref();
                let shown = Shown::new(authorization, attributes, object, target, namespace, &answers);
                let judged = params.iter().map(|param| {
                    self.judged(&programs, &shown, param.as_deref().unwrap_or(&Value::Null), &mut noted)
                });
                judged.flatten().collect()
            };
            if !answers.fetch(authorization).await {
                for (key, values) in noted {
                    let all = annotations.entry(key).or_default();
                    all.extend(values);
                    all.dedup();
                }
                return Ok(all);
            }
        }
    }

    /// What the policy has against a write, with one parameter.
    fn judged(
        &self,
        programs: &Policy,
        shown: &Shown<'_>,
        param: &Value,
        noted: &mut Annotations,
    ) -> Vec<Objection> {
        let spec = &self.policy["spec"];
        let mut scope = shown.scope();
        scope.set("params", param);
        let ignores = self.ignores_failure();
        match conditions::met(&spec["matchConditions"], &programs.conditions, ignores, &scope) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(error) => return self.failed(error),
        }
        let mut scope = shown.scope();
        scope.set("params", param);
        for (name, program) in &programs.variables {
            scope.define(name, program.as_ref().map_err(Clone::clone));
        }
        let mut all = Vec::new();
        let validations = spec["validations"].as_array().into_iter().flatten();
        for (index, (validation, program)) in validations.zip(&programs.validations).enumerate() {
            let objections = self.asked(validation, program, &scope);
            all.extend(objections.into_iter().map(|objection| Objection { index, ..objection }));
        }
        all.extend(self.note(&programs.annotations, &scope, noted));
        all
    }

    /// What the policy wants the audit log to know; what cannot be told denies the write, unless failures are ignored.
    fn note<'p>(
        &self,
        programs: &'p [Compiled],
        scope: &Scope<'p>,
        noted: &mut Annotations,
    ) -> Vec<Objection> {
        let mut failures = Vec::new();
        let annotations = self.policy["spec"]["auditAnnotations"].as_array().into_iter().flatten();
        for (annotation, program) in annotations.zip(programs) {
            let key = annotation["key"].as_str().unwrap_or_default();
            let key = format!("{}/{key}", meta::name(self.policy));
            let expression = annotation["valueExpression"].as_str().unwrap_or_default();
            let Ok(program) = program else { continue };
            match scope.eval(program, OBJECT_BUDGET) {
                Ok(Answer::Text(value)) if !value.trim().is_empty() => {
                    let value = value.trim();
                    let end = value.floor_char_boundary(ANNOTATION_MAX);
                    noted.entry(key).or_default().push(value[..end].to_owned());
                }
                Ok(_) => {}
                Err(failure) => failures.extend(self.failed(conditions::failed(expression.trim(), &failure))),
            }
        }
        failures.into_iter().map(|failure| Objection { denies: true, ..failure }).collect()
    }

    fn asked<'p>(
        &self,
        validation: &Value,
        (program, message): &'p (Compiled, Option<Compiled>),
        scope: &Scope<'p>,
    ) -> Vec<Objection> {
        let text = |key: &str| validation[key].as_str().unwrap_or_default().trim();
        let expression = text("expression");
        let program = match program {
            Ok(program) => program,
            Err(why) => return self.failed(format!("compilation error: {why}")),
        };
        match scope.eval(program, OBJECT_BUDGET) {
            Ok(Answer::Bool(true)) => Vec::new(),
            Ok(_) => {
                let made = message.as_ref().and_then(|message| message.as_ref().ok());
                let made = made.and_then(|program| scope.eval(program, OBJECT_BUDGET).ok());
                let message = match (made, text("message")) {
                    (Some(Answer::Text(made)), _) if is_message(&made) => made.trim().to_owned(),
                    (_, "") => format!("failed expression: {expression}"),
                    (_, message) => message.to_owned(),
                };
                vec![Objection { message, reason: text("reason").to_owned(), index: 0, denies: false }]
            }
            Err(failure) => self.failed(conditions::failed(expression, &failure)),
        }
    }

    /// The parameters to ask with; a `None` stands for no parameter.
    fn params(&self) -> Result<Vec<Option<Arc<Value>>>, String> {
        let (of, reference) = (&self.policy["spec"]["paramKind"], &self.binding["spec"]["paramRef"]);
        if !of.is_object() || !reference.is_object() {
            return Ok(vec![None]);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&of["apiVersion"]), text(&of["kind"]));
        let Some((of, namespaced)) = self.resource(&version, &kind) else {
            return Err(format!(
                "{OF_POLICY}failed to find resource referenced by paramKind: '{version}, Kind={kind}'"
            ));
        };
        self.found(&of, namespaced, reference).map_err(|why| format!("failed to configure binding: {why}"))
    }

    /// The objects of a resource that a binding names.
    fn found(
        &self,
        of: &GroupResource,
        namespaced: bool,
        reference: &Value,
    ) -> Result<Vec<Option<Arc<Value>>>, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut namespace = text(&reference["namespace"]);
        if !namespaced && !namespace.is_empty() {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        if namespaced && namespace.is_empty() {
            namespace.clone_from(&self.attributes.request.namespace);
            if namespace.is_empty() {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                        .to_owned(),
                );
            }
        }
        let name = text(&reference["name"]);
        let found: Vec<Arc<Value>> = if name.is_empty() {
            let selector = LabelSelector::from_object(&reference["selector"])?;
            let all = self.context.reader.list(of, &namespace);
            all.into_iter().filter(|param| selector.matches(&param["metadata"]["labels"])).collect()
        } else {
            self.context.reader.get(of, &namespace, &name).into_iter().collect()
        };
        if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
            return Err(NO_PARAMS.to_owned());
        }
        Ok(found.into_iter().map(Some).collect())
    }

    /// The resource of a kind, built-in or custom, and whether it lives in namespaces.
    fn resource(&self, version: &str, kind: &str) -> Option<(GroupResource, bool)> {
        if let Some(row) = kinds::by_gvk(version, kind) {
            return Some((row.group_resource(), row.namespaced));
        }
        let (group, version) = version.split_once('/')?;
        let definitions = self.context.list("apiextensions.k8s.io", "customresourcedefinitions", "");
        let definition = definitions.iter().find(|definition| {
            let spec = &definition["spec"];
            let mut versions = spec["versions"].as_array().into_iter().flatten();
            spec["group"] == group
                && spec["names"]["kind"] == kind
                && versions.any(|own| own["name"] == version && own["served"] == true)
        })?;
        let spec = &definition["spec"];
        let plural = spec["names"]["plural"].as_str().unwrap_or_default();
        Some((GroupResource::new(group, plural), spec["scope"] == "Namespaced"))
    }
}

/// Whether a made message can be shown.
fn is_message(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_MAX
}
