//! CustomResourceDefinition: names, versions, and how they are served.

use super::crd_lists as lists;
use super::node::{Faults, IMMUTABLE, Node, Seen};
use super::{crd_schema, hooks};
use crate::labels;
use serde_json::{Value, json};

const APPROVAL: &str = "api-approved.kubernetes.io";
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];

pub(super) fn create(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let name = object.get("metadata.name");
    let wanted = format!("{}.{}", spec.get("names.plural").text(), spec.get("group").text());
    if !name.is_empty() && name.text() != wanted {
        name.invalid("must be spec.names.plural+\".\"+spec.group", out);
    }
    spec_rules(&spec, true, out);
    resource_names(&object.get("status.acceptedNames"), out);
    stored_versions(object, out);
    approval(object, out);
    preserving(&spec, out);
}

fn preserving(spec: &Node<'_, '_>, out: &mut Faults) {
    if spec.get("preserveUnknownFields").is_true() {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        spec.get("preserveUnknownFields").invalid(detail, out);
        let strategy = spec.get("conversion.strategy");
        if strategy.is_set() && strategy.text() != "None" {
            strategy.invalid("must be None if spec.preserveUnknownFields is true", out);
        }
    }
}

/// Versions that objects are or were stored in.
fn stored_versions(object: &Node<'_, '_>, out: &mut Faults) {
    let (stored, versions) = (object.get("status.storedVersions"), object.get("spec.versions"));
    if stored.is_empty() {
        return stored.invalid_as(&Value::Null, "must have at least one stored version", out);
    }
    // One that is there twice is found once.
    let mut left: Vec<&str> = stored.items().map(|stored| stored.text()).collect();
    for version in versions.items() {
        let (name, count) = (version.get("name"), left.len());
        left.retain(|stored| *stored != name.text());
        if version.get("storage").is_true() && left.len() == count {
            stored.invalid(format!("must have the storage version {}", name.text()), out);
        }
    }
    for stored in stored.items() {
        if !versions.items().any(|version| version.get("name").value == stored.value) {
            let name = stored.text();
            stored.invalid(
                format!("missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"),
                out,
            );
        }
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

/// `known_reviews`: whether a conversion must name a version of reviews that this server speaks.
fn spec_rules(spec: &Node<'_, '_>, known_reviews: bool, out: &mut Faults) {
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
    common(spec, out);
    conversion(&spec.get("conversion"), known_reviews, out);
}

/// What all versions have the same, as one that is alone always does: it is told under the spec, where it stood before
/// versions had their own.
fn is_common(versions: &Node<'_, '_>, key: &str) -> bool {
    let mut values = versions.items().map(|version| version.get(key).value);
    let first = values.next();
    first.is_some_and(|first| !first.is_null()) && values.all(|value| Some(value) == first)
}

fn has_status(version: &Node<'_, '_>) -> bool {
    version.get("subresources.status").is_set()
}

fn common(spec: &Node<'_, '_>, out: &mut Faults) {
    let versions = spec.get("versions");
    let Some(first) = versions.items().next() else { return };
    let taken = |key: &str| if is_common(&versions, key) { first.get(key).value } else { &Value::Null };
    let schema = &taken("schema")["openAPIV3Schema"];
    if !schema.is_null() {
        let place = spec.named("validation.openAPIV3Schema", schema);
        crd_schema::of_version(&place, versions.items().any(|version| has_status(&version)), out);
    }
    subresources(&spec.named("subresources", taken("subresources")), out);
    columns(&spec.named("additionalPrinterColumns", taken("additionalPrinterColumns")), out);
    let fields = spec.named("selectableFields", taken("selectableFields"));
    if !fields.is_empty() && schema.is_null() {
        fields.invalid_as(&json!(""), "may only be set when validations.schema is included", out);
    } else if is_common(&versions, "schema") {
        lists::selectable(&fields, schema, out);
    }
}

fn versions(spec: &Node<'_, '_>, out: &mut Faults) {
    let versions = spec.get("versions");
    for version in versions.items() {
        let schema = version.get("schema.openAPIV3Schema");
        if !schema.is_set() {
            schema.required("schemas are required", out);
        }
    }
    if spec.get("preserveUnknownFields").is_true()
        && versions.items().any(|version| has_defaults(version.get("schema").value))
    {
        let detail = "must be false in order to use defaults in the schema";
        spec.get("preserveUnknownFields").invalid(detail, out);
    }
    let (mut seen, mut stored) = (Seen::new(), 0);
    let mut unique = true;
    for version in versions.items() {
        let name = version.get("name");
        let complaints = labels::is_dns1035_label(name.text());
        if !complaints.is_empty() {
            name.invalid_as(&json!(name.text()), complaints.join(","), out);
        }
        stored += usize::from(version.get("storage").is_true());
        unique &= !seen.contains(&name.text());
        seen.insert(name.text());
        self::version(&version, &versions, out);
    }
    if !unique {
        versions.invalid_shown(as_go_has_them(&versions), "must contain unique version names", out);
    }
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        versions.invalid_shown(as_go_has_them(&versions), detail, out);
    }
    // The first version was the only one once, and is told of in its old place too.
    if let Some(first) = versions.items().next().map(|version| version.get("name").text()) {
        let complaints = labels::is_dns1035_label(first);
        if !first.is_empty() && !complaints.is_empty() {
            spec.get("version").invalid_as(&json!(first), complaints.join(","), out);
        }
    }
}

/// Versions' JSON with Go's names, in their order; what they have in common stands elsewhere.
fn as_go_has_them(versions: &Node<'_, '_>) -> String {
    let one = |version: Node<'_, '_>| {
        let own = |key: &str| if is_common(versions, key) { &Value::Null } else { version.get(key).value };
        format!(
            r#"{{"Name":{},"Served":{},"Storage":{},"Deprecated":{},"DeprecationWarning":{},"Schema":{},"Subresources":{},"AdditionalPrinterColumns":{},"SelectableFields":{}}}"#,
            json!(version.get("name").text()),
            version.get("served").is_true(),
            version.get("storage").is_true(),
            version.get("deprecated").is_true(),
            version.get("deprecationWarning").value,
            own("schema"),
            own("subresources"),
            own("additionalPrinterColumns"),
            own("selectableFields"),
        )
    };
    let all: Vec<String> = versions.items().map(one).collect();
    if !versions.is_set() { "null".to_owned() } else { format!("[{}]", all.join(",")) }
}

fn has_defaults(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.iter().any(|(key, value)| (key == "default" && !value.is_object()) || has_defaults(value))
        }
        Value::Array(list) => list.iter().any(has_defaults),
        _ => false,
    }
}

