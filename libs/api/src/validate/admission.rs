//! ValidatingAdmissionPolicy and its binding.

use super::hooks::{self, FAILURE, MATCH, conditions, operations_rule};
use super::node::{Faults, Node, Seen};
use super::{meta, selectors};
use crate::expression::{self, Compiled, Policy};
use crate::labels;
use serde_json::json;

const MAX_AUDIT_ANNOTATIONS: usize = 20;
const MAX_AUDIT_EXPRESSION: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

/// Tells of an expression that is blank, else of what is wrong with it.
fn expression(place: &Node<'_, '_>, compiled: &Compiled, blank: &str, out: &mut Faults) {
    if place.text().trim().is_empty() {
        place.required(blank, out);
    } else if let Err(why) = compiled {
        hooks::unusable(place, &json!(place.text()), why, out);
    }
}

pub(super) fn policy(object: &Node<'_, '_>, out: &mut Faults) {
    policy_but(object, false, out);
}

/// A policy whose conditions are those that are stored is not asked for them again.
fn policy_but(object: &Node<'_, '_>, same_conditions: bool, out: &mut Faults) {
    let spec = object.get("spec");
    let read = Policy::compile(spec.value, None, None);
    let failure = spec.get("failurePolicy");
    if failure.is_set() {
        failure.must_be_one_of(&FAILURE, out);
    } else {
        failure.required("", out);
    }
    if spec.get("paramKind").is_set() {
        param_kind(&spec.get("paramKind"), out);
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
    if !same_conditions {
        conditions(&spec.get("matchConditions"), &read.conditions, out);
    }
    for (variable, (_, compiled)) in spec.get("variables").items().zip(&read.variables) {
        let name = variable.get("name");
        if name.text().trim().is_empty() {
            name.required("name is not specified", out);
        } else if !labels::is_c_identifier(name.text()).is_empty() || expression::is_reserved(name.text()) {
            name.invalid("name is not a valid CEL identifier", out);
        }
        expression(&variable.get("expression"), compiled, "expression is not specified", out);
    }
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for list in [&validations, &annotations] {
            list.required("validations or auditAnnotations must contain at least one item", out);
        }
        return;
    }
    for (validation, (compiled, message)) in validations.items().zip(&read.validations) {
        self::validation(&validation, compiled, message.as_ref(), out);
    }
    audit_annotations(&annotations, object.get("metadata.name").text(), &read.annotations, out);
}

fn param_kind(given: &Node<'_, '_>, out: &mut Faults) {
    let (group_version, kind) = (given.get("apiVersion"), given.get("kind"));
    let text = group_version.text();
    let (group, version) = text.split_once('/').unwrap_or(("", text));
    if text.is_empty() {
        group_version.required("", out);
    } else if version.contains('/') {
        group_version.invalid(format!("unexpected GroupVersion string: {text}"), out);
    } else {
        let joined = |part: &str, complaints: Vec<String>, out: &mut Faults| {
            if !complaints.is_empty() {
                group_version.invalid_as(&json!(part), complaints.join(","), out);
            }
        };
        if !group.is_empty() {
            joined(group, labels::is_dns1123_subdomain(group), out);
        }
        if version.is_empty() {
            group_version.invalid("version must be specified", out);
        } else {
            joined(version, labels::is_dns1035_label(version), out);
        }
    }
    if kind.must_be_given(out) {
        let complaints = labels::is_dns1035_label(&kind.text().to_lowercase());
        if !complaints.is_empty() {
            let told = complaints.join(",");
            kind.invalid(format!("may have mixed case, but should otherwise match: {told}"), out);
        }
    }
}

fn validation(place: &Node<'_, '_>, compiled: &Compiled, told: Option<&Compiled>, out: &mut Faults) {
    expression(&place.get("expression"), compiled, "expression is not specified", out);
    let (message, alternative) = (place.get("message"), place.get("messageExpression"));
    if !alternative.text().is_empty() && alternative.text().trim().is_empty() {
        alternative.invalid("must be non-empty if specified", out);
    } else if let Some(Err(why)) = told {
        hooks::unusable(&alternative, &json!(alternative.text()), why, out);
    }
    if !message.text().is_empty() && message.text().trim().is_empty() {
        message.invalid("message must be non-empty if specified", out);
    } else if message.text().trim().contains(['\n', '\r']) {
        message.invalid("message must not contain line breaks", out);
    }
    place.get("reason").if_set_one_of(&REASONS, out);
}

fn audit_annotations(annotations: &Node<'_, '_>, policy: &str, compiled: &[Compiled], out: &mut Faults) {
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let told = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        annotations.invalid_inside_list("AuditAnnotation", told, out);
    }
    let mut seen = Seen::new();
    for (annotation, compiled) in annotations.items().zip(compiled) {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        if policy.is_empty() {
            key.invalid("requires metadata.name be non-empty", out);
        } else {
            let qualified = json!(format!("{policy}/{}", key.text()));
            key.named("", &qualified).text_must(labels::is_qualified_name, out);
        }
        if value.text().trim().len() > MAX_AUDIT_EXPRESSION {
            value.required(format!("must not exceed {MAX_AUDIT_EXPRESSION} bytes in length"), out);
        } else {
            expression(&value, compiled, "valueExpression is not specified", out);
        }
        if seen.contains(&key.text()) {
            key.duplicate(out);
        }
        seen.insert(key.text());
    }
}

fn match_resources(resources: &Node<'_, '_>, out: &mut Faults) {
    let policy = resources.get("matchPolicy");
    if policy.is_set() {
        policy.must_be_one_of(&MATCH, out);
    } else {
        policy.required("", out);
    }
    for key in ["namespaceSelector", "objectSelector"] {
        let selector = resources.get(key);
        if selector.is_set() {
            selectors::labels(&selector, out);
        } else {
            selector.required("", out);
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.get(list).items() {
            let mut seen = Seen::new();
            for name in rule.get("resourceNames").items() {
                name.text_must(labels::is_path_segment_name, out);
                if seen.contains(&name.text()) {
                    name.duplicate(out);
                }
                seen.insert(name.text());
            }
            operations_rule(&rule, out);
        }
    }
}

pub(super) fn policy_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        return policy_status(&new.get("status"), out);
    }
    let kept = |key: &str| new.get(key).value == old.get(key).value;
    policy_but(new, kept("spec.paramKind") && kept("spec.matchConditions"), out);
}

fn policy_status(status: &Node<'_, '_>, out: &mut Faults) {
    for warning in status.get("typeChecking.expressionWarnings").items() {
        for key in ["warning", "fieldRef"] {
            let field = warning.get(key);
            if field.is_empty() || (key == "fieldRef" && field.text().trim().is_empty()) {
                field.required("", out);
            }
        }
    }
    meta::conditions(&status.get("conditions"), out);
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
    let mut seen = Seen::new();
    for action in actions.items() {
        action.must_be_one_of(&["Audit", "Deny", "Warn"], out);
        if seen.contains(&action.text()) {
            action.duplicate(out);
        }
        seen.insert(action.text());
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
    let both = !name.is_empty() && selector.is_set();
    name.text_may(labels::is_path_segment_name, out);
    if both {
        name.forbidden("name and selector are mutually exclusive", out);
    }
    selectors::labels(&selector, out);
    if both {
        selector.forbidden("name and selector are mutually exclusive", out);
    }
    if name.is_empty() && !selector.is_set() {
        reference.required("one of name or selector must be specified", out);
    }
    reference.get("parameterNotFoundAction").required_one_of(&["Deny", "Allow"], out);
}

pub(super) fn binding_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    binding(new, out);
}
