//! CronJobs: a Job each time the schedule says so.
//!
//! In: a CronJob and the Jobs that it made. Out: at most one Job to make, those to stop or to forget, the status. One timer
//! a CronJob, set to the next time.

mod schedule;

use super::{condition, finished_at};
use crate::context::Context;
use crate::plan::{Action, CRON_JOB, Deletion, JOB, Plan, status_patch};
use crate::pods::owner_reference;
use crate::stores::BY_OWNER;
use coracle_client::controller::Next;
use coracle_client::{EventType, Key, ObjectId, Queue, controller_of};
use coracle_daemon::clock::{self, rfc3339_seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schedule::Schedule;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

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

    let zone = spec.time_zone.as_deref().map_or(Some(TimeZone::UTC), |name| TimeZone::get(name).ok());
    let Some(schedule) = zone.and_then(|zone| Schedule::parse(&spec.schedule, zone)) else {
        let message = format!("unparseable schedule: {}", spec.schedule);
        plan.then([Action::Event {
            about: owner,
            kind: EventType::Warning,
            reason: "UnparseableSchedule",
            message,
        }]);
        return plan;
    };
    if spec.suspend != Some(true) {
        if let Some(due) = due(cron, spec, &schedule, now) {
            run(cron, spec, &owner, &running, due, &mut status, &mut plan);
        }
        let next = schedule.next(now).and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        plan.look_again(next);
    }
    plan.then(status_patch(&CRON_JOB, &cron.metadata, &cron.status, &status));
    plan
}

/// The latest time that came since the last Job, if it is not too late for it.
fn due(cron: &CronJob, spec: &CronJobSpec, schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let mut after = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |at| at.0);
    if let Some(deadline) = spec.starting_deadline_seconds {
        after = after.max(now.checked_sub(jiff::SignedDuration::from_secs(deadline)).ok()?);
    }
    std::iter::successors(schedule.next(after), |at| schedule.next(*at)).take_while(|at| *at <= now).last()
}

fn run(
    cron: &CronJob,
    spec: &CronJobSpec,
    owner: &ObjectId,
    running: &[&Arc<Job>],
    due: Timestamp,
    status: &mut CronJobStatus,
    plan: &mut Plan,
) {
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !running.is_empty() => {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid".into();
            plan.then([Action::Event {
                about: owner.clone(),
                kind: EventType::Normal,
                reason: "JobAlreadyActive",
                message,
            }]);
            // Tried again when the running one ends, as long as the deadline allows.
            return;
        }
        Some("Replace") => {
            plan.then(running.iter().map(|job| delete(job)));
        }
        _ => {}
    }
    let name = format!("{}-{}", owner.name, due.as_second() / 60);
    let meta = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".into(), rfc3339_seconds(due));
    let body = json!({
        "metadata": {
            "name": name, "namespace": cron.metadata.namespace, "labels": meta.labels, "annotations": annotations,
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec.job_template.spec,
    });
    let message = format!("Created job {name}");
    plan.then([Action::Ensure { resource: &JOB, body }]);
    plan.then([Action::Event {
        about: owner.clone(),
        kind: EventType::Normal,
        reason: "SuccessfulCreate",
        message,
    }]);
    status.last_schedule_time = Some(Time(due));
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
}
