//! Job and CronJob.

use super::node::{Faults, IMMUTABLE, Node};
use super::{indexes, job_status, pod, selectors};
use crate::cron::Schedule;
use crate::labels;
use crate::strategy::same;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::collections::HashSet;

const MAX_PARALLELISM: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MANAGED_BY_MAX: usize = 63;
const CRON_NAME_MAX: usize = 52;
const ZONE_PART_MAX: usize = 14;
const MAX_INDEXES_BYTES: usize = 64 * 1024;

pub(super) fn create(job: &Node<'_, '_>, out: &mut Faults) {
    whole(job, &Value::Null, out);
}

fn whole(job: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    generated_selector(job, stored, out);
    let body = job.get("spec");
    with_selector(&body, stored, out);
    let completions = body.get("completions");
    if body.get("completionMode").text() == "Indexed" && completions.int() > 0 {
        let name = job.get("metadata.name");
        let last = format!("{}-{}", name.text(), completions.int() - 1);
        if !labels::is_dns1123_label(&last).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {last}");
            name.invalid_as(&name.text().into(), detail, out);
        }
    }
}

/// Unless managed by hand, selector and labels are exactly what the server made of the uid.
/// `stored` is the spec that is to change: a Job of old has the old labels only.
fn generated_selector(job: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    if job.get("spec.manualSelector").is_true() || !job.get("spec.selector").is_set() {
        return;
    }
    let uid = job.get("metadata.uid");
    if uid.is_empty() {
        uid.required("", out);
    }
    let template = job.get("spec.template.metadata");
    let wanted = template.get("labels");
    let name = job.get("metadata.name");
    let generated = [
        ("controller-uid", uid.text()),
        ("job-name", name.text()),
        ("batch.kubernetes.io/controller-uid", uid.text()),
        ("batch.kubernetes.io/job-name", name.text()),
    ];
    let labels = &stored["template"]["metadata"]["labels"];
    let has_new = stored.is_null() || generated[2..].iter().all(|(key, _)| labels[*key].is_string());
    let generated = &generated[..if has_new { 4 } else { 2 }];
    for (key, value) in generated {
        has_label(&wanted, key, value, out);
    }
    let generated = generated.iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    let selector = job.get("spec.selector");
    if selectors::is_readable(&selector) && !selectors::matches(&selector, &job.named("", &generated)) {
        selector.invalid("`selector` not auto-generated", out);
    }
}

fn has_label(labels: &Node<'_, '_>, key: &str, value: &str, out: &mut Faults) {
    let label = labels.key(key);
    if !label.is_set() {
        label.required(format!("must be '{value}'"), out);
    } else if label.text() != value {
        label.invalid_as(labels.value, format!("must be '{value}'"), out);
    }
}

/// A Job's spec with its selector.
fn with_selector(body: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    spec(body, stored, out);
    let selector = body.get("selector");
    if selector.is_set() {
        selectors::labels(&selector, out);
    } else {
        selector.required("", out);
    }
    let labels = body.get("template.metadata.labels");
    // None matches nothing.
    let matches = selector.is_set() && selectors::matches(&selector, &labels);
    if selectors::is_readable(&selector) && !matches {
        labels.invalid("`selector` does not match template `labels`", out);
    }
}

/// A Job's spec but its selector, which a CronJob's template has none of.
fn spec(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(key).not_negative(out);
    }
    let (per_index, max_failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if max_failed.is_set() && !per_index.is_set() {
        per_index.required("when maxFailedIndexes is specified", out);
    }
    let manager = spec.get("managedBy");
    if manager.is_set() {
        manager.domain_prefixed_path(out);
        if manager.text().len() > MANAGED_BY_MAX {
            manager.too_long(63, out);
        }
    }
    let mode = spec.get("completionMode");
    mode.if_set_one_of(&["NonIndexed", "Indexed"], out);
    match mode.text() {
        "Indexed" => indexed(spec, out),
        // One that is given, and is none, is neither.
        "" if mode.value.is_string() => {}
        "" | "NonIndexed" => {
            for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if spec.get(key).is_set() {
                    spec.get(key).invalid("requires indexed completion mode", out);
                }
            }
        }
        _ => {}
    }
    failure_policy(spec, out);
    let success = spec.get("successPolicy");
    if success.is_set() && mode.text() != "Indexed" {
        success.invalid_inside("SuccessPolicy", "requires indexed completion mode", out);
    } else if success.is_set() {
        success_policy(spec, out);
    }
    let replacement = spec.get("podReplacementPolicy");
    let allowed: &[&str] =
        if spec.get("podFailurePolicy").is_set() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    replacement.if_set_one_of(allowed, out);
    template(spec, stored, out);
}

fn template(spec: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    let template = spec.get("template");
    pod::template(&template, &stored["template"], out);
    let restart = template.get("spec.restartPolicy");
    match restart.text() {
        // The default cannot be told from a choice, and is told as if nothing was given.
        "" | "Always" => restart.required("valid values: \"OnFailure\", \"Never\"", out),
        "OnFailure" if spec.get("podFailurePolicy").is_set() => {
            restart.invalid("only \"Never\" is supported when podFailurePolicy is specified", out);
        }
        _ => restart.must_be_one_of(&["OnFailure", "Never"], out),
    }
}

