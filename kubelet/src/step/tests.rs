//! Table tests of the step: a situation in a few words in, the actions and what the status says out.

use super::*;
use crate::runtime::{Container, State};
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A situation: at second 1000, with all files and images in place.
pub(super) struct Case {
    pod: Value,
    containers: Vec<Container>,
    sandbox: bool,
    memory: Memory,
    now: i64,
}

pub(super) fn case(spec: impl Into<Value>) -> Case {
    let spec = spec.into();
    let mut memory = Memory { volumes: Volumes::Ready, ..Memory::default() };
    for name in ["a", "b", "i", "j", "s"] {
        memory.images.insert(name.to_owned(), Image::Ready { attempt: 0 });
    }
    Case {
        pod: json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u" }, "spec": spec }),
        containers: Vec::new(),
        sandbox: true,
        memory,
        now: 1000,
    }
}

fn two() -> Value {
    json!({ "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "x" }] })
}

pub(super) fn one(policy: &str) -> Value {
    json!({ "restartPolicy": policy, "containers": [{ "name": "a", "image": "x" }] })
}

impl Case {
    fn run(mut self, name: &str, attempt: u32, state: State) -> Self {
        self.containers.push(Container {
            id: format!("{name}{attempt}"),
            name: name.to_owned(),
            attempt,
            image: "x".to_owned(),
            image_id: "sha256:0".to_owned(),
            state,
        });
        self.memory.images.insert(name.to_owned(), Image::Ready { attempt: attempt + 1 });
        self
    }

    pub(super) fn running(self, name: &str, attempt: u32) -> Self {
        self.run(name, attempt, State::Running { started_at: at(900) })
    }

    fn exited(self, name: &str, attempt: u32, code: i32, finished: i64) -> Self {
        let (started_at, finished_at) = (Some(at(900)), at(finished));
        self.run(name, attempt, State::Exited { started_at, finished_at, code, oom: false })
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Memory)) -> Self {
        change(&mut self.memory);
        self
    }

    pub(super) fn pod(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.pod);
        self
    }

    fn alone(mut self) -> Self {
        self.sandbox = false;
        self
    }

    pub(super) fn deleting(self, grace: i64) -> Self {
        self.pod(|pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        })
        .with(|memory| memory.terminating_since = Some(at(1000)))
    }

    pub(super) fn plan(&self) -> Plan {
        let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
        let sandbox = self.sandbox.then(|| Sandbox {
            uid: "u".into(),
            namespace: "ns".into(),
            name: "p".into(),
            address: Some("10.1.1.1".parse().unwrap()),
            ready: true,
            containers: self.containers.clone(),
        });
        let (host, scheme) = ("10.89.0.10".parse().unwrap(), "containerd");
        let (sandbox, memory) = (sandbox.as_ref(), &self.memory);
        step(&Observed { pod: &pod, sandbox, memory, host, scheme, now: at(self.now) })
    }

    /// The actions in words, and how containers stand.
    fn told(&self) -> (String, String) {
        let plan = self.plan();
        let words = |action: &Action| match action {
            Action::Start { name, attempt, .. } => format!("start {name}{attempt}"),
            Action::Stop { id, deadline, .. } => format!("stop {id} by {}", deadline.as_second()),
            Action::Image { name, .. } => format!("image {name}"),
            Action::RemoveContainer { id, .. } => format!("remove {id}"),
            other => format!("{other:?}"),
        };
        let actions = plan.actions.iter().map(words).collect::<Vec<_>>().join(", ");
        let status = &plan.status;
        let all = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let states = all.into_iter().flatten().flatten().map(|container| {
            let state = container.state.clone().unwrap_or_default();
            let text = match (state.running, state.waiting, state.terminated) {
                (Some(_), ..) => "runs".to_owned(),
                (_, Some(waiting), _) => waiting.reason.unwrap_or_default(),
                (.., Some(ended)) => ended.reason.unwrap_or_default(),
                _ => "?".to_owned(),
            };
            format!("{}{} {text}", container.name, container.restart_count)
        });
        let phase = status.phase.clone().unwrap_or_default();
        (actions, format!("{phase}: {}", states.collect::<Vec<_>>().join(", ")))
    }
}

#[track_caller]
fn check(case: &Case, actions: &str, states: &str) {
    assert_eq!(case.told(), (actions.to_owned(), states.to_owned()));
}