/// What a version has of its own.
fn version(version: &Node<'_, '_>, versions: &Node<'_, '_>, out: &mut Faults) {
    deprecation(version, out);
    let own = |key: &str| !is_common(versions, key);
    let schema = version.get("schema.openAPIV3Schema");
    if schema.is_set() && own("schema") {
        crd_schema::of_version(&schema, has_status(version), out);
    }
    if own("subresources") {
        subresources(&version.get("subresources"), out);
    }
    if own("additionalPrinterColumns") {
        columns(&version.get("additionalPrinterColumns"), out);
    }
    let fields = version.get("selectableFields");
    if !fields.is_empty() && !schema.is_set() && own("selectableFields") {
        let detail = "selectableFields may only be set when version.schema.openAPIV3Schema is not included";
        fields.invalid_as(&json!(""), detail, out);
    } else if schema.is_set() && (own("selectableFields") || own("schema")) {
        lists::selectable(&fields, schema.value, out);
    }
}

fn deprecation(version: &Node<'_, '_>, out: &mut Faults) {
    let warning = version.get("deprecationWarning");
    let text = warning.text();
    if !warning.is_set() {
        return;
    }
    if !version.get("deprecated").is_true() {
        return warning.invalid("can only be set for deprecated versions", out);
    }
    if text.len() > 256 {
        warning.invalid("must be <= 256 characters long", out);
    }
    if text.is_empty() {
        warning.invalid("must not be an empty string", out);
    }
    if let Some((at, _)) =
        text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' '))
    {
        let told = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        );
        warning.invalid(told, out);
    }
}

