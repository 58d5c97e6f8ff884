//! The cells of events, roles, quotas, policies and certificates.

use super::rules::{Cell, plain};
use super::{Row, human_duration, since};
use serde_json::Value;

pub(super) const CELLS: &[(&str, Cell)] = &[
    ("event_last_seen", |row| event_last_seen(row).into()),
    ("event_first_seen", |row| event_first_seen(row).into()),
    ("event_object", |row| event_object(row).into()),
    ("event_subobject", |row| either(row, ["/involvedObject/fieldPath", "/regarding/fieldPath"]).into()),
    ("event_source", |row| event_source(row).into()),
    ("event_message", |row| either(row, ["/message", "/note"]).trim().into()),
    ("event_count", |row| event_count(row).into()),
    ("role_ref", |row| format!("{}/{}", row.text("/roleRef/kind"), row.text("/roleRef/name")).into()),
    ("subject_users", |row| subjects(row, "User").into()),
    ("subject_groups", |row| subjects(row, "Group").into()),
    ("subject_accounts", |row| subjects(row, "ServiceAccount").into()),
    ("csr_duration", |row| match row.object["spec"]["expirationSeconds"].as_i64() {
        Some(seconds) => human_duration(seconds).into(),
        None => "<none>".into(),
    }),
    ("csr_condition", |row| csr_condition(row).into()),
    ("name_with_default", |row| name_with_default(row).into()),
    ("controller_of", |row| controller_of(row).into()),
    ("quota_requests", |row| quota(row, false).into()),
    ("quota_limits", |row| quota(row, true).into()),
    ("api_service", |row| match row.text("/spec/service/name") {
        "" => "Local".into(),
        name => format!("{}/{name}", row.text("/spec/service/namespace")).into(),
    }),
    ("api_available", |row| api_available(row).into()),
    ("param_kind", |row| match &row.object["spec"]["paramKind"] {
        Value::Null => "<unset>".into(),
        kind => format!("{}/{}", plain(&kind["apiVersion"]), plain(&kind["kind"])).into(),
    }),
    ("param_ref", |row| param_ref(&row.object["spec"]["paramRef"]).into()),
    ("flow_dangling", |row| match row.condition("Dangling") {
        "" => "?".into(),
        status => status.into(),
    }),
    ("claim_state", |row| claim_state(row).into()),
];

fn either<'a>(row: &'a Row<'_>, pointers: [&str; 2]) -> &'a str {
    let [first, second] = pointers.map(|pointer| row.text(pointer));
    if first.is_empty() { second } else { first }
}

fn event_first_seen(row: &Row<'_>) -> String {
    let first = either(row, ["/firstTimestamp", "/deprecatedFirstTimestamp"]);
    since(if first.is_empty() { row.text("/eventTime") } else { first }, row.now)
}

fn event_last_seen(row: &Row<'_>) -> String {
    let last = row.text("/series/lastObservedTime");
    let last =
        if last.is_empty() { either(row, ["/lastTimestamp", "/deprecatedLastTimestamp"]) } else { last };
    if last.is_empty() { event_first_seen(row) } else { since(last, row.now) }
}

