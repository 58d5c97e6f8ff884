//! SubjectAccessReview and its kin: "may this user do that?", and the rules that a user holds.

use super::{Authorization, Mode};
use crate::request::{RequestInfo, UserInfo};
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_api::{labels, meta};
use serde_json::{Value, json};

const GROUP: &str = "authorization.k8s.io";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The user that a SubjectAccessReview asks about.
fn subject(spec: &Value) -> UserInfo {
    let extra = spec["extra"].as_object().into_iter().flatten();
    UserInfo {
        name: text(&spec["user"]),
        uid: text(&spec["uid"]),
        groups: meta::strings(&spec["groups"]).map(str::to_owned).collect(),
        extra: extra
            .map(|(key, values)| (key.clone(), meta::strings(values).map(str::to_owned).collect()))
            .collect(),
    }
}

/// A selector of fields as requests have it. What cannot be said so is left out: who asks about more is allowed no more.
fn fields(selector: &Value) -> String {
    let raw = text(&selector["rawSelector"]);
    let said = selector["requirements"].as_array().into_iter().flatten().filter_map(|one| {
        let mut values = meta::strings(&one["values"]);
        let (value, sign) = match (one["operator"].as_str()?, values.next(), values.next()) {
            ("In", Some(value), None) => (value, "="),
            ("NotIn", Some(value), None) => (value, "!="),
            _ => return None,
        };
        Some(format!("{}{sign}{value}", text(&one["key"])))
    });
    if raw.is_empty() { said.collect::<Vec<_>>().join(",") } else { raw }
}

/// What of the selectors that a review tells does not count, as it cannot be said so or read.
fn ignored(resource: &Value) -> Vec<String> {
    let raw = |key: &str| text(&resource[key]["rawSelector"]);
    let requirements = resource["fieldSelector"]["requirements"].as_array().map_or(&[][..], Vec::as_slice);
    let said = fields(&json!({"requirements": requirements}));
    let said = said.split(',').filter(|one| !one.is_empty()).count();
    let unread = [
        (
            "fieldSelector",
            FieldSelector::parse_any(&raw("fieldSelector")).is_err() || said < requirements.len(),
            said,
        ),
        ("labelSelector", LabelSelector::parse(&raw("labelSelector")).is_err(), 0),
    ];
    let told = |(key, wrong, said): (&str, bool, usize)| {
        let part = if said > 0 { "partially " } else { "" };
        wrong.then(|| format!("spec.resourceAttributes.{key} {part}ignored due to parse error"))
    };
    unread.into_iter().filter_map(told).collect()
}

/// The request that a review asks about.
fn question(spec: &Value) -> RequestInfo {
    let resource = &spec["resourceAttributes"];
    if resource.is_object() {
        return RequestInfo {
            is_resource: true,
            verb: text(&resource["verb"]),
            group: text(&resource["group"]),
            version: text(&resource["version"]),
            resource: text(&resource["resource"]),
            subresource: text(&resource["subresource"]),
            namespace: text(&resource["namespace"]),
            name: text(&resource["name"]),
            field_selector: fields(&resource["fieldSelector"]),
            label_selector: text(&resource["labelSelector"]["rawSelector"]),
            ..RequestInfo::default()
        };
    }
    let path = &spec["nonResourceAttributes"];
    RequestInfo { verb: text(&path["verb"]), path: text(&path["path"]), ..RequestInfo::default() }
}

fn faults(kind: &str, spec: &Value, namespace: &str) -> Vec<FieldError> {
    let mut faults = Vec::new();
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, true) => faults.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            &spec["nonResourceAttributes"],
            "cannot be specified in combination with resourceAttributes",
        )),
        (false, false) => faults.push(FieldError::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let named = !text(&spec["user"]).is_empty() || meta::strings(&spec["groups"]).next().is_some();
    if kind != "SelfSubjectAccessReview" && !named {
        faults.push(FieldError::invalid(
            "spec.user",
            &json!(""),
            "at least one of user or group must be specified",
        ));
    }
    faults.extend(selector_faults(&spec["resourceAttributes"]));
    if kind == "LocalSubjectAccessReview" {
        let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        if resource.is_object() && resource["namespace"].as_str().unwrap_or_default() != namespace {
            faults.push(FieldError::invalid(
                "spec.resourceAttributes.namespace",
                &json!(text(&resource["namespace"])),
                "must match metadata.namespace",
            ));
        }
        if other.is_object() {
            let why = "disallowed on this kind of request";
            faults.push(FieldError::invalid("spec.nonResourceAttributes", other, why));
        }
    }
    faults
}