#[test]
fn a_new_pod_gets_its_files_then_its_sandbox_then_its_images_then_its_containers() {
    let waiting = "Pending: a0 ContainerCreating, b0 ContainerCreating";
    let fresh = || case(two()).alone();
    check(&fresh().with(|memory| memory.volumes = Volumes::Unknown), "PrepareVolumes", waiting);
    let retry = Retry { at: at(1005), delay: Duration::from_secs(1) };
    let failed = fresh().with(|memory| memory.volumes = Volumes::Failed(retry));
    check(&failed, "", waiting);
    assert_eq!(failed.plan().wake, Some(at(1005)));
    check(&fresh(), "StartSandbox", waiting);
    check(&fresh().with(|memory| memory.sandbox_retry = Some(retry)), "", waiting);
    check(&case(two()).with(|memory| memory.images.clear()), "image a, image b", waiting);
    check(
        &case(two()).with(|memory| {
            memory.images.insert("a".into(), Image::Pulling);
        }),
        "start b0",
        waiting,
    );
    check(&case(two()), "start a0, start b0", waiting);
    check(&case(two()).running("a", 0).running("b", 0), "", "Running: a0 runs, b0 runs");
}

#[test]
fn containers_that_end_are_restarted_by_the_pods_policy() {
    for (policy, code, actions, states) in [
        ("Always", 0, "start a1", "Running: a0 Completed"),
        ("Always", 3, "start a1", "Running: a0 Error"),
        ("OnFailure", 0, "", "Succeeded: a0 Completed"),
        ("OnFailure", 3, "start a1", "Running: a0 Error"),
        ("Never", 0, "", "Succeeded: a0 Completed"),
        ("Never", 3, "", "Failed: a0 Error"),
    ] {
        check(&case(one(policy)).exited("a", 0, code, 990), actions, states);
    }
}

#[test]
fn restarts_are_spaced_and_a_long_run_forgives() {
    let crashes = |delay, since| Crashes { delay: Duration::from_secs(delay), since: at(since) };
    // (delay so far and since when, end of the last run, action, next delay)
    for (before, finished, wake, next) in [
        (None, 1000, None, Some(10)),
        (Some(crashes(10, 980)), 995, Some(1005), None),
        (Some(crashes(10, 980)), 990, None, Some(20)),
        (Some(crashes(160, 100)), 699, None, Some(300)),
        (Some(crashes(300, 500)), 900, Some(1200), None),
        (Some(crashes(300, 300)), 950, None, Some(10)),
    ] {
        let case = case(one("Always")).exited("a", 4, 1, finished).with(|memory| {
            memory.crashes.extend(before.map(|crashes| ("a".to_owned(), crashes)));
        });
        let plan = case.plan();
        let started = plan.actions.iter().find_map(|action| match action {
            Action::Start { attempt: 5, crashes, .. } => crashes.map(|crashes| crashes.delay.as_secs()),
            _ => None,
        });
        assert_eq!((started, plan.wake), (next, wake.map(at)), "{before:?} {finished}");
    }
}

#[test]
fn a_back_off_is_told_in_upstreams_words() {
    let crashes = Crashes { delay: Duration::from_secs(80), since: at(980) };
    let case = case(one("Always")).exited("a", 3, 1, 995).with(|memory| {
        memory.crashes.insert("a".into(), crashes);
    });
    let status = case.plan().status.container_statuses.unwrap().remove(0);
    let waiting = status.state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let expected = "back-off 1m20s restarting failed container=a pod=p_ns(u)";
    assert_eq!(waiting.message.as_deref(), Some(expected));
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.container_id.as_deref()), (1, Some("containerd://a3")));
    assert_eq!(status.restart_count, 3);
}

fn with_inits() -> Value {
    json!({ "restartPolicy": "Never", "initContainers": [
        { "name": "i", "image": "x" }, { "name": "s", "image": "x", "restartPolicy": "Always" }, { "name": "j", "image": "x" },
    ], "containers": [{ "name": "a", "image": "x" }] })
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let new = || case(with_inits());
    let wait = "PodInitializing";
    check(&new(), "start i0", &format!("Pending: i0 {wait}, s0 {wait}, j0 {wait}, a0 ContainerCreating"));
    check(&new().running("i", 0), "", &format!("Pending: i0 runs, s0 {wait}, j0 {wait}, a0 {wait}"));
    let first = || new().exited("i", 0, 0, 950);
    check(&first(), "start s0", &format!("Pending: i0 Completed, s0 {wait}, j0 {wait}, a0 {wait}"));
    let second = || first().running("s", 0);
    check(&second(), "start j0", &format!("Pending: i0 Completed, s0 runs, j0 {wait}, a0 {wait}"));
    let third = || second().exited("j", 0, 0, 960);
    check(&third(), "start a0", &format!("Pending: i0 Completed, s0 runs, j0 Completed, a0 {wait}"));
    let up = || third().running("a", 0);
    check(&up(), "", "Running: i0 Completed, s0 runs, j0 Completed, a0 runs");
    let done = third().exited("a", 0, 0, 990);
    check(&done, "stop s0 by 1030", "Running: i0 Completed, s0 runs, j0 Completed, a0 Completed");
    let crashed = first().exited("s", 0, 1, 990).exited("j", 0, 0, 960).running("a", 0);
    check(&crashed, "start s1", "Running: i0 Completed, s0 Error, j0 Completed, a0 runs");
}

