//! A write to a Job's status: counters, indexes and conditions that can follow the stored ones.
//!
//! Since other controllers than the own one may manage Jobs, a status must make sense by itself. What an older one got
//! wrong is tolerated as long as the write does not touch it.

use super::indexes;
use super::node::{Faults, Node, Seen};
use crate::strategy::same;

const TERMINAL: [&str; 3] = ["Failed", "Complete", "FailureTarget"];

/// A Job's status with its spec.
#[derive(Clone, Copy)]
struct Job<'a, 'v> {
    spec: &'a Node<'v, 'a>,
    status: &'a Node<'v, 'a>,
}

impl Job<'_, '_> {
    fn holds(&self, condition: &str) -> bool {
        self.status
            .get("conditions")
            .items()
            .any(|own| own.get("type").text() == condition && own.get("status").text() == "True")
    }

    fn finished(&self) -> bool {
        self.holds("Complete") || self.holds("Failed")
    }
}

pub(super) fn update(new: &Node<'_, '_>, old: &Node<'_, '_>, out: &mut Faults) {
    let (spec, status) = (new.get("spec"), new.get("status"));
    let (old_spec, old_status) = (old.get("spec"), old.get("status"));
    let now = Job { spec: &spec, status: &status };
    let before = Job { spec: &old_spec, status: &old_status };
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(key).not_negative(out);
    }
    uncounted(&status.get("uncountedTerminatedPods"), out);
    ends(now, before, out);
    finished(now, before, out);
    index_lists(now, before, out);
    let changed = |key: &str| !same(status.get(key).value, old_status.get(key).value);
    let terminating = status.get("terminating");
    if now.finished() && (!before.finished() || changed("terminating")) && terminating.int() > 0 {
        terminating.invalid("terminating>0 is invalid for finished job", out);
    }
    let ready = status.get("ready");
    if (changed("ready") || changed("active")) && ready.int() > status.get("active").int() {
        ready.invalid("cannot set more ready pods than active", out);
    }
    let success = now.holds("SuccessCriteriaMet");
    let conditions = status.get("conditions");
    for other in ["Failed", "FailureTarget"].iter().filter(|_| success) {
        if now.holds(other) {
            conditions.invalid_unshown(
                format!("cannot set SuccessCriteriaMet=True and {other}=true conditions"),
                out,
            );
        }
    }
    if spec.get("successPolicy").is_set() && !success && now.holds("Complete") {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        conditions.invalid_unshown(detail, out);
    }
    transitions(now, before, out);
}

/// Pods that ended and are yet to be counted, each once.
fn uncounted(lists: &Node<'_, '_>, out: &mut Faults) {
    let mut seen = Seen::new();
    for list in ["succeeded", "failed"] {
        for uid in lists.get(list).items() {
            if uid.is_empty() {
                uid.invalid("must not be empty", out);
            } else if seen.contains(&uid.text()) {
                uid.duplicate(out);
            }
            seen.insert(uid.text());
        }
    }
}

/// Conditions and times of the end.
fn ends(now: Job<'_, '_>, before: Job<'_, '_>, out: &mut Faults) {
    let changed = |key: &str| now.status.get(key).value != before.status.get(key).value;
    let turned = |condition: &str| now.holds(condition) != before.holds(condition);
    let (conditions, start, end) =
        (now.status.get("conditions"), now.status.get("startTime"), now.status.get("completionTime"));
    let complete = now.holds("Complete");
    for (other, told) in [("Failed", "Failed"), ("FailureTarget", "FailureTarget")] {
        if (turned("Complete") || turned(other)) && complete && now.holds(other) {
            conditions.invalid_unshown(format!("cannot set Complete=True and {told}=true conditions"), out);
        }
    }
    if turned("Complete") || changed("completionTime") {
        if end.is_set() && !complete {
            end.invalid_time("cannot set completionTime when there is no Complete=True condition", out);
        }
        if !end.is_set() && complete {
            end.required("completionTime is required for Complete jobs", out);
        }
    }
    // Times of one form compare as their texts do.
    if (changed("startTime") || changed("completionTime"))
        && start.is_set()
        && end.is_set()
        && end.text() < start.text()
    {
        end.invalid_time("completionTime cannot be set before startTime", out);
    }
    let first = [("Failed", "FailureTarget"), ("Complete", "SuccessCriteriaMet")];
    for (last, first) in first {
        if (turned(last) || turned(first)) && now.holds(last) && !now.holds(first) {
            let detail = format!("cannot set {last}=True condition without the {first}=true condition");
            conditions.invalid_unshown(detail, out);
        }
    }
}