/// A selector is given raw or as requirements.
fn selector_faults(resource: &Value) -> Vec<FieldError> {
    let mut faults = Vec::new();
    for key in ["fieldSelector", "labelSelector"] {
        let selector = &resource[key];
        if !selector.is_object() {
            continue;
        }
        let place = format!("spec.resourceAttributes.{key}");
        let raw = text(&selector["rawSelector"]);
        let requirements = selector["requirements"].as_array().map_or(&[][..], Vec::as_slice);
        if !raw.is_empty() && !requirements.is_empty() {
            let why = "may not specified at the same time as requirements";
            faults.push(FieldError::invalid(format!("{place}.rawSelector"), &json!(raw), why));
        }
        if raw.is_empty() && requirements.is_empty() {
            let why = format!("when {place} is specified, requirements or rawSelector is required");
            faults.push(FieldError::required(format!("{place}.requirements"), why));
        }
        for (i, requirement) in requirements.iter().enumerate() {
            faults.extend(requirement_faults(&format!("{place}.requirements[{i}]"), key, requirement));
        }
    }
    faults
}

fn requirement_faults(place: &str, selector: &str, requirement: &Value) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let (key, operator) = (text(&requirement["key"]), text(&requirement["operator"]));
    let given = meta::strings(&requirement["values"]).next().is_some();
    if selector == "fieldSelector" && key.is_empty() {
        faults.push(FieldError::required(format!("{place}.key"), "must be specified"));
    }
    let values = format!("{place}.values");
    match operator.as_str() {
        "In" | "NotIn" if !given => {
            faults
                .push(FieldError::required(&*values, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if given => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            faults.push(FieldError::forbidden(&*values, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        // Later operators of fields may come; those of labels are all known.
        _ if selector == "fieldSelector" => {}
        other => faults.push(FieldError::invalid(
            format!("{place}.operator"),
            &json!(other),
            "not a valid selector operator",
        )),
    }
    if selector == "labelSelector" {
        for complaint in labels::is_qualified_name(&key) {
            faults.push(FieldError::invalid(format!("{place}.key"), &json!(key), complaint));
        }
        for (i, value) in meta::strings(&requirement["values"]).enumerate() {
            for complaint in labels::is_valid_label_value(value) {
                faults.push(FieldError::invalid(format!("{values}[{i}]"), &json!(value), complaint));
            }
        }
    }
    faults
}

/// A review says in its spec what it asks, and in its metadata at most where.
fn metadata_faults(kind: &str, object: &Value) -> Option<FieldError> {
    let mut said = object["metadata"].clone();
    let local = kind == "LocalSubjectAccessReview";
    let said = said.as_object_mut()?;
    said.remove("managedFields");
    said.remove("creationTimestamp");
    let why = if local { "must be empty except for namespace" } else { "must be empty" };
    let more = said.keys().any(|key| !(local && key == "namespace"));
    more.then(|| FieldError::invalid("metadata", &json!(said), why))
}

/// Whether a `SubjectAccessReview`, `LocalSubjectAccessReview`, `SelfSubjectAccessReview` or `SelfSubjectRulesReview`
/// (`kind`) can be answered.
///
/// # Errors
/// 400 or 422 for a review that asks nothing or too much.
pub fn check_review(kind: &str, object: &Value) -> Result<(), Status> {
    if kind == "SelfSubjectRulesReview" {
        let asks = !text(&object["spec"]["namespace"]).is_empty();
        return if asks { Ok(()) } else { Err(Status::bad_request("no namespace on request")) };
    }
    let mut faults = faults(kind, &object["spec"], meta::namespace(object));
    faults.extend(metadata_faults(kind, object));
    if faults.is_empty() {
        return Ok(());
    }
    // Kubernetes has no name for what it refuses here.
    Err(Status::invalid(&GroupResource::new(GROUP, ""), "", &faults))
}

impl Authorization {
    /// Answers a review of `user` that was found right: the object with its `status`.
    pub async fn review(&self, kind: &str, user: &UserInfo, mut object: Value) -> Value {
        if kind == "SelfSubjectRulesReview" {
            let status = self.rules(user, &text(&object["spec"]["namespace"]));
            return json!({"kind": object["kind"], "apiVersion": object["apiVersion"], "metadata": {}, "spec": {}, "status": status});
        }
        let spec = &object["spec"];
        let subject = if kind == "SelfSubjectAccessReview" { user.clone() } else { subject(spec) };
        let (question, ignored) = (question(spec), ignored(&spec["resourceAttributes"]));
        let mut status = self.answer(&subject, &question).await;
        if !ignored.is_empty() {
            let failure = status["evaluationError"].as_str().map(str::to_owned);
            let told: Vec<String> = failure.into_iter().chain(ignored).collect();
            status["evaluationError"] = json!(told.join("; "));
        }
        object["status"] = status;
        object
    }

    async fn answer(&self, user: &UserInfo, request: &RequestInfo) -> Value {
        let (mut status, reason) = match self.judge(user, request).await {
            Ok(why) => (json!({"allowed": true}), self.reason(&why, user, request)),
            Err(refused) => {
                let mut status = json!({"allowed": false});
                if refused.denied {
                    status["denied"] = json!(true);
                }
                if let Some(failure) = refused.failure {
                    status["evaluationError"] = json!(failure);
                }
                (status, refused.reason)
            }
        };
        if !reason.is_empty() {
            status["reason"] = json!(reason);
        }
        status
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Value {
        let held = self.rbac.held(user, namespace);
        let mut errors = held.errors;
        let is_node = super::node_of(user).is_some();
        let mut incomplete = false;
        for mode in &self.modes {
            let of = match mode {
                Mode::Node if is_node => "node authorizer",
                Mode::Webhook(_) => "webhook authorizer",
                _ => continue,
            };
            incomplete = true;
            let told = format!("{of} does not support user rule resolution");
            if !errors.contains(&told) {
                errors.push(told);
            }
        }
        let (mut of_resources, mut of_paths) = (Vec::new(), Vec::new());
        for rule in held.rules {
            let list = if rule.non_resource_urls.is_empty() { &mut of_resources } else { &mut of_paths };
            list.push(rule.to_value());
        }
        let mut status =
            json!({"resourceRules": of_resources, "nonResourceRules": of_paths, "incomplete": incomplete});
        if !errors.is_empty() {
            status["evaluationError"] = json!(errors.join(", "));
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_asked_about_as_requests_say_them() {
        let rows = [
            (json!({"rawSelector": "a=b"}), "a=b"),
            (
                json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]}),
                "spec.nodeName=n",
            ),
            (
                json!({"requirements": [{"key": "a", "operator": "NotIn", "values": ["b"]}, {"key": "c", "operator": "In", "values": ["d"]}]}),
                "a!=b,c=d",
            ),
            (
                json!({"requirements": [{"key": "a", "operator": "In", "values": ["b", "c"]}, {"key": "d", "operator": "Exists"}]}),
                "",
            ),
        ];
        for (selector, want) in rows {
            assert_eq!(fields(&selector), want);
        }
    }

    #[test]
    fn values_of_labels_are_judged() {
        let one = |value: &str| json!({"key": "a", "operator": "In", "values": ["ok", value]});
        for (value, count) in [("fine", 0), ("b c", 1)] {
            let faults = requirement_faults("r", "labelSelector", &one(value));
            assert_eq!(faults.iter().filter(|fault| fault.field == "r.values[1]").count(), count, "{value}");
            assert_eq!(requirement_faults("r", "fieldSelector", &one(value)).len(), 0, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_of_selectors_is_told() {
        let fields = "spec.resourceAttributes.fieldSelector";
        let several = json!({"key": "a", "operator": "In", "values": ["b", "c"]});
        let one = json!({"key": "a", "operator": "In", "values": ["b"]});
        let rows = [
            (
                json!({"fieldSelector": {"rawSelector": "a=b"}, "labelSelector": {"rawSelector": "a in (b)"}}),
                vec![],
            ),
            (
                json!({"fieldSelector": {"rawSelector": "a"}}),
                vec![format!("{fields} ignored due to parse error")],
            ),
            (
                json!({"fieldSelector": {"requirements": [several]}}),
                vec![format!("{fields} ignored due to parse error")],
            ),
            (
                json!({"fieldSelector": {"requirements": [several, one]}}),
                vec![format!("{fields} partially ignored due to parse error")],
            ),
            (
                json!({"labelSelector": {"rawSelector": "a in"}}),
                vec!["spec.resourceAttributes.labelSelector ignored due to parse error".to_owned()],
            ),
            (json!({"verb": "get"}), vec![]),
        ];
        for (resource, want) in rows {
            assert_eq!(ignored(&resource), want, "{resource}");
        }
    }
}
