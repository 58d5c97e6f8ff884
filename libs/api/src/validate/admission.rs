//! Webhook configurations, ValidatingAdmissionPolicy and its binding.

use super::node::{Faults, Node, quoted_list};
use super::selectors;
use crate::expression::{self, Compiled};
use crate::labels;
use serde_json::json;

const FAILURE: [&str; 2] = ["Fail", "Ignore"];
const MATCH: [&str; 2] = ["Equivalent", "Exact"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const MAX_CONDITIONS: usize = 64;
const MAX_AUDIT_ANNOTATIONS: usize = 20;

pub(super) fn webhooks(object: &Node<'_, '_>, out: &mut Faults) {
    let mut seen: Vec<&str> = Vec::new();
    let hooks = object.get("webhooks");
    for hook in hooks.items() {
        webhook(&hook, out);
        let name = hook.get("name");
        if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.push(name.text());
    }
}

pub(super) fn webhooks_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    but_what_was(new, old, webhooks, out);
}

/// Faults that an object did not have before: what could be stored once may stay.
fn but_what_was(
    new: &Node<'_, '_>,
    old: &Node<'_, '_>,
    judge: fn(&Node<'_, '_>, &mut Faults),
    out: &mut Faults,
) {
    let (mut faults, mut known) = (Faults::new(), Faults::new());
    judge(new, &mut faults);
    if faults.is_empty() {
        return;
    }
    judge(old, &mut known);
    out.extend(faults.into_iter().filter(|fault| !known.contains(fault)));
}

fn webhook(hook: &Node<'_, '_>, out: &mut Faults) {
    let name = hook.get("name");
    if name.is_empty() {
        name.required("", out);
    } else {
        let complaints = labels::is_dns1123_subdomain(name.text());
        let fine = complaints.is_empty();
        complaints.into_iter().for_each(|complaint| name.invalid(complaint, out));
        if fine && name.text().split('.').count() < 3 {
            name.invalid("should be a domain with at least three segments separated by dots", out);
        }
    }
    review_versions(&hook.get("admissionReviewVersions"), out);
    hook.get("rules").items().for_each(|rule| operations_rule(&rule, out));
    hook.get("failurePolicy").may_be_one_of(&FAILURE, out);
    hook.get("matchPolicy").may_be_one_of(&MATCH, out);
    let effects = hook.get("sideEffects");
    if effects.is_empty() {
        effects.required(format!("must specify one of {}", SIDE_EFFECTS.join(", ")), out);
    } else {
        effects.must_be_one_of(&SIDE_EFFECTS, out);
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.is_set() && !(1..=30).contains(&timeout.int()) {
        timeout.invalid("the timeout value must be between 1 and 30 seconds", out);
    }
    hook.get("reinvocationPolicy").may_be_one_of(&["IfNeeded", "Never"], out);
    for key in ["namespaceSelector", "objectSelector"] {
        selectors::labels(&hook.get(key), out);
    }
    let client = hook.get("clientConfig");
    if client.get("url").is_set() == client.get("service").is_set() {
        client.required("exactly one of url or service is required", out);
    } else {
        self::client(&client, out);
    }
    let list = hook.get("matchConditions");
    conditions(&list, out);
    for (condition, compiled) in list.items().zip(&expression::conditions(list.value)) {
        readable(&condition.get("expression"), compiled, out);
    }
}

/// Where a webhook is called.
pub(super) fn client(client: &Node<'_, '_>, out: &mut Faults) {
    let (url, service) = (client.get("url"), client.get("service"));
    if url.is_set() {
        let text = url.text();
        if !text.starts_with("https://") {
            let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
            let detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
            url.invalid_as(&json!(scheme), detail, out);
        } else if text.trim_start_matches("https://").split('/').next().is_none_or(str::is_empty) {
            url.invalid_as(&json!(""), "host must be specified; desired format: https://host[/path]", out);
        }
    }
    if service.is_set() {
        for key in ["name", "namespace"] {
            if service.get(key).is_empty() {
                service.get(key).required(format!("service {key} is required"), out);
            }
        }
        let (path, port) = (service.get("path"), service.get("port"));
        if path.is_set() && !path.text().starts_with('/') {
            path.invalid("must start with a '/'", out);
        }
        if port.is_set() && !(1..=65535).contains(&port.int()) {
            port.invalid("port is not valid: must be between 1 and 65535, inclusive", out);
        }
    }
}

fn review_versions(versions: &Node<'_, '_>, out: &mut Faults) {
    let known = || quoted_list(&REVIEW_VERSIONS).replace('"', "");
    if versions.is_empty() {
        return versions.required(format!("must specify one of {}", known()), out);
    }
    let mut seen: Vec<&str> = Vec::new();
    for version in versions.items() {
        if seen.contains(&version.text()) {
            version.invalid("duplicate version", out);
        }
        version.text_must(labels::is_dns1035_label, out);
        seen.push(version.text());
    }
    if !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        versions.invalid(format!("must include at least one of {}", known()), out);
    }
}

