//! CustomResourceDefinition: names, versions, and the structure of schemas.

use super::crd_lists as lists;
use super::crd_rules as rules;
use super::hooks;
use super::node::{Faults, IMMUTABLE, Node};
use crate::labels;
use crate::status::{ErrorType, FieldError};
use serde_json::{Value, json};

const APPROVAL: &str = "api-approved.kubernetes.io";
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];

pub(super) fn create(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let name = object.get("metadata.name");
    let wanted = format!("{}.{}", spec.get("names.plural").text(), spec.get("group").text());
    if name.text() != wanted {
        name.invalid("must be spec.names.plural+\".\"+spec.group", out);
    }
    spec_rules(&spec, out);
    let stored = object.get("status.storedVersions");
    if stored.is_empty() {
        let shown = json!(null);
        stored.invalid_as(&shown, "must have at least one stored version", out);
    }
    approval(object, out);
    if spec.get("preserveUnknownFields").is_true() {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        spec.get("preserveUnknownFields").invalid(detail, out);
    }
}

/// Groups of the Kubernetes project are only for what it has reviewed.
fn approval(object: &Node<'_, '_>, out: &mut Faults) {
    let group = object.get("spec.group");
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|suffix| {
        group.text() == *suffix || group.text().strip_suffix(suffix).is_some_and(|head| head.ends_with('.'))
    });
    let annotations = object.get("metadata.annotations");
    let note = annotations.key(APPROVAL);
    if protected && note.is_empty() {
        let detail = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
        note.required(detail, out);
    } else if protected && !note.text().starts_with("unapproved") && !note.text().contains("://") {
        let detail = "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111";
        note.invalid(detail, out);
    }
}

fn spec_rules(spec: &Node<'_, '_>, out: &mut Faults) {
    let group = spec.get("group");
    if group.is_empty() {
        group.required("", out);
    } else {
        let complaints = labels::is_dns1123_subdomain(group.text());
        if !complaints.is_empty() {
            group.invalid(complaints.join(","), out);
        } else if !group.text().contains('.') {
            group.invalid("should be a domain with at least one dot", out);
        }
    }
    let scope = spec.get("scope");
    scope.required_one_of(&["Cluster", "Namespaced"], out);
    versions(spec, out);
    let names = spec.get("names");
    for key in ["plural", "singular", "kind", "listKind"] {
        names.get(key).must_be_given(out);
    }
    resource_names(&names, out);
    conversion(&spec.get("conversion"), out);
}

fn versions(spec: &Node<'_, '_>, out: &mut Faults) {
    let versions = spec.get("versions");
    let (mut seen, mut stored): (Vec<&str>, usize) = Default::default();
    let mut unique = true;
    let single = versions.len() == 1;
    for version in versions.items() {
        let name = version.get("name");
        let complaints = labels::is_dns1035_label(name.text());
        if !complaints.is_empty() {
            name.invalid_as(&json!(name.text()), complaints.join(","), out);
        }
        stored += usize::from(version.get("storage").is_true());
        unique &= !seen.contains(&name.text());
        seen.push(name.text());
        let schema = version.get("schema.openAPIV3Schema");
        if !schema.is_set() {
            schema.required("schemas are required", out);
        }
        // A lone version is told under `validation`, where it stood before versions had schemas of their own.
        let place = if single { spec.named("validation.openAPIV3Schema", schema.value) } else { schema };
        if schema.is_set() {
            let known = out.len();
            root_schema(&place, out);
            // Rules are read only where the schema itself is right.
            if out.len() == known {
                rules::read(&place, out);
            }
        }
        lists::selectable(&version.get("selectableFields"), schema.value, out);
        columns(&version.get("additionalPrinterColumns"), out);
        subresources(&version.get("subresources"), out);
    }
    if !unique {
        versions.invalid("must contain unique version names", out);
    }
    if stored != 1 {
        let shown = if versions.is_empty() { json!([]) } else { versions.value.clone() };
        versions.invalid_as(&shown, "must have exactly one version marked as storage version", out);
    }
}

