//! CronJobs: a Job each time the schedule says so.
//!
//! In: a CronJob and the Jobs that it made. Out: at most one Job to make, those to stop or to forget, the status. One timer
//! a CronJob, set to the next time.

use super::{condition, finished_at};
use crate::context::Context;
use crate::plan::{Action, CRON_JOB, Deletion, JOB, Plan, status_patch};
use crate::pods::owner_reference;
use crate::stores::BY_OWNER;
use coracle_api::cron::Schedule;
use coracle_api::status::go_quoted;
use coracle_client::controller::Next;
use coracle_client::{EventType, Key, ObjectId, Queue, controller_of};
use coracle_daemon::clock;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// More times than that were missed by mistake.
const MANY_MISSED: i64 = 100;

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.cron_jobs.on_change(move |change| wake.add(change.key.clone()));
    let wake = queue.clone();
    ctx.stores.jobs.on_change(move |change| {
        if let Some(owner) = change
            .latest()
            .and_then(|job| controller_of(&job.metadata))
            .filter(|owner| owner.kind == "CronJob")
        {
            wake.add(Key::new(change.key.namespace.clone(), owner.name.clone()));
        }
    });
    ctx.control("cronjob", queue, 4, |ctx, key| async move {
        let Some(cron) = ctx.stores.cron_jobs.get(&key) else { return Ok(Next::Change) };
        let jobs = ctx.stores.jobs.by_index(BY_OWNER, cron.metadata.uid.as_deref().unwrap_or_default());
        ctx.execute(reconcile(&cron, &jobs, clock::now()), None).await
    });
}

pub fn reconcile(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let (Some(spec), None) = (&cron.spec, &cron.metadata.deletion_timestamp) else { return plan };
    let owner = ObjectId::of(cron);
    let mut status = cron.status.clone().unwrap_or_default();
    let running: Vec<_> = jobs.iter().filter(|job| finished_at(job).is_none()).collect();
    status.active = Some(running.iter().map(|job| reference(job)).collect::<Vec<_>>())
        .filter(|active| !active.is_empty());
    let succeeded = jobs
        .iter()
        .filter(|job| condition(job, "Complete").is_some())
        .filter_map(|job| finished_at(job))
        .max();
    status.last_successful_time = succeeded.map(Time).or(status.last_successful_time);
    plan.then(forget(spec, jobs));

    let ended = status_before(cron).filter_map(|active| ended(jobs, active));
    plan.then(ended.map(|(kind, reason, message)| told(&owner, kind, reason, message)));
    if spec.suspend != Some(true) {
        match schedule(spec, &owner, &mut plan) {
            Ok(schedule) => follow(cron, spec, &schedule, &running, now, &mut status, &mut plan),
            Err((reason, message)) => {
                plan.then([told(&owner, EventType::Warning, reason, message)]);
            }
        }
    }
    plan.then(status_patch(&CRON_JOB, &cron.metadata, &cron.status, &status));
    plan
}

fn told(about: &ObjectId, kind: EventType, reason: &'static str, message: String) -> Action {
    Action::Event { about: about.clone(), kind, reason, message }
}

/// The Jobs that ran when the CronJob was last looked at.
fn status_before(cron: &CronJob) -> impl Iterator<Item = &ObjectReference> {
    cron.status.iter().filter_map(|status| status.active.as_ref()).flatten()
}

/// What became of a Job that ran and does not any more.
fn ended(jobs: &[Arc<Job>], active: &ObjectReference) -> Option<(EventType, &'static str, String)> {
    let name = active.name.as_deref().unwrap_or_default();
    let Some(job) = jobs.iter().find(|job| job.metadata.uid == active.uid) else {
        return Some((EventType::Normal, "MissingJob", format!("Active job went missing: {name}")));
    };
    finished_at(job)?;
    let how = if condition(job, "Complete").is_some() { "Complete" } else { "Failed" };
    Some((EventType::Normal, "SawCompletedJob", format!("Saw completed job: {name}, condition: {how}")))
}

/// When Jobs are due, or why nobody can tell.
fn schedule(
    spec: &CronJobSpec,
    owner: &ObjectId,
    plan: &mut Plan,
) -> Result<Schedule, (&'static str, String)> {
    let text = &spec.schedule;
    let zone = spec.time_zone.as_deref().map_or(Ok(TimeZone::UTC), |name| {
        let unknown = format!("invalid timeZone: {}: unknown time zone {name}", go_quoted(name));
        TimeZone::get(name).map_err(|_| ("UnknownTimeZone", unknown))
    })?;
    if text.contains("TZ") {
        let message = format!(
            "CRON_TZ or TZ used in schedule {} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
            go_quoted(text)
        );
        plan.then([told(owner, EventType::Warning, "UnsupportedSchedule", message)]);
    }
    Schedule::parse(text, zone).map_err(|fault| {
        ("UnparseableSchedule", format!("unparseable schedule: {} : {fault}", go_quoted(text)))
    })
}