#[test]
fn a_failed_init_container_is_the_pods_end_only_when_nothing_restarts() {
    let failed = |policy: &str| {
        case(with_inits()).pod(|pod| pod["spec"]["restartPolicy"] = json!(policy)).exited("i", 0, 1, 990)
    };
    check(
        &failed("Never"),
        "",
        "Failed: i0 Error, s0 PodInitializing, j0 PodInitializing, a0 PodInitializing",
    );
    assert_eq!(failed("Always").told().0, "start i1");
}

#[test]
fn images_and_configurations_that_are_missing_are_told() {
    let retry = Retry { at: at(1010), delay: Duration::from_secs(10) };
    let image = |reason, failed_at| {
        let message = "no such host".to_owned();
        let image = Image::Failed { reason, message, at: at(failed_at), retry };
        case(one("Always")).with(|memory| {
            memory.images.insert("a".into(), image);
        })
    };
    check(&image("ErrImagePull", 999), "", "Pending: a0 ErrImagePull");
    check(&image("ErrImagePull", 990), "", "Pending: a0 ImagePullBackOff");
    check(&image("ErrImageNeverPull", 990), "", "Pending: a0 ErrImageNeverPull");
    let blocked = |retry| {
        let blocked = Blocked { reason: "CreateContainerConfigError", message: "m".into(), retry };
        case(one("Always")).with(|memory| {
            memory.blocked.insert("a".into(), blocked);
        })
    };
    check(&blocked(None), "", "Pending: a0 CreateContainerConfigError");
    let past = Retry { at: at(999), delay: Duration::from_secs(1) };
    assert_eq!(blocked(Some(past)).told().0, "start a0");
    let failed = FailedStart { attempt: 0, at: at(990), message: "no such file".into() };
    let unstartable = case(one("Never")).with(|memory| {
        memory.failed_starts.insert("a".into(), failed);
    });
    check(&unstartable, "", "Failed: a0 StartError");
}

#[test]
fn probes_stop_containers_and_hold_back_readiness() {
    let spec = |policy: &str| {
        json!({ "restartPolicy": policy, "containers": [{ "name": "a", "image": "x",
            "livenessProbe": { "terminationGracePeriodSeconds": 7 }, "readinessProbe": {}, "startupProbe": {} }] })
    };
    let with = |policy: &str, started, live, ready| {
        case(spec(policy)).running("a", 0).with(|memory| {
            memory.health.insert("a0".into(), Health { started, live, ready });
        })
    };
    let stopped = with("Always", Some(true), false, Some(true));
    assert_eq!(stopped.told().0, "stop a0 by 1007");
    let Action::Stop { why, .. } = stopped.plan().actions.remove(0) else { panic!("no stop") };
    assert_eq!(why, Stop::Restart("Container a failed liveness probe, will be restarted".into()));
    assert_eq!(with("Always", Some(false), true, None).told().0, "stop a0 by 1030");
    for (started, ready, expected) in [
        (None, None, (false, false)),
        (Some(true), None, (true, false)),
        (Some(true), Some(false), (true, false)),
        (Some(true), Some(true), (true, true)),
    ] {
        let status = with("Always", started, true, ready).plan().status;
        let container = &status.container_statuses.unwrap()[0];
        assert_eq!((container.started.unwrap(), container.ready), expected);
        let shown = status.conditions.unwrap().into_iter().find(|one| one.type_ == "Ready").unwrap();
        assert_eq!(shown.status == "True", expected.1);
        if !expected.1 {
            assert_eq!(shown.message.as_deref(), Some("containers with unready status: [a]"));
        }
    }
    let killed = with("OnFailure", Some(true), true, None);
    let killed = Case { containers: Vec::new(), ..killed }.exited("a", 0, 0, 990);
    let killed = killed.with(|memory| {
        memory.restarting.insert("a0".into());
    });
    assert_eq!(killed.told().0, "start a1", "whoever was stopped to start again starts again");
}