fn resource_names(names: &Node<'_, '_>, out: &mut Faults) {
    let label = |field: &Node<'_, '_>, out: &mut Faults| {
        let complaints = labels::is_dns1035_label(field.text());
        if !field.is_empty() && !complaints.is_empty() {
            field.invalid(complaints.join(","), out);
        }
    };
    for key in ["plural", "singular"] {
        label(&names.get(key), out);
    }
    for key in ["kind", "listKind"] {
        let field = names.get(key);
        let complaints = labels::is_dns1035_label(&field.text().to_lowercase());
        if !field.is_empty() && !complaints.is_empty() {
            field.invalid(
                format!("may have mixed case, but should otherwise match: {}", complaints.join(",")),
                out,
            );
        }
    }
    for list in ["shortNames", "categories"] {
        names.get(list).items().for_each(|name| label(&name, out));
    }
    let (kind, list) = (names.get("kind"), names.get("listKind"));
    if !kind.is_empty() && kind.value == list.value {
        list.invalid("kind and listKind may not be the same", out);
    }
}

fn columns(columns: &Node<'_, '_>, out: &mut Faults) {
    for column in columns.items() {
        column.get("name").must_be_given(out);
        let (kind, path) = (column.get("type"), column.get("jsonPath"));
        let known = || format!("must be one of {}", COLUMN_TYPES.join(","));
        if kind.is_empty() {
            kind.required(known(), out);
        } else if !COLUMN_TYPES.contains(&kind.text()) {
            kind.invalid(known(), out);
        }
        if path.is_empty() {
            column.named("JSONPath", path.value).required("", out);
        }
    }
}

fn subresources(subresources: &Node<'_, '_>, out: &mut Faults) {
    let scale = subresources.get("scale");
    if !scale.is_set() {
        return;
    }
    for (key, under) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let path = scale.get(key);
        if path.must_be_given(out) && !path.text().starts_with(under) {
            path.invalid(format!("should be a json path under {}", under.trim_end_matches('.')), out);
        }
    }
    let selector = scale.get("labelSelectorPath");
    if !selector.is_empty() && ![".spec.", ".status."].iter().any(|under| selector.text().starts_with(under))
    {
        selector.invalid("should be a json path under either .spec or .status", out);
    }
}

fn conversion(conversion: &Node<'_, '_>, out: &mut Faults) {
    let webhook = conversion.get("webhook");
    match conversion.get("strategy").text() {
        "Webhook" => {
            let client = webhook.get("clientConfig");
            if !client.is_set() {
                conversion
                    .get("webhookClientConfig")
                    .required("required when strategy is set to Webhook", out);
            } else if client.get("url").is_set() == client.get("service").is_set() {
                conversion
                    .get("webhookClientConfig")
                    .required("exactly one of url or service is required", out);
            } else {
                hooks::client(&conversion.named("webhookClientConfig", client.value), out);
            }
            if webhook.get("conversionReviewVersions").is_empty() {
                conversion.get("conversionReviewVersions").required("", out);
            }
        }
        "None" if webhook.is_set() => {
            conversion
                .get("webhookClientConfig")
                .forbidden("should not be set when strategy is not set to Webhook", out);
        }
        "None" => {}
        "" => conversion.get("strategy").required("", out),
        _ => conversion.get("strategy").not_supported(&["None", "Webhook"], out),
    }
}

fn root_schema(schema: &Node<'_, '_>, out: &mut Faults) {
    let kind = schema.get("type");
    if kind.is_empty() && !schema.get("x-kubernetes-preserve-unknown-fields").is_true() {
        kind.required("must not be empty at the root", out);
    } else if !kind.is_empty() && kind.text() != "object" {
        kind.invalid("must be object at the root", out);
    }
    if schema.get("nullable").is_true() {
        schema.get("nullable").forbidden("nullable cannot be true at the root", out);
    }
    self::schema(schema, "", out);
}