/// Runs what is due: of the times that came since the last Job the latest, if it is not too late for it.
fn follow(
    cron: &CronJob,
    spec: &CronJobSpec,
    schedule: &Schedule,
    running: &[&Arc<Job>],
    now: Timestamp,
    status: &mut CronJobStatus,
    plan: &mut Plan,
) {
    let owner = ObjectId::of(cron);
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let after = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |at| at.0);
    let next = schedule.next(schedule.last(after, now).unwrap_or(after));
    let Some(next) = next else {
        let message = format!(
            "invalid schedule: {} : time difference between two schedules is less than 1 second",
            spec.schedule
        );
        plan.then([told(&owner, EventType::Warning, "InvalidSchedule", message)]);
        return;
    };
    let deadline = spec.starting_deadline_seconds.map(jiff::SignedDuration::from_secs);
    let earliest = deadline.and_then(|deadline| now.checked_sub(deadline).ok());
    let after = earliest.map_or(after, |earliest| earliest.max(after));
    if let Some(due) = schedule.last(after, now) {
        if schedule.count(after, now) > MANY_MISSED {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            plan.then([told(&owner, EventType::Warning, "TooManyMissedTimes", message.to_owned())]);
        }
        run(cron, spec, &owner, running, &due.to_zoned(schedule.zone.clone()), status, plan);
    }
    plan.look_again(Duration::try_from(next.duration_since(now)).ok());
}

fn run(
    cron: &CronJob,
    spec: &CronJobSpec,
    owner: &ObjectId,
    running: &[&Arc<Job>],
    due: &Zoned,
    status: &mut CronJobStatus,
    plan: &mut Plan,
) {
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !running.is_empty() => {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid".into();
            plan.then([told(owner, EventType::Normal, "JobAlreadyActive", message)]);
            // Tried again when the running one ends, as long as the deadline allows.
            return;
        }
        Some("Replace") => {
            plan.then(running.iter().map(|job| delete(job)));
        }
        _ => {}
    }
    let name = format!("{}-{}", owner.name, due.timestamp().as_second() / 60);
    let meta = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".into(), go_time(due));
    let body = json!({
        "metadata": {
            "name": name, "namespace": cron.metadata.namespace, "labels": meta.labels, "annotations": annotations,
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec.job_template.spec,
    });
    let message = format!("Created job {name}");
    plan.then([Action::Ensure { resource: &JOB, body }]);
    plan.then([told(owner, EventType::Normal, "SuccessfulCreate", message)]);
    status.last_schedule_time = Some(Time(due.timestamp()));
}

