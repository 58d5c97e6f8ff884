//! Webhook configurations, and what their rules share with those of admission policies.

use super::node::{Faults, Node, Seen};
use super::selectors;
use crate::expression::{self, Compiled};
use crate::labels;
use crate::status::FieldError;
use serde_json::{Value, json};

pub(super) const FAILURE: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH: [&str; 2] = ["Equivalent", "Exact"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const MAX_CONDITIONS: usize = 64;

/// What stored webhooks have that new ones may not.
#[derive(Default)]
struct Tolerated {
    side_effects: bool,
    strange_reviews: bool,
    same_names: bool,
    odd_selectors: bool,
    /// Their conditions are those that are stored, and not looked at again.
    conditions: bool,
}

impl Tolerated {
    fn by(new: &Node<'_, '_>, old: &Node<'_, '_>) -> Self {
        let (hooks, stored) = (new.get("webhooks"), old.get("webhooks"));
        let mut tolerated = Self { conditions: hooks.len() == stored.len(), ..Self::default() };
        for (now, was) in hooks.items().zip(stored.items()) {
            let same = now.get("matchConditions").value == was.get("matchConditions").value;
            tolerated.conditions = tolerated.conditions && same;
        }
        let mut names = Seen::new();
        for hook in stored.items() {
            let effects = hook.get("sideEffects").text();
            tolerated.side_effects |= !SIDE_EFFECTS[..2].contains(&effects);
            let versions = hook.get("admissionReviewVersions");
            tolerated.strange_reviews |= !versions.is_empty() && !has_known_version(&versions);
            tolerated.same_names |= names.contains(&hook.get("name").text());
            names.insert(hook.get("name").text());
            let readable = |key: &str| selectors::is_readable(&hook.get(key));
            tolerated.odd_selectors |= !(readable("namespaceSelector") && readable("objectSelector"));
        }
        tolerated
    }
}

pub(super) fn webhooks(object: &Node<'_, '_>, out: &mut Faults) {
    all(object, &Tolerated::default(), out);
}

pub(super) fn webhooks_update(new: &Node<'_, '_>, old: &Node<'_, '_>, _: &str, out: &mut Faults) {
    all(new, &Tolerated::by(new, old), out);
}

fn all(object: &Node<'_, '_>, tolerated: &Tolerated, out: &mut Faults) {
    let mut seen = Seen::new();
    let hooks = object.get("webhooks");
    for hook in hooks.items() {
        webhook(&hook, tolerated, out);
        review_versions(&hook.get("admissionReviewVersions"), tolerated, out);
        let name = hook.get("name");
        if !tolerated.same_names && !name.is_empty() && seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.insert(name.text());
    }
}

fn webhook(hook: &Node<'_, '_>, tolerated: &Tolerated, out: &mut Faults) {
    qualified_name(&hook.get("name"), out);
    hook.get("rules").items().for_each(|rule| operations_rule(&rule, out));
    hook.get("failurePolicy").if_set_one_of(&FAILURE, out);
    hook.get("matchPolicy").if_set_one_of(&MATCH, out);
    let allowed = if tolerated.side_effects { &SIDE_EFFECTS[..] } else { &SIDE_EFFECTS[..2] };
    let effects = hook.get("sideEffects");
    if effects.is_set() {
        effects.must_be_one_of(allowed, out);
    } else {
        effects.required(format!("must specify one of {}", allowed.join(", ")), out);
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.is_set() && !(1..=30).contains(&timeout.int()) {
        timeout.invalid("the timeout value must be between 1 and 30 seconds", out);
    }
    for key in ["namespaceSelector", "objectSelector"] {
        selectors::labels_but_values(&hook.get(key), tolerated.odd_selectors, out);
    }
    hook.get("reinvocationPolicy").if_set_one_of(&["IfNeeded", "Never"], out);
    let client = hook.get("clientConfig");
    if client.get("url").is_set() == client.get("service").is_set() {
        client.required("exactly one of url or service is required", out);
    } else {
        self::client(&client, out);
    }
    if !tolerated.conditions {
        let list = hook.get("matchConditions");
        conditions(&list, &expression::conditions(list.value), out);
    }
}

/// A domain name of at least three labels.
fn qualified_name(name: &Node<'_, '_>, out: &mut Faults) {
    let complaints = labels::is_dns1123_subdomain(name.text());
    if name.is_empty() {
        name.required("", out);
    } else if !complaints.is_empty() {
        name.invalid(complaints.join(","), out);
    } else if name.text().split('.').count() < 3 {
        name.invalid("should be a domain with at least three segments separated by dots", out);
    }
}

/// Where a webhook is called.
pub(super) fn client(client: &Node<'_, '_>, out: &mut Faults) {
    let (url, service) = (client.get("url"), client.get("service"));
    if url.is_set() {
        self::url(&url, out);
    }
    if !service.is_set() {
        return;
    }
    // Kubernetes takes the one for the other.
    for (key, told) in [("namespace", "name"), ("name", "namespace")] {
        if service.get(key).is_empty() {
            service.get(told).required(format!("service {told} is required"), out);
        }
    }
    let (path, port) = (service.get("path"), service.get("port"));
    if port.is_set() && !(1..=65535).contains(&port.int()) {
        port.invalid("port is not valid: must be between 1 and 65535, inclusive", out);
    }
    match path.text() {
        "" | "/" => {}
        "//" => path.invalid("segment[0] may not be empty", out),
        text => service_path(&path, text, out),
    }
}

/// A path of domain names; one slash may end it.
fn service_path(path: &Node<'_, '_>, text: &str, out: &mut Faults) {
    if !text.starts_with('/') {
        path.invalid("must start with a '/'", out);
    }
    let first = text.chars().next().map_or(0, char::len_utf8);
    let steps = &text[first..];
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            path.invalid(format!("segment[{i}] may not be empty"), out);
            continue;
        }
        for complaint in labels::is_dns1123_subdomain(step) {
            path.invalid(format!("segment[{i}]: {complaint}"), out);
        }
    }
}