fn operations_rule(rule: &Node<'_, '_>, out: &mut Faults) {
    let operations = rule.get("operations");
    operations.must_be_given(out);
    star_alone(&operations, "operations", out);
    operations.items().for_each(|operation| operation.must_be_one_of(&OPERATIONS, out));
    for (key, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = rule.get(key);
        list.must_be_given(out);
        star_alone(&list, what, out);
    }
    rule.get("apiVersions")
        .items()
        .filter(|version| version.is_empty())
        .for_each(|version| version.required("", out));
    resources(&rule.get("resources"), out);
    rule.get("scope").may_be_one_of(&["*", "Cluster", "Namespaced"], out);
}

fn star_alone(list: &Node<'_, '_>, what: &str, out: &mut Faults) {
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        list.invalid(format!("if '*' is present, must not specify other {what}"), out);
    }
}

fn resources(resources: &Node<'_, '_>, out: &mut Faults) {
    resources.must_be_given(out);
    let has = |name: &str| resources.items().any(|resource| resource.text() == name);
    for resource in resources.items() {
        let Some((name, sub)) = resource.text().split_once('/') else {
            if resource.is_empty() {
                resource.required("", out);
            }
            continue;
        };
        if sub != "*" && name != "*" && has(&format!("{name}/*")) {
            resource.invalid(format!("if '{name}/*' is present, must not specify {}", resource.text()), out);
        }
        if name != "*" && sub != "*" && has(&format!("*/{sub}")) {
            resource.invalid(format!("if '*/{sub}' is present, must not specify {}", resource.text()), out);
        }
    }
    if has("*/*") && resources.len() > 1 {
        resources.invalid("if '*/*' is present, must not specify other resources", out);
    }
    if has("*") && resources.items().any(|resource| resource.text() != "*" && !resource.text().contains('/'))
    {
        resources.invalid("if '*' is present, must not specify other resources without subresources", out);
    }
}

fn conditions(conditions: &Node<'_, '_>, out: &mut Faults) {
    if conditions.len() > MAX_CONDITIONS {
        conditions.too_many(MAX_CONDITIONS, out);
    }
    let mut seen: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        if expression.text().trim().is_empty() {
            expression.required("", out);
        }
        name.required_text(labels::is_qualified_name, out);
        if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.push(name.text());
    }
}

/// Tells what is wrong with the expression at a place.
fn readable(place: &Node<'_, '_>, compiled: &Compiled, out: &mut Faults) {
    if let Err(why) = compiled
        && !place.text().trim().is_empty()
    {
        place.invalid(why.as_str(), out);
    }
}

/// Reads the expressions of a policy.
fn expressions(spec: &Node<'_, '_>, out: &mut Faults) {
    let policy = expression::Policy::compile(spec.value, None, None);
    for (variable, (_, compiled)) in spec.get("variables").items().zip(&policy.variables) {
        readable(&variable.get("expression"), compiled, out);
    }
    for (condition, compiled) in spec.get("matchConditions").items().zip(&policy.conditions) {
        readable(&condition.get("expression"), compiled, out);
    }
    for (validation, (compiled, message)) in spec.get("validations").items().zip(&policy.validations) {
        readable(&validation.get("expression"), compiled, out);
        if let Some(message) = message {
            readable(&validation.get("messageExpression"), message, out);
        }
    }
    for (annotation, compiled) in spec.get("auditAnnotations").items().zip(&policy.annotations) {
        readable(&annotation.get("valueExpression"), compiled, out);
    }
}