fn resource_names(names: &Node<'_, '_>, out: &mut Faults) {
    let label = |field: &Node<'_, '_>, out: &mut Faults| {
        let complaints = labels::is_dns1035_label(field.text());
        if !complaints.is_empty() {
            field.invalid(complaints.join(","), out);
        }
    };
    for key in ["plural", "singular"] {
        if !names.get(key).is_empty() {
            label(&names.get(key), out);
        }
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
        let format = column.get("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format.text()) {
            format.invalid(format!("must be one of {}", COLUMN_FORMATS.join(",")), out);
        }
        let path = column.named("JSONPath", path.value);
        if path.must_be_given(out) {
            is_dotted(&path, out);
        }
    }
}

/// Whether it begins with a dot, which is told where it does not.
fn is_dotted(path: &Node<'_, '_>, out: &mut Faults) -> bool {
    let dotted = path.text().starts_with('.');
    if !dotted {
        path.invalid("must be a simple json path starting with .", out);
    }
    dotted
}

fn subresources(subresources: &Node<'_, '_>, out: &mut Faults) {
    let scale = subresources.get("scale");
    if !scale.is_set() {
        return;
    }
    for (key, under) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let path = scale.get(key);
        if path.must_be_given(out) && is_dotted(&path, out) && !path.text().starts_with(under) {
            path.invalid(format!("should be a json path under {}", under.trim_end_matches('.')), out);
        }
    }
    let selector = scale.get("labelSelectorPath");
    let under = |part: &&str| selector.text().starts_with(*part);
    if !selector.is_empty() && is_dotted(&selector, out) && ![".spec.", ".status."].iter().any(under) {
        selector.invalid("should be a json path under either .spec or .status", out);
    }
}

fn conversion(conversion: &Node<'_, '_>, known_reviews: bool, out: &mut Faults) {
    let strategy = conversion.get("strategy");
    let webhook = conversion.get("webhook");
    let client =
        conversion.named("webhookClientConfig", webhook.value.get("clientConfig").unwrap_or(&Value::Null));
    let versions = webhook.get("conversionReviewVersions");
    let versions = conversion.named("conversionReviewVersions", versions.value);
    if !conversion.is_set() {
        return;
    }
    strategy.required_one_of(&["None", "Webhook"], out);
    if strategy.text() != "Webhook" {
        if client.is_set() {
            client.forbidden("should not be set when strategy is not set to Webhook", out);
        }
        if !versions.is_empty() {
            versions.forbidden("should not be set when strategy is not set to Webhook", out);
        }
        return;
    }
    if !client.is_set() {
        client.required("required when strategy is set to Webhook", out);
    } else if client.get("url").is_set() == client.get("service").is_set() {
        client.required("exactly one of url or service is required", out);
    } else {
        hooks::client(&client, out);
    }
    if versions.must_be_given(out) {
        hooks::versions(&versions, known_reviews, out);
    }
}

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    let names = new.get("status.acceptedNames");
    if subresource == "status" {
        return resource_names(&names, out);
    }
    let (spec, stored) = (new.get("spec"), old.get("spec"));
    // What was wrong before may stay so: nothing else may keep a definition from being changed or removed.
    let (mut faults, mut known) = (Faults::new(), Faults::new());
    let reviews = stored.get("conversion.webhook.conversionReviewVersions");
    let known_reviews = reviews.is_empty() || hooks::has_known_version(&reviews);
    spec_rules(&spec, known_reviews, &mut faults);
    spec_rules(&stored, known_reviews, &mut known);
    out.extend(faults.into_iter().filter(|fault| !known.contains(fault)));
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
    for key in ["group", "names.plural"] {
        spec.get(key).same_as(&stored.get(key), out);
    }
    resource_names(&names, out);
    stored_versions(new, out);
    // A state of approval that does not change is let be.
    let (mut faults, mut known) = (Faults::new(), Faults::new());
    approval(new, &mut faults);
    approval(old, &mut known);
    if faults.first().map(|fault| fault.kind) != known.first().map(|fault| fault.kind) {
        out.extend(faults);
    }
    if !stored.get("preserveUnknownFields").is_true() {
        preserving(&spec, out);
    }
}