fn indexed(spec: &Node<'_, '_>, out: &mut Faults) {
    let (completions, parallelism, failed) =
        (spec.get("completions"), spec.get("parallelism"), spec.get("maxFailedIndexes"));
    if !completions.is_set() {
        completions.required("when completion mode is Indexed", out);
    }
    if parallelism.int() > MAX_PARALLELISM {
        let detail =
            format!("must be less than or equal to {MAX_PARALLELISM} when completion mode is Indexed");
        parallelism.invalid(detail, out);
    }
    if completions.is_set() && failed.is_set() && failed.int() > completions.int() {
        failed.invalid("must be less than or equal to completions", out);
    }
    if failed.int() > MAX_FAILED_INDEXES {
        failed.invalid(format!("must be less than or equal to {MAX_FAILED_INDEXES}"), out);
    }
    if completions.int() > MANY_COMPLETIONS && spec.get("backoffLimitPerIndex").is_set() {
        let tail =
            format!("when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        if !failed.is_set() {
            failed.required(format!("must be specified when completions is above {MANY_COMPLETIONS}"), out);
        }
        for field in [&parallelism, &failed] {
            if field.int() > 10_000 {
                field.invalid(format!("must be less than or equal to 10000 {tail}"), out);
            }
        }
    }
}

fn failure_policy(spec: &Node<'_, '_>, out: &mut Faults) {
    let rules = spec.get("podFailurePolicy.rules");
    if rules.len() > MAX_RULES {
        rules.too_many(MAX_RULES, out);
    }
    let per_index = spec.get("backoffLimitPerIndex").is_set();
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    for rule in rules.items() {
        let action = rule.get("action");
        match action.text() {
            "" => action.required(format!("valid values: [{}]", quoted(&ACTIONS)), out),
            "FailIndex" if !per_index => action.invalid("requires the backoffLimitPerIndex to be set", out),
            text if !ACTIONS.contains(&text) => action.not_supported(&ACTIONS, out),
            _ => {}
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, spec, out);
        }
        pod_conditions(&conditions, out);
        match (codes.is_set(), conditions.is_empty()) {
            (true, false) => {
                rule.invalid_unshown("specifying both OnExitCodes and OnPodConditions is not supported", out);
            }
            (false, true) => {
                rule.invalid_unshown("specifying one of OnExitCodes and OnPodConditions is required", out);
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    let (operator, values, container) =
        (codes.get("operator"), codes.get("values"), codes.get("containerName"));
    match operator.text() {
        "" => operator.required(format!("valid values: [{}]", quoted(&OPERATORS)), out),
        _ => operator.must_be_one_of(&OPERATORS, out),
    }
    let known = ["template.spec.containers", "template.spec.initContainers"]
        .iter()
        .any(|list| spec.get(list).items().any(|known| known.get("name").text() == container.text()));
    if container.is_set() && !known {
        container.invalid("must be one of the container or initContainer names in the pod template", out);
    }
    if values.is_empty() {
        values.invalid("at least one value is required", out);
    } else if values.len() > MAX_EXIT_CODES {
        values.too_many(MAX_EXIT_CODES, out);
    }
    let (mut numbers, mut seen) = (Vec::new(), HashSet::new());
    for value in values.items() {
        if value.int() == 0 && operator.text() == "In" {
            value.invalid("must not be 0 for the In operator", out);
        }
        if !seen.insert(value.int()) {
            value.duplicate(out);
        }
        numbers.push(value.int());
    }
    if !numbers.is_sorted() {
        values.invalid("must be ordered", out);
    }
}

fn pod_conditions(conditions: &Node<'_, '_>, out: &mut Faults) {
    const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
    if conditions.len() > MAX_RULES {
        conditions.too_many(MAX_RULES, out);
    }
    for condition in conditions.items() {
        condition.get("type").text_must(labels::is_qualified_name, out);
        let status = condition.get("status");
        match status.text() {
            "" => status.required(format!("valid values: [{}]", quoted(&STATUSES)), out),
            _ => status.must_be_one_of(&STATUSES, out),
        }
    }
}

/// Texts as Go shows a list of them.
fn quoted(texts: &[&str]) -> String {
    texts.iter().map(|text| crate::status::go_quoted(text)).collect::<Vec<_>>().join(" ")
}

fn success_policy(spec: &Node<'_, '_>, out: &mut Faults) {
    let rules = spec.get("successPolicy.rules");
    if rules.is_empty() {
        rules.required("at least one rules must be specified when the successPolicy is specified", out);
    }
    if rules.len() > MAX_RULES {
        rules.too_many(MAX_RULES, out);
    }
    let completions = spec.get("completions").int();
    for rule in rules.items() {
        let (count, list) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if !count.is_set() && !list.is_set() {
            rule.required("at least one of succeededCount or succeededIndexes must be specified", out);
        }
        if list.text().len() > MAX_INDEXES_BYTES {
            list.too_long(65_536, out);
        }
        let listed = indexes::count(list.text(), completions);
        if let Err(why) = &listed {
            list.invalid(format!("error parsing succeededIndexes: {why}"), out);
        }
        count.not_negative(out);
        if count.int() > completions {
            let detail =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            count.invalid(detail, out);
        }
        let total = listed.unwrap_or_default();
        if list.is_set() && count.int() > total {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            count.invalid(detail, out);
        }
    }
}

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource == "status" {
        return job_status::update(new, old, out);
    }
    let (body, stored) = (new.get("spec"), old.get("spec"));
    // Kubernetes looks at the spec twice, and tells its faults twice.
    whole(new, stored.value, out);
    with_selector(&body, stored.value, out);
    completions(&body, &stored, out);
    body.get("selector").same_as(&stored.get("selector"), out);
    let idle = stored.get("suspend").is_true() && !old.get("status.startTime").is_set();
    let mut template = body.get("template").value.clone();
    if idle {
        keep_scheduling(&mut template, stored.get("template").value);
    }
    if !same(&template, stored.get("template").value) {
        body.get("template").invalid(IMMUTABLE, out);
    }
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        body.get(key).same_as(&stored.get(key), out);
    }
}