/// A part of a structural schema; `what` says whose part it is, and is empty at the root.
fn schema(schema: &Node<'_, '_>, what: &str, out: &mut Faults) {
    let kind = schema.get("type");
    let free = schema.get("x-kubernetes-preserve-unknown-fields");
    let typed_elsewhere = schema.get("x-kubernetes-int-or-string").is_true();
    if !what.is_empty() && kind.is_empty() && !free.is_true() && !typed_elsewhere {
        kind.required(format!("must not be empty for specified {what}"), out);
    }
    kind.may_be_one_of(&TYPES, out);
    if free.is_set() && !free.is_true() {
        free.invalid("must be true or undefined", out);
    }
    for key in ["$ref", "id", "patternProperties", "definitions", "dependencies", "additionalItems"] {
        if schema.get(key).is_set() {
            schema.get(key).forbidden(format!("{key} is not supported"), out);
        }
    }
    if schema.get("uniqueItems").is_true() {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        schema.get("uniqueItems").forbidden(detail, out);
    }
    let (properties, more, items) =
        (schema.get("properties"), schema.get("additionalProperties"), schema.get("items"));
    if !properties.is_empty() && more.is_set() && *more.value != false {
        more.forbidden("additionalProperties and properties are mutual exclusive", out);
    }
    for (_, property) in properties.entries() {
        self::schema(&property, "object fields", out);
    }
    if more.value.is_object() {
        self::schema(&more, "object fields", out);
    }
    match items.value {
        Value::Array(_) => items.forbidden("items must be a schema object and not an array", out),
        Value::Object(_) => self::schema(&items, "array items", out),
        _ => {}
    }
    lists::types(schema, out);
    default_type(schema, out);
    rules::written(schema, out);
}

fn default_type(schema: &Node<'_, '_>, out: &mut Faults) {
    let (default, kind) = (schema.get("default"), schema.get("type"));
    let (found, fits) = match default.value {
        Value::Null => return,
        Value::Bool(_) => ("boolean", kind.text() == "boolean"),
        Value::Number(number) => {
            ("number", kind.text() == "number" || (kind.text() == "integer" && number.is_i64()))
        }
        Value::String(_) => ("string", kind.text() == "string"),
        Value::Array(_) => ("array", kind.text() == "array"),
        Value::Object(_) => ("object", kind.text() == "object"),
    };
    if !fits && !kind.is_empty() && !schema.get("x-kubernetes-int-or-string").is_true() {
        let detail = format!(" in body must be of type {}: {}", kind.text(), json!(found));
        let fault = FieldError::invalid(default.path(), &json!(found), detail);
        out.push(FieldError { kind: ErrorType::TypeInvalid, ..fault });
    }
}

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        return;
    }
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    // What was wrong before may stay so: nothing else may keep a definition from being changed or removed.
    let (mut faults, mut known) = (Faults::new(), Faults::new());
    spec_rules(&spec, &mut faults);
    spec_rules(&stored, &mut known);
    out.extend(faults.into_iter().filter(|fault| !known.contains(fault)));
    for key in ["group", "names.plural"] {
        spec.get(key).same_as(&stored.get(key), out);
    }
    let established = old.get("status.conditions").items().any(|condition| {
        condition.get("type").text() == "Established" && condition.get("status").text() == "True"
    });
    if established {
        for key in ["scope", "names.kind"] {
            let field = spec.get(key);
            if field.value != stored.get(key).value {
                field.invalid(IMMUTABLE, out);
            }
        }
    }
    let versions = spec.get("versions");
    let stored_versions = new.get("status.storedVersions");
    for stored in stored_versions.items() {
        if !versions.items().any(|version| version.get("name").value == stored.value) {
            let name = stored.text();
            stored.invalid(
                format!("missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"),
                out,
            );
        }
    }
    approval(new, out);
}
