//! Roles and bindings.

use super::node::{Faults, Node};
use super::selectors;
use crate::labels;
use crate::strategy::same;
use serde_json::json;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(object: &Node<'_, '_>, out: &mut Faults) {
    object.get("rules").items().for_each(|rule| policy_rule(&rule, true, out));
}

pub(super) fn cluster_role(object: &Node<'_, '_>, out: &mut Faults) {
    object.get("rules").items().for_each(|rule| policy_rule(&rule, false, out));
    let aggregation = object.get("aggregationRule");
    if aggregation.is_set() {
        let list = aggregation.get("clusterRoleSelectors");
        if list.is_empty() {
            list.required("at least one clusterRoleSelector required if aggregationRule is non-nil", out);
        }
        for selector in list.items() {
            selectors::labels(&selector, out);
            if !selectors::is_readable(&selector) {
                selector.invalid_as(&json!("null"), "invalid label selector.", out);
            }
        }
    }
}

fn policy_rule(rule: &Node<'_, '_>, namespaced: bool, out: &mut Faults) {
    let (verbs, urls) = (rule.get("verbs"), rule.get("nonResourceURLs"));
    let (groups, resources) = (rule.get("apiGroups"), rule.get("resources"));
    if verbs.is_empty() {
        verbs.required("verbs must contain at least one value", out);
    }
    if !urls.is_empty() {
        if namespaced {
            urls.invalid("namespaced rules cannot apply to non-resource URLs", out);
        }
        if !groups.is_empty() || !resources.is_empty() || !rule.get("resourceNames").is_empty() {
            urls.invalid("rules cannot apply to both regular resources and non-resource URLs", out);
        }
        return;
    }
    if groups.is_empty() {
        groups.required("resource rules must supply at least one api group", out);
    }
    if resources.is_empty() {
        resources.required("resource rules must supply at least one resource", out);
    }
}

pub(super) fn role_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    super::twice(|out| role(new, out), out);
}

pub(super) fn cluster_role_update(new: &Node<'_, '_>, _: &Node<'_, '_>, _: &str, out: &mut Faults) {
    super::twice(|out| cluster_role(new, out), out);
}

pub(super) fn binding(object: &Node<'_, '_>, out: &mut Faults) {
    role_ref(object, &["Role", "ClusterRole"], out);
    object.get("subjects").items().for_each(|subject| self::subject(&subject, true, out));
}

pub(super) fn cluster_binding(object: &Node<'_, '_>, out: &mut Faults) {
    role_ref(object, &["ClusterRole"], out);
    object.get("subjects").items().for_each(|subject| self::subject(&subject, false, out));
}

fn role_ref(object: &Node<'_, '_>, kinds: &[&str], out: &mut Faults) {
    let role = object.get("roleRef");
    role.get("apiGroup").must_be_one_of(&[GROUP], out);
    role.get("kind").must_be_one_of(kinds, out);
    role.get("name").required_text(labels::is_path_segment_name, out);
}

/// In a namespace, an account without one is of that namespace.
fn subject(subject: &Node<'_, '_>, namespaced: bool, out: &mut Faults) {
    let (name, group, kind) = (subject.get("name"), subject.get("apiGroup"), subject.get("kind"));
    name.must_be_given(out);
    match kind.text() {
        "ServiceAccount" => {
            name.text_may(labels::is_dns1123_subdomain, out);
            if !group.is_empty() {
                group.not_supported(&[""], out);
            }
            if !namespaced && subject.get("namespace").is_empty() {
                subject.get("namespace").required("", out);
            }
        }
        "User" | "Group" => group.must_be_one_of(&[GROUP], out),
        _ => kind.not_supported(&["ServiceAccount", "User", "Group"], out),
    }
}

fn role_ref_kept(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let (role, before) = (new.get("roleRef"), old.get("roleRef"));
    if !same(role.value, before.value) {
        // Shown with the names that Kubernetes uses inside.
        let text = |key: &str| role.value[key].as_str().unwrap_or_default().to_owned();
        let shown = json!({"APIGroup": text("apiGroup"), "Kind": text("kind"), "Name": text("name")});
        role.invalid_as(&shown, "cannot change roleRef", out);
    }
}

pub(super) fn binding_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    super::twice(|out| binding(new, out), out);
    role_ref_kept(new, old, out);
}

pub(super) fn cluster_binding_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    super::twice(|out| cluster_binding(new, out), out);
    role_ref_kept(new, old, out);
}