#[test]
fn a_deleted_pod_is_stopped_reported_cleaned_up_and_gone() {
    let pod = || case(two()).running("a", 0).running("b", 0).deleting(5);
    check(&pod(), "stop a0 by 1005, stop b0 by 1005", "Running: a0 runs, b0 runs");
    let under_way = pod().with(|memory| {
        memory.stopping.insert("a0".into(), at(1005));
        memory.stopping.insert("b0".into(), at(1030));
    });
    check(&under_way, "stop b0 by 1005", "Running: a0 runs, b0 runs");
    let ended = || case(two()).exited("a", 0, 0, 990).exited("b", 0, 143, 990).deleting(5);
    check(&ended(), "", "Failed: a0 Completed, b0 Error");
    assert!(!ended().plan().gone, "its last status comes first");
    let reported = ended().pod(|pod| pod["status"] = json!({ "phase": "Failed" }));
    assert_eq!(reported.told().0, "RemoveSandbox, CleanUp");
    let removed = reported.alone();
    assert_eq!(removed.told().0, "CleanUp");
    let cleaned = removed.with(|memory| memory.volumes = Volumes::Unknown);
    assert!(cleaned.plan().gone);
}

#[test]
fn sidecars_outlive_the_main_containers_of_a_deleted_pod() {
    let up = |case: Case| case.exited("i", 0, 0, 950).running("s", 0).exited("j", 0, 0, 960).deleting(5);
    assert_eq!(up(case(with_inits()).running("a", 0)).told().0, "stop a0 by 1005");
    assert_eq!(up(case(with_inits()).exited("a", 0, 0, 990)).told().0, "stop s0 by 1005");
}

#[test]
fn a_pod_that_runs_too_long_fails() {
    let late = |case: Case| {
        case.pod(|pod| {
            pod["spec"]["activeDeadlineSeconds"] = json!(60);
            pod["status"] = json!({ "phase": "Running", "startTime": "1970-01-01T00:15:00Z" });
        })
    };
    assert_eq!(late(case(one("Always")).running("a", 0)).told().0, "stop a0 by 1030");
    let ended = late(case(one("Always")).exited("a", 0, 143, 990));
    check(&ended, "", "Failed: a0 Error");
    assert_eq!(ended.plan().status.reason.as_deref(), Some("DeadlineExceeded"));
    let mut early = late(case(one("Always")).running("a", 0));
    early.now = 930;
    assert_eq!(early.plan().wake, Some(at(960)));
}

