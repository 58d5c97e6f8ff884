//! Deletes finished Jobs once their time is over.

use super::finished_at;
use crate::context::Context;
use crate::plan::{Action, Deletion, JOB, Plan};
use crate::pods::until;
use coracle_client::controller::Next;
use coracle_client::{Key, Queue};
use coracle_daemon::clock;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

pub fn start(ctx: &Context) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.jobs.on_change(move |change| {
        let limited =
            |job: &Job| job.spec.as_ref().is_some_and(|spec| spec.ttl_seconds_after_finished.is_some());
        if change.new.as_deref().is_some_and(|job| limited(job) && finished_at(job).is_some()) {
            wake.add(change.key.clone());
        }
    });
    ctx.control("ttl-after-finished", queue, 2, |ctx, key| async move {
        let Some(job) = ctx.stores.jobs.get(&key) else { return Ok(Next::Change) };
        ctx.execute(reconcile(&job, clock::now()), None).await
    });
}

pub fn reconcile(job: &Job, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let limit = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let (Some(limit), Some(finished), None) = (limit, finished_at(job), &job.metadata.deletion_timestamp)
    else {
        return plan;
    };
    match until(finished, i64::from(limit), now) {
        Some(left) => {
            plan.look_again(Some(left));
        }
        None => {
            let how = Deletion { background: true, force: false };
            plan.then([Action::Delete {
                resource: &JOB,
                key: Key::of(&job.metadata),
                uid: job.metadata.uid.clone(),
                how,
                owner: None,
            }]);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, object};
    use serde_json::json;

    #[test]
    fn a_finished_job_goes_when_its_time_is_over() {
        let ended =
            json!([{ "type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        let job: Job = object(
            json!({ "metadata": { "name": "j" }, "spec": { "ttlSecondsAfterFinished": 60, "template": {} }, "status": { "conditions": ended } }),
        );
        assert_eq!(
            reconcile(&job, at("2026-01-01T00:00:50Z")).after,
            Some(std::time::Duration::from_secs(10))
        );
        assert_eq!(reconcile(&job, at("2026-01-01T00:01:00Z")).steps.len(), 1);
    }
}