fn event_object(row: &Row<'_>) -> String {
    let kind = either(row, ["/involvedObject/kind", "/regarding/kind"]).to_lowercase();
    match either(row, ["/involvedObject/name", "/regarding/name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn event_source(row: &Row<'_>) -> String {
    let first = |pointers: [&str; 4]| {
        pointers.map(|pointer| row.text(pointer)).into_iter().find(|text| !text.is_empty())
    };
    let component = first([
        "/source/component",
        "/deprecatedSource/component",
        "/reportingComponent",
        "/reportingController",
    ]);
    let instance =
        first(["/source/host", "/deprecatedSource/host", "/reportingInstance", "/reportingInstance"]);
    match (component.unwrap_or_default(), instance.unwrap_or_default()) {
        (component, "") => component.to_owned(),
        (component, instance) => format!("{component}, {instance}"),
    }
}

fn event_count(row: &Row<'_>) -> i64 {
    let counts = ["/series/count", "/count", "/deprecatedCount"].map(|pointer| row.number(pointer));
    counts.into_iter().find(|count| *count != 0).unwrap_or(1)
}

fn subjects(row: &Row<'_>, kind: &str) -> String {
    let names =
        row.list("/subjects").iter().filter(|subject| subject["kind"] == kind).map(|subject| {
            match (plain(&subject["namespace"]), plain(&subject["name"])) {
                (namespace, name) if kind == "ServiceAccount" && !namespace.is_empty() => {
                    format!("{namespace}/{name}")
                }
                (_, name) => name,
            }
        });
    names.collect::<Vec<_>>().join(", ")
}

fn csr_condition(row: &Row<'_>) -> String {
    let has = |kind: &str| !row.condition(kind).is_empty();
    let mut text = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !row.text("/status/certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}

fn name_with_default(row: &Row<'_>) -> String {
    let name = row.text("/metadata/name");
    let annotations = &row.object["metadata"]["annotations"];
    let marked =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            .iter()
            .any(|key| annotations[*key] == "true");
    if marked { format!("{name} (default)") } else { name.to_owned() }
}

fn controller_of(row: &Row<'_>) -> String {
    let Some(owner) = row.list("/metadata/ownerReferences").iter().find(|owner| owner["controller"] == true)
    else {
        return "<none>".to_owned();
    };
    let version = plain(&owner["apiVersion"]);
    let group = version.split_once('/').map_or_else(String::new, |(group, _)| format!(".{group}"));
    format!("{}{group}/{}", plain(&owner["kind"]).to_lowercase(), plain(&owner["name"]))
}

fn quota(row: &Row<'_>, limits: bool) -> String {
    let (hard, used) = (&row.object["status"]["hard"], &row.object["status"]["used"]);
    let mut names: Vec<&String> = hard.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    names.sort();
    let rows = names.into_iter().filter(|name| name.starts_with("limits.") == limits).map(|name| {
        let used = used[name].as_str().unwrap_or("0");
        format!("{name}: {used}/{}", plain(&hard[name]))
    });
    rows.collect::<Vec<_>>().join(", ")
}

fn api_available(row: &Row<'_>) -> String {
    let found = row.list("/status/conditions").iter().find(|condition| condition["type"] == "Available");
    let Some(condition) = found else { return "Unknown".to_owned() };
    match (plain(&condition["status"]), plain(&condition["reason"])) {
        (status, _) if status == "True" => status,
        (status, reason) if reason.is_empty() => status,
        (status, reason) => format!("{status} ({reason})"),
    }
}

fn param_ref(reference: &Value) -> String {
    let namespace = match plain(&reference["namespace"]) {
        text if text.is_empty() => "*".to_owned(),
        text => text,
    };
    match (reference, plain(&reference["name"])) {
        (Value::Null, _) => "<unset>".to_owned(),
        (_, name) if name.is_empty() => go_selector(&reference["selector"]),
        (_, name) => format!("{namespace}/{name}"),
    }
}

/// A label selector as Go prints it.
fn go_selector(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut labels: Vec<String> = labels.map(|(key, value)| format!("{key}: {},", plain(value))).collect();
    labels.sort();
    let items =
        |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(plain).collect() };
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten().map(|one| {
        let (key, operator) = (plain(&one["key"]), plain(&one["operator"]));
        let values = items(&one["values"]).join(" ");
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.concat(),
        expressions.collect::<String>()
    )
}

fn claim_state(row: &Row<'_>) -> String {
    let allocated = !row.object["status"]["allocation"].is_null();
    let states = [
        (row.is_deleting(), "deleted"),
        (!allocated && !row.is_deleting(), "pending"),
        (allocated, "allocated"),
        (allocated && !row.list("/status/reservedFor").is_empty(), "reserved"),
    ];
    states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect::<Vec<_>>().join(",")
}