/// A finished Job has no pods left.
fn finished(now: Job<'_, '_>, before: Job<'_, '_>, out: &mut Faults) {
    if !now.finished() {
        return;
    }
    let over = !before.finished();
    let changed = |key: &str| over || !same(now.status.get(key).value, before.status.get(key).value);
    let (active, start) = (now.status.get("active"), now.status.get("startTime"));
    if changed("active") && active.int() > 0 {
        active.invalid("active>0 is invalid for finished job", out);
    }
    let never_ran =
        now.spec.get("suspend").is_true() && now.spec.get("completions").value.as_i64() == Some(0);
    if changed("startTime") && !never_ran && !start.is_set() {
        start.required("startTime is required for finished job", out);
    }
    let uncounted = now.status.get("uncountedTerminatedPods");
    let left = ["succeeded", "failed"].iter().any(|list| !uncounted.get(list).is_empty());
    if changed("uncountedTerminatedPods") && left {
        let detail = "uncountedTerminatedPods needs to be empty for finished job";
        uncounted.invalid_inside("UncountedPods", detail, out);
    }
}

fn index_lists(now: Job<'_, '_>, before: Job<'_, '_>, out: &mut Faults) {
    let (done, failed) = (now.status.get("completedIndexes"), now.status.get("failedIndexes"));
    let done_otherwise = done.text() != before.status.get("completedIndexes").text();
    // Of these none is something else than no list of them.
    let fails_otherwise = failed.value != before.status.get("failedIndexes").value;
    let completions = now.spec.get("completions");
    let per_index = now.spec.get("backoffLimitPerIndex").is_set();
    let parsed = |list: &Node<'_, '_>, name: &str, out: &mut Faults| {
        if let Err(why) = indexes::count(list.text(), completions.int()) {
            list.invalid(format!("error parsing {name}: {why}"), out);
        }
    };
    if done_otherwise && completions.is_set() {
        parsed(&done, "completedIndexes", out);
    }
    if fails_otherwise && completions.is_set() && per_index && failed.is_set() {
        parsed(&failed, "failedIndexes", out);
    }
    let indexed = now.spec.get("completionMode").text() == "Indexed";
    if done_otherwise && !done.is_empty() && !indexed {
        done.invalid("cannot set non-empty completedIndexes when non-indexed completion mode", out);
    }
    if fails_otherwise && !per_index && failed.is_set() {
        failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null", out);
    }
    if (done_otherwise || fails_otherwise)
        && completions.is_set()
        && let Some(at) = indexes::overlap(done.text(), failed.text(), completions.int())
    {
        failed.invalid(format!("failedIndexes and completedIndexes overlap at index: {at}"), out);
    }
}

fn transitions(now: Job<'_, '_>, before: Job<'_, '_>, out: &mut Faults) {
    let conditions = now.status.get("conditions");
    for condition in TERMINAL {
        if before.holds(condition) && !now.holds(condition) {
            conditions
                .invalid_unshown(format!("cannot disable the terminal {condition}=True condition"), out);
        }
    }
    let decreased = |key: &str| now.status.get(key).int() < before.status.get(key).int();
    if decreased("failed") {
        let failed = now.status.get("failed");
        failed.invalid_as(&failed.int().into(), "cannot decrease the failed counter", out);
    }
    // Indexed jobs that grow and shrink with their parallelism may count less than before.
    let elastic = now.spec.get("completionMode").text() == "Indexed"
        && same(now.spec.get("completions").value, now.spec.get("parallelism").value);
    if decreased("succeeded") && !elastic {
        let succeeded = now.status.get("succeeded");
        succeeded.invalid_as(&succeeded.int().into(), "cannot decrease the succeeded counter", out);
    }
    let (end, was) = (now.status.get("completionTime"), before.status.get("completionTime"));
    if end.is_set() && was.is_set() && end.value != was.value {
        end.invalid_time("completionTime cannot be mutated", out);
    }
    let (start, was) = (now.status.get("startTime"), before.status.get("startTime"));
    if was.is_set() && start.value != was.value && !now.spec.get("suspend").is_true() {
        start.required("startTime cannot be removed for unsuspended job", out);
    }
    let success = "SuccessCriteriaMet";
    if before.holds(success) && !now.holds(success) {
        conditions.invalid_unshown("cannot disable the SuccessCriteriaMet=True condition", out);
    }
    if before.holds("Complete") && !before.holds(success) && now.holds(success) {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        conditions.invalid_unshown(detail, out);
    }
}