/// A Job that has not started may still be told where its pods go.
fn keep_scheduling(template: &mut Value, stored: &Value) {
    for pointer in [
        "/metadata/annotations",
        "/metadata/labels",
        "/spec/nodeSelector",
        "/spec/tolerations",
        "/spec/schedulingGates",
        "/spec/affinity/nodeAffinity",
    ] {
        let Some((parent, key)) = pointer.rsplit_once('/') else { continue };
        let Some(map) = template.pointer_mut(parent).and_then(Value::as_object_mut) else { continue };
        match stored.pointer(pointer) {
            Some(value) => drop(map.insert(key.to_owned(), value.clone())),
            None => drop(map.remove(key)),
        }
    }
}

fn completions(spec: &Node<'_, '_>, stored: &Node<'_, '_>, out: &mut Faults) {
    let (now, before) = (spec.get("completions"), stored.get("completions"));
    if now.value == before.value {
        return;
    }
    let elastic = stored.get("completionMode").text() == "Indexed" && now.is_set();
    if !elastic {
        now.invalid(IMMUTABLE, out);
    } else if now.int() != spec.get("parallelism").int() {
        now.invalid("can only be modified in tandem with spec.parallelism", out);
    }
}

pub(super) fn cron_job(object: &Node<'_, '_>, out: &mut Faults) {
    cron_spec(&object.get("spec"), &Value::Null, out);
    let name = object.get("metadata.name");
    if name.text().len() > CRON_NAME_MAX {
        name.invalid(format!("must be no more than {CRON_NAME_MAX} characters"), out);
    }
}

pub(super) fn cron_job_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource.is_empty() {
        cron_spec(&new.get("spec"), &old.value["spec"], out);
    }
}

fn cron_spec(body: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    let (schedule, zone) = (body.get("schedule"), body.get("timeZone"));
    if schedule.must_be_given(out) {
        if let Err(complaint) = Schedule::parse(schedule.text(), TimeZone::UTC) {
            schedule.invalid(complaint, out);
        }
        let had_zone = stored["schedule"].as_str().is_some_and(|text| text.contains("TZ"));
        match (schedule.text().contains("TZ"), had_zone) {
            (true, true) if zone.is_set() => {
                schedule.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule", out);
            }
            (true, false) => {
                schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead", out);
            }
            _ => {}
        }
    }
    body.get("startingDeadlineSeconds").not_negative(out);
    if zone.is_set() && *zone.value != stored["timeZone"] {
        time_zone(&zone, out);
    }
    body.get("concurrencyPolicy").required_one_of(&["Allow", "Forbid", "Replace"], out);
    let job = body.get("jobTemplate.spec");
    spec(&job, &stored["jobTemplate"]["spec"], out);
    if job.get("selector").is_set() {
        job.get("selector").invalid("`selector` will be auto-generated", out);
    }
    if job.get("manualSelector").is_true() {
        job.get("manualSelector").not_supported(&["nil", "false"], out);
    }
    for key in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        body.get(key).not_negative(out);
    }
}

fn time_zone(zone: &Node<'_, '_>, out: &mut Faults) {
    let text = zone.text();
    if text.is_empty() {
        return zone.invalid_as(&json!(""), "timeZone must be nil or non-empty string", out);
    }
    let odd = |byte: u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+'));
    let bad = |part: &str| {
        matches!(part, "" | "." | "..")
            || part.starts_with('-')
            || part.len() > ZONE_PART_MAX
            || part.bytes().any(odd)
    };
    if text.split('/').any(bad) {
        return zone.invalid(format!("unknown time zone {text}"), out);
    }
    if text.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        zone.invalid(detail, out);
    }
    if text != "Local" && jiff::tz::TimeZone::get(text).is_err() {
        zone.invalid(format!("unknown time zone {text}"), out);
    }
}