#[test]
fn a_pod_that_is_over_keeps_its_status_and_loses_its_sandbox() {
    let over = case(one("Never")).exited("a", 0, 0, 990).pod(|pod| {
        pod["status"] = json!({ "phase": "Succeeded", "podIP": "10.1.1.1", "containerStatuses": [
            { "name": "a", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
              "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } } ] });
    });
    check(&over, "RemoveSandbox, CleanUp", "Succeeded: a0 Completed");
    let removed = over.alone().with(|memory| memory.volumes = Volumes::Unknown);
    check(&removed, "", "Succeeded: a0 Completed");
    assert_eq!(removed.plan().status.pod_ip.as_deref(), Some("10.1.1.1"));
}

#[test]
fn what_a_reboot_took_is_counted_as_a_restart() {
    let lost = |policy: &str, state: Value| {
        case(one(policy)).pod(|pod| {
            pod["status"] = json!({ "phase": "Running", "containerStatuses": [
                { "name": "a", "image": "x", "imageID": "", "ready": true, "restartCount": 2, "state": state } ] });
        })
    };
    let running = json!({ "running": { "startedAt": "1970-01-01T00:10:00Z" } });
    let images = |memory: &mut Memory| {
        memory.images.insert("a".into(), Image::Ready { attempt: 3 });
    };
    check(&lost("Always", running.clone()).with(images), "start a3", "Running: a2 ContainerCreating");
    check(&lost("Never", running), "", "Failed: a2 ContainerStatusUnknown");
    let done = json!({ "terminated": { "exitCode": 0, "reason": "Completed" } });
    check(&lost("OnFailure", done), "", "Succeeded: a2 Completed");
}

#[test]
fn old_runs_are_forgotten_but_the_last_and_the_one_before() {
    let pod = case(one("Always")).exited("a", 0, 1, 910).exited("a", 1, 1, 920).running("a", 2);
    check(&pod, "remove a0", "Running: a2 runs");
}

#[test]
fn a_post_start_hook_holds_up_the_containers_behind() {
    let hook = case(two()).running("a", 0).with(|memory| {
        memory.hooks.insert("a0".into());
    });
    check(&hook, "", "Pending: a0 runs, b0 ContainerCreating");
    let status = hook.plan().status.container_statuses.unwrap();
    assert!(!status[0].ready && status[0].started == Some(false));
}

#[test]
fn a_changed_image_restarts_its_container() {
    let changed =
        case(one("Always")).running("a", 0).pod(|pod| pod["spec"]["containers"][0]["image"] = json!("y"));
    assert_eq!(changed.told().0, "stop a0 by 1030");
}

#[test]
fn readiness_gates_count() {
    let gated = |conditions: Value| {
        let case = case(one("Always")).running("a", 0).pod(|pod| {
            pod["spec"]["readinessGates"] = json!([{ "conditionType": "example.com/up" }]);
            pod["status"] = json!({ "phase": "Running", "conditions": conditions });
        });
        let conditions = case.plan().status.conditions.unwrap();
        conditions.into_iter().find(|one| one.type_ == "Ready").unwrap()
    };
    assert_eq!(gated(json!([])).reason.as_deref(), Some("ReadinessGatesNotReady"));
    assert_eq!(gated(json!([{ "type": "example.com/up", "status": "True" }])).status, "True");
}

#[test]
fn durations_are_written_as_go_writes_them() {
    for (seconds, expected) in [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s")] {
        assert_eq!(go_duration(Duration::from_secs(seconds)), expected);
    }
}

#[test]
fn an_ephemeral_container_starts_once_whatever_the_others_do_and_ends_with_its_pod() {
    let debugged = |policy: &str| {
        let ephemeral = json!([{ "name": "e", "image": "x", "targetContainerName": "a" }]);
        let mut spec = one(policy);
        spec["ephemeralContainers"] = ephemeral;
        let ready = |memory: &mut Memory| {
            memory.images.insert("e".to_owned(), Image::Ready { attempt: 0 });
        };
        case(spec).with(ready)
    };
    let rows = [
        (debugged("Always").running("a", 0), "start e0", "Running: a0 runs, e0 ContainerCreating"),
        (debugged("Always").running("a", 0).running("e", 0), "", "Running: a0 runs, e0 runs"),
        // Neither its end nor its failure is followed by anything.
        (debugged("Always").running("a", 0).exited("e", 0, 1, 950), "", "Running: a0 runs, e0 Error"),
        // It does not keep its pod from ending, and ends with it.
        (
            debugged("Never").exited("a", 0, 0, 950).running("e", 0),
            "stop e0 by 1030",
            "Running: a0 Completed, e0 runs",
        ),
        (
            debugged("Never").exited("a", 0, 0, 950).exited("e", 0, 137, 960),
            "",
            "Succeeded: a0 Completed, e0 Error",
        ),
        (
            debugged("Always").running("a", 0).running("e", 0).deleting(5),
            "stop a0 by 1005, stop e0 by 1005",
            "Running: a0 runs, e0 runs",
        ),
    ];
    for (case, actions, states) in rows {
        assert_eq!(case.told(), (actions.to_owned(), states.to_owned()));
    }
    let before_inits = case(
        json!({ "initContainers": [{ "name": "i", "image": "x" }], "containers": [{ "name": "a", "image": "x" }],
        "ephemeralContainers": [{ "name": "e", "image": "x" }] }),
    );
    assert_eq!(before_inits.running("i", 0).told().0, "image e");
}

#[test]
fn an_ephemeral_container_that_the_runtime_has_lost_is_not_started_again() {
    let running = json!({ "name": "e", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "running": { "startedAt": "1970-01-01T00:15:00Z" } } });
    let mut spec = one("Always");
    spec["ephemeralContainers"] = json!([{ "name": "e", "image": "x" }]);
    let case = case(spec)
        .running("a", 0)
        .pod(|pod| pod["status"] = json!({ "ephemeralContainerStatuses": [running] }));
    assert_eq!(case.told(), (String::new(), "Running: a0 runs, e0 ContainerStatusUnknown".to_owned()));
    let status = case.plan().status.ephemeral_container_statuses.unwrap().remove(0);
    assert_eq!((status.ready, status.started), (false, None));
}