pub(super) fn policy(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    spec.get("failurePolicy").required_one_of(&FAILURE, out);
    let kind = spec.get("paramKind");
    if kind.is_set() {
        for key in ["apiVersion", "kind"] {
            kind.get(key).must_be_given(out);
        }
    }
    let constraints = spec.get("matchConstraints");
    if constraints.is_set() {
        match_resources(&constraints, out);
        if constraints.get("resourceRules").is_empty() {
            constraints.get("resourceRules").required("", out);
        }
    } else {
        constraints.required("", out);
    }
    conditions(&spec.get("matchConditions"), out);
    for variable in spec.get("variables").items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if name.is_empty() {
            name.required("name is not specified", out);
        } else if !labels::is_c_identifier(name.text()).is_empty() {
            name.invalid("name is not a valid CEL identifier", out);
        }
        if expression.text().trim().is_empty() {
            expression.required("expression is not specified", out);
        }
    }
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for list in [&validations, &annotations] {
            list.required("validations or auditAnnotations must contain at least one item", out);
        }
    }
    validations.items().for_each(|validation| self::validation(&validation, out));
    audit_annotations(&annotations, out);
    expressions(&spec, out);
}

fn validation(validation: &Node<'_, '_>, out: &mut Faults) {
    let (expression, message) = (validation.get("expression"), validation.get("message"));
    if expression.text().trim().is_empty() {
        expression.required("expression is not specified", out);
    }
    let alternative = validation.get("messageExpression");
    if !alternative.text().is_empty() && alternative.text().trim().is_empty() {
        alternative.invalid("must be non-empty if specified", out);
    }
    if !message.text().is_empty() && message.text().trim().is_empty() {
        message.invalid("message must be non-empty if specified", out);
    } else if message.text().contains(['\n', '\r']) {
        message.invalid("message must not contain line breaks", out);
    } else if message.is_empty() && expression.text().trim().contains(['\n', '\r']) {
        message.required("message must be specified if expression contains line breaks", out);
    }
    let reasons = ["Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge"];
    validation.get("reason").may_be_one_of(&reasons, out);
}

fn audit_annotations(annotations: &Node<'_, '_>, out: &mut Faults) {
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        annotations.invalid(format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations"), out);
    }
    let mut seen: Vec<&str> = Vec::new();
    for annotation in annotations.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        key.text_must(labels::is_qualified_name, out);
        if value.text().trim().is_empty() {
            value.required("valueExpression is not specified", out);
        }
        if seen.contains(&key.text()) {
            key.duplicate(out);
        }
        seen.push(key.text());
    }
}

fn match_resources(resources: &Node<'_, '_>, out: &mut Faults) {
    resources.get("matchPolicy").required_one_of(&MATCH, out);
    for key in ["namespaceSelector", "objectSelector"] {
        let selector = resources.get(key);
        if selector.is_set() {
            selectors::labels(&selector, out);
        } else {
            selector.required("", out);
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        resources.get(list).items().for_each(|rule| operations_rule(&rule, out));
    }
}

pub(super) fn policy_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource.is_empty() {
        but_what_was(new, old, policy, out);
    }
}

pub(super) fn binding(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    spec.get("policyName").required_text(labels::is_dns1123_subdomain, out);
    let parameters = spec.get("paramRef");
    if parameters.is_set() {
        param_ref(&parameters, out);
    }
    let resources = spec.get("matchResources");
    if resources.is_set() {
        match_resources(&resources, out);
    }
    let actions = spec.get("validationActions");
    let mut seen: Vec<&str> = Vec::new();
    for action in actions.items() {
        action.must_be_one_of(&["Audit", "Deny", "Warn"], out);
        if seen.contains(&action.text()) {
            action.duplicate(out);
        }
        seen.push(action.text());
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        actions.invalid(detail, out);
    }
    if actions.is_empty() {
        actions.required("at least one validation action is required", out);
    }
}

fn param_ref(reference: &Node<'_, '_>, out: &mut Faults) {
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    match (name.is_empty(), selector.is_set()) {
        (true, false) => reference.required("one of name or selector must be specified", out),
        (false, true) => {
            for field in [&name, &selector] {
                field.forbidden("name and selector are mutually exclusive", out);
            }
        }
        _ => {}
    }
    reference.get("parameterNotFoundAction").required_one_of(&["Allow", "Deny"], out);
}

pub(super) fn binding_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    binding(new, out);
}