/// A time as Go writes it in its zone (RFC 3339): `Z` for no offset.
fn go_time(at: &Zoned) -> String {
    let shown = if at.offset() == Offset::UTC { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    at.strftime(shown).to_string()
}

fn reference(job: &Job) -> ObjectReference {
    let id = ObjectId::of(job);
    ObjectReference {
        api_version: Some(id.api_version),
        kind: Some(id.kind),
        namespace: Some(id.namespace),
        name: Some(id.name),
        uid: Some(id.uid),
        resource_version: job.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

fn delete(job: &Job) -> Action {
    let how = Deletion { background: true, force: false };
    Action::Delete {
        resource: &JOB,
        key: Key::of(&job.metadata),
        uid: job.metadata.uid.clone(),
        how,
        owner: None,
    }
}

/// Deletes the oldest finished Jobs beyond the limits.
fn forget(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Action> {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    let surplus = limits.into_iter().flat_map(|(end, limit)| {
        let mut ended: Vec<_> = jobs.iter().filter(|job| condition(job, end).is_some()).collect();
        ended.sort_by_key(|job| job.metadata.creation_timestamp.as_ref().map(|at| at.0));
        let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        ended.into_iter().take(surplus)
    });
    surplus.map(|job| delete(job)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, object};
    use serde_json::Value;

    fn steps(extra: &Value, last: &str, running: bool) -> (Vec<String>, Option<u64>) {
        let mut spec = json!({ "schedule": "*/10 * * * *", "jobTemplate": { "spec": { "template": {} } } });
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let cron: CronJob = object(
            json!({ "metadata": { "name": "c", "namespace": "ns", "uid": "c" }, "spec": spec, "status": { "lastScheduleTime": last } }),
        );
        let job = Arc::new(object::<Job>(json!({ "metadata": { "name": "old", "namespace": "ns" } })));
        let plan = reconcile(
            &cron,
            if running { std::slice::from_ref(&job) } else { &[] },
            at("2026-01-01T00:25:00Z"),
        );
        let words = plan.actions().filter_map(|action| match action {
            Action::Ensure { body, .. } => Some(format!("+{}", body["metadata"]["name"].as_str()?)),
            Action::Delete { key, .. } => Some(format!("-{}", key.name)),
            _ => None,
        });
        (words.collect(), plan.after.map(|after| after.as_secs()))
    }

    #[test]
    fn only_the_latest_missed_time_runs() {
        assert_eq!(steps(&json!({}), "2026-01-01T00:00:00Z", false), (vec!["+c-29453780".into()], Some(300)));
        assert_eq!(steps(&json!({}), "2026-01-01T00:20:00Z", false), (vec![], Some(300)));
    }

    #[test]
    fn running_jobs_are_heeded() {
        assert!(steps(&json!({ "concurrencyPolicy": "Forbid" }), "2026-01-01T00:00:00Z", true).0.is_empty());
        assert_eq!(
            steps(&json!({ "concurrencyPolicy": "Replace" }), "2026-01-01T00:00:00Z", true).0,
            ["-old", "+c-29453780"]
        );
    }

    #[test]
    fn what_is_too_late_or_suspended_is_left_out() {
        assert!(steps(&json!({ "startingDeadlineSeconds": 60 }), "2026-01-01T00:00:00Z", false).0.is_empty());
        assert_eq!(steps(&json!({ "suspend": true }), "2026-01-01T00:00:00Z", false), (vec![], None));
    }

    /// The reason and message of each event for a CronJob of that spec, status and Jobs, and what Jobs it makes.
    fn events(
        spec: &Value,
        status: &Value,
        jobs: &[Arc<Job>],
        now: &str,
    ) -> (Vec<(String, String)>, Vec<Value>) {
        let meta = json!({ "name": "c", "namespace": "ns", "uid": "c", "creationTimestamp": "2026-01-01T00:00:00Z" });
        let mut spec = spec.clone();
        spec["jobTemplate"] = json!({ "spec": { "template": {} } });
        let plan =
            reconcile(&object(json!({ "metadata": meta, "spec": spec, "status": status })), jobs, at(now));
        let (mut told, mut made) = (Vec::new(), Vec::new());
        for action in plan.actions() {
            match action {
                Action::Event { reason, message, .. } => told.push(((*reason).to_owned(), message.clone())),
                Action::Ensure { body, .. } => made.push(body.clone()),
                _ => {}
            }
        }
        (told, made)
    }

    #[test]
    fn a_schedule_that_never_comes_or_cannot_be_read_is_told() {
        for (spec, reason, message) in [
            (
                json!({ "schedule": "59 23 31 2 *" }),
                "InvalidSchedule",
                "invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second",
            ),
            (
                json!({ "schedule": "* * *" }),
                "UnparseableSchedule",
                "unparseable schedule: \"* * *\" : expected exactly 5 fields, found 3: [* * *]",
            ),
            (
                json!({ "schedule": "* * * * *", "timeZone": "Nowhere" }),
                "UnknownTimeZone",
                "invalid timeZone: \"Nowhere\": unknown time zone Nowhere",
            ),
        ] {
            let (told, made) = events(&spec, &json!({}), &[], "2026-01-01T00:25:00Z");
            assert_eq!((told, made), (vec![(reason.to_owned(), message.to_owned())], vec![]));
        }
        let (told, _) =
            events(&json!({ "schedule": "* * *", "suspend": true }), &json!({}), &[], "2026-01-01T00:25:00Z");
        assert_eq!(told, []);
    }

    #[test]
    fn a_job_says_when_it_was_due_in_the_zone_of_the_schedule() {
        for (zone, due) in [
            (Value::Null, "2026-01-01T01:00:00Z"),
            (json!("Etc/UTC"), "2026-01-01T01:00:00Z"),
            (json!("Europe/Berlin"), "2026-01-01T02:00:00+01:00"),
        ] {
            let spec = json!({ "schedule": "0 * * * *", "timeZone": zone });
            let (_, made) = events(&spec, &json!({}), &[], "2026-01-01T01:00:10Z");
            let annotations = &made[0]["metadata"]["annotations"];
            assert_eq!(annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"], due);
        }
    }

    #[test]
    fn many_missed_times_are_told_and_only_the_last_is_made_up_for() {
        let (told, made) =
            events(&json!({ "schedule": "* * * * *" }), &json!({}), &[], "2056-01-01T00:00:30Z");
        let reasons: Vec<_> = told.iter().map(|(reason, _)| reason.as_str()).collect();
        assert_eq!(reasons, ["TooManyMissedTimes", "SuccessfulCreate"]);
        assert_eq!(made.len(), 1);
    }

    #[test]
    fn jobs_that_ended_or_went_missing_are_told_once_by_the_status_before() {
        let active = json!({ "active": [{ "name": "done", "uid": "1" }, { "name": "gone", "uid": "2" }, { "name": "runs", "uid": "3" }],
            "lastScheduleTime": "2026-01-01T00:25:00Z" });
        let job = |name: &str, uid: &str, status: Value| {
            Arc::new(object::<Job>(
                json!({ "metadata": { "name": name, "namespace": "ns", "uid": uid }, "status": status }),
            ))
        };
        let over = json!({ "conditions": [{ "type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:20:00Z" }],
            "completionTime": "2026-01-01T00:20:00Z" });
        let jobs = [job("done", "1", over), job("runs", "3", json!({}))];
        let (told, _) = events(&json!({ "schedule": "* * * * *" }), &active, &jobs, "2026-01-01T00:25:10Z");
        let text = |reason: &str, message: &str| (reason.to_owned(), message.to_owned());
        assert_eq!(
            told,
            [
                text("SawCompletedJob", "Saw completed job: done, condition: Complete"),
                text("MissingJob", "Active job went missing: gone"),
            ]
        );
    }
}