/// `https://host[:port][/path]`.
fn url(place: &Node<'_, '_>, out: &mut Faults) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = place.text();
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    if rest.starts_with(':') {
        let told = format!("url must be a valid URL: parse {text:?}: missing protocol scheme{FORM}");
        return place.required(told, out);
    }
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let mut told = |shown: &str, detail: String| place.invalid_as(&json!(shown), detail, out);
    if scheme != "https" {
        told(&scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        told("", format!("host must be specified{FORM}"));
    }
    for (shown, what) in [
        (user, "user information is"),
        (Some(fragment), "fragments are"),
        (Some(query), "query parameters are"),
    ] {
        if let Some(shown) = shown.filter(|shown| user == Some(*shown) || !shown.is_empty()) {
            told(shown, format!("{what} not permitted in the URL"));
        }
    }
}

pub(super) fn has_known_version(versions: &Node<'_, '_>) -> bool {
    versions.items().any(|version| REVIEW_VERSIONS.contains(&version.text()))
}

fn review_versions(versions: &Node<'_, '_>, tolerated: &Tolerated, out: &mut Faults) {
    if versions.is_empty() {
        return versions.required(format!("must specify one of {}", known_versions()), out);
    }
    self::versions(versions, !tolerated.strange_reviews, out);
}

fn known_versions() -> String {
    REVIEW_VERSIONS.join(", ")
}

/// Versions of reviews, which one of them must be known of.
pub(super) fn versions(versions: &Node<'_, '_>, one_known: bool, out: &mut Faults) {
    let mut seen = Seen::new();
    for version in versions.items() {
        if seen.contains(&version.text()) {
            version.invalid("duplicate version", out);
            continue;
        }
        version.text_must(labels::is_dns1035_label, out);
        seen.insert(version.text());
    }
    if one_known && !has_known_version(versions) {
        versions.invalid(format!("must include at least one of {}", known_versions()), out);
    }
}

pub(super) fn operations_rule(rule: &Node<'_, '_>, out: &mut Faults) {
    let operations = rule.get("operations");
    operations.must_be_given(out);
    star_alone(&operations, "operations", out);
    operations.items().for_each(|operation| operation.must_be_one_of(&OPERATIONS, out));
    for (key, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = rule.get(key);
        list.must_be_given(out);
        star_alone(&list, what, out);
    }
    let versions = rule.get("apiVersions");
    versions.items().filter(|version| version.is_empty()).for_each(|version| version.required("", out));
    resources(&rule.get("resources"), out);
    rule.get("scope").if_set_one_of(&["*", "Cluster", "Namespaced"], out);
}

fn star_alone(list: &Node<'_, '_>, what: &str, out: &mut Faults) {
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        list.invalid(format!("if '*' is present, must not specify other {what}"), out);
    }
}

fn resources(resources: &Node<'_, '_>, out: &mut Faults) {
    resources.must_be_given(out);
    // The resources of which all subresources were listed so far, and the subresources of all resources.
    let (mut whole, mut everywhere) = (Seen::new(), Seen::new());
    let mut plain = false;
    for resource in resources.items() {
        let text = resource.text();
        let Some((name, sub)) = text.split_once('/') else {
            if text.is_empty() {
                resource.required("", out);
            } else {
                plain = text != "*";
            }
            continue;
        };
        if whole.contains(&name) {
            resource.invalid(format!("if '{name}/*' is present, must not specify {text}"), out);
        }
        if everywhere.contains(&sub) {
            resource.invalid(format!("if '*/{sub}' is present, must not specify {text}"), out);
        }
        whole.extend((sub == "*").then_some(name));
        everywhere.extend((name == "*").then_some(sub));
    }
    let has = |name: &str| resources.items().any(|resource| resource.text() == name);
    if has("*/*") && resources.len() > 1 {
        resources.invalid("if '*/*' is present, must not specify other resources", out);
    }
    if has("*") && plain {
        resources.invalid("if '*' is present, must not specify other resources without subresources", out);
    }
}

/// Tells what is wrong with an expression.
pub(super) fn unusable(place: &Node<'_, '_>, text: &Value, why: &str, out: &mut Faults) {
    if why.starts_with(expression::UNINSTANTIATED) {
        out.push(FieldError::internal(place.path(), why));
    } else {
        place.invalid_as(text, why, out);
    }
}

/// Conditions and what came of reading their expressions.
pub(super) fn conditions(conditions: &Node<'_, '_>, compiled: &[Compiled], out: &mut Faults) {
    if conditions.len() > MAX_CONDITIONS {
        conditions.too_many(MAX_CONDITIONS, out);
    }
    let mut seen = Seen::new();
    for (condition, compiled) in conditions.items().zip(compiled) {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        let trimmed = Value::from(expression.text().trim());
        if trimmed == "" {
            expression.required("", out);
        } else if let Err(why) = compiled {
            unusable(&expression, &trimmed, why, out);
        }
        name.required_text(labels::is_qualified_name, out);
        if !name.is_empty() && seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.insert(name.text());
    }
}
