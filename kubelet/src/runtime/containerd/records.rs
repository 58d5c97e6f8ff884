//! What exists: containerd's records and tasks with the sandboxes' folders in, [`Sandbox`]es out; and how ends are recorded.
//!
//! A task is containerd's process; it is deleted as soon as it has ended and its end stands in the record's labels.

use super::link::{failed, found, time};
use super::{Containerd, SNAPSHOTTER};
use crate::logger::RUN;
use crate::runtime::sandbox::Held;
use crate::runtime::{Container, ContainerSpec, RuntimeError, Sandbox, State, cgroup};
use containerd_client::services::v1::{
    Container as Record, DeleteTaskRequest, GetContainerRequest, GetRequest, ListContainersRequest,
    ListTasksRequest, UpdateContainerRequest, container::Runtime as RuntimeName,
};
use containerd_client::types::v1::{Process, Status};
use coracle_daemon::clock;
use futures::future::try_join_all;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use tonic::Code;

/// The labels of our containers.
pub mod label {
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const NAME: &str = "io.kubernetes.container.name";
    pub const ATTEMPT: &str = "io.kubernetes.container.restartCount";
    pub const IMAGE: &str = "coracle/image";
    pub const IMAGE_ID: &str = "coracle/image-id";
    pub const STOP_SIGNAL: &str = "coracle/stop-signal";
    pub const CGROUP: &str = "coracle/cgroup";
    pub const STDIN: &str = "coracle/stdin";
    pub const TTY: &str = "coracle/tty";
    pub const STARTED_AT: &str = "coracle/started-at";
    pub const FINISHED_AT: &str = "coracle/finished-at";
    pub const EXIT_CODE: &str = "coracle/exit-code";
    pub const OOM: &str = "coracle/oom";
}

/// The exit code of a container whose end nobody saw, as with containerd's CRI.
const UNKNOWN_EXIT: i32 = 255;

/// The record of a container to be made; `more` labels are added.
pub fn record(
    id: &str,
    spec: &ContainerSpec,
    image: (&str, &str),
    more: &[(&str, String)],
    runtime_spec: prost_types::Any,
) -> Record {
    let (image_name, image_id) = image;
    let mut labels: HashMap<String, String> = [
        (label::POD_UID, spec.pod_uid.clone()),
        (label::POD_NAME, spec.pod_name.clone()),
        (label::POD_NAMESPACE, spec.pod_namespace.clone()),
        (label::NAME, spec.name.clone()),
        (label::ATTEMPT, spec.attempt.to_string()),
        (label::IMAGE, spec.image.clone()),
        (label::IMAGE_ID, image_id.to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    labels.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Record {
        id: id.to_owned(),
        labels,
        image: image_name.to_owned(),
        runtime: Some(RuntimeName { name: "io.containerd.runc.v2".to_owned(), options: None }),
        spec: Some(runtime_spec),
        snapshotter: SNAPSHOTTER.to_owned(),
        snapshot_key: id.to_owned(),
        ..Record::default()
    }
}

pub fn text<'a>(record: &'a Record, key: &str) -> &'a str {
    record.labels.get(key).map(String::as_str).unwrap_or_default()
}

/// The cgroup of a container's pod.
pub fn pod_cgroup(record: &Record) -> Option<String> {
    let (pod, _) = text(record, label::CGROUP).rsplit_once('/')?;
    Some(pod.to_owned())
}

/// The records of one pod's containers, or of all pods'.
pub async fn of_pod(runtime: &Containerd, uid: Option<&str>) -> Result<Vec<Record>, RuntimeError> {
    let filter = match uid {
        Some(uid) => format!("labels.{:?}=={uid:?}", label::POD_UID),
        None => format!("labels.{:?}", label::POD_UID),
    };
    let request = ListContainersRequest { filters: vec![filter] };
    let reply = runtime.link().containers().list(request).await.map_err(failed("list containers"))?;
    Ok(reply.into_inner().containers)
}

/// A container's record.
pub async fn get(runtime: &Containerd, id: &str) -> Result<Option<Record>, RuntimeError> {
    let request = GetContainerRequest { id: id.to_owned() };
    let reply = found(runtime.link().containers().get(request).await);
    Ok(reply.map_err(failed(format!("look up the container {id}")))?.and_then(|reply| reply.container))
}

/// A container's task.
pub async fn task(runtime: &Containerd, id: &str) -> Result<Option<Process>, RuntimeError> {
    let request = GetRequest { container_id: id.to_owned(), exec_id: String::new() };
    let reply = found(runtime.link().tasks().get(request).await);
    Ok(reply
        .map_err(failed(format!("look up the task of the container {id}")))?
        .and_then(|reply| reply.process))
}

/// Whether a task's process still is, or will be.
pub fn alive(task: &Process) -> bool {
    !matches!(task.status(), Status::Stopped)
}

/// Everything that exists of one pod, or of all.
pub async fn list(runtime: &Containerd, uid: Option<&str>) -> Result<Vec<Sandbox>, RuntimeError> {
    let mut sandboxes: BTreeMap<String, Sandbox> = BTreeMap::new();
    let held = match uid {
        Some(uid) => runtime.held(uid)?.into_iter().collect(),
        None => Held::all(Path::new(RUN)).map_err(failed("list sandboxes"))?,
    };
    for held in held {
        let (ready, spec) = (held.ready(), held.spec);
        sandboxes.insert(
            spec.uid.clone(),
            Sandbox {
                address: spec.address.filter(|_| ready).map(Into::into),
                ready,
                uid: spec.uid,
                namespace: spec.namespace,
                name: spec.name,
                containers: Vec::new(),
            },
        );
    }
    let records = of_pod(runtime, uid).await?;
    let tasks = tasks(runtime, uid, &records).await?;
    for record in records {
        // Removed in the meantime.
        let Some((record, state)) = state(runtime, record, &tasks).await? else { continue };
        let uid = text(&record, label::POD_UID).to_owned();
        let sandbox = sandboxes.entry(uid.clone()).or_insert_with(|| Sandbox {
            uid,
            namespace: text(&record, label::POD_NAMESPACE).to_owned(),
            name: text(&record, label::POD_NAME).to_owned(),
            address: None,
            ready: false,
            containers: Vec::new(),
        });
        sandbox.containers.push(Container {
            name: text(&record, label::NAME).to_owned(),
            attempt: text(&record, label::ATTEMPT).parse().unwrap_or(0),
            image: text(&record, label::IMAGE).to_owned(),
            image_id: text(&record, label::IMAGE_ID).to_owned(),
            state,
            id: record.id,
        });
    }
    let mut sandboxes: Vec<Sandbox> = sandboxes.into_values().collect();
    for sandbox in &mut sandboxes {
        sandbox.containers.sort_by(|a, b| (&a.name, a.attempt).cmp(&(&b.name, b.attempt)));
    }
    Ok(sandboxes)
}

/// Tasks by container: all at once, or those of one pod one by one.
async fn tasks(
    runtime: &Containerd,
    uid: Option<&str>,
    records: &[Record],
) -> Result<HashMap<String, Process>, RuntimeError> {
    let tasks = if uid.is_some() {
        let unsettled = records.iter().filter(|record| exit(record).is_none());
        try_join_all(unsettled.map(|record| task(runtime, &record.id))).await?.into_iter().flatten().collect()
    } else {
        let reply = runtime.link().tasks().list(ListTasksRequest::default()).await;
        reply.map_err(failed("list tasks"))?.into_inner().tasks
    };
    // A list names tasks by their container, a single answer by both.
    let id = |task: &Process| {
        if task.container_id.is_empty() { task.id.clone() } else { task.container_id.clone() }
    };
    Ok(tasks.into_iter().map(|task| (id(&task), task)).collect())
}

/// What a container is doing. Where that is not recorded yet, it is now.
async fn state(
    runtime: &Containerd,
    record: Record,
    tasks: &HashMap<String, Process>,
) -> Result<Option<(Record, State)>, RuntimeError> {
    if let Some(exit) = exit(&record) {
        return Ok(Some((record, exit)));
    }
    let task = tasks.get(&record.id);
    let begun = started_at(&record);
    let turn = runtime.shared.containers.try_lock(&record.id);
    let state = match (task.filter(|task| alive(task)), begun, &turn) {
        (Some(_), Some(started_at), _) => State::Running { started_at },
        (Some(task), None, Some(_)) if task.status() != Status::Created => {
            // The kubelet died between starting it and writing that down.
            State::Running { started_at: created_at(&record) }
        }
        // Being started, or stopped and recorded, right now; a hint comes when that is done.
        (None, Some(started_at), None) => State::Running { started_at },
        (Some(_), None, _) | (None, None, None) => State::Created,
        (None, _, Some(_)) => {
            if let Err(error) = settle_locked(runtime, &record.id).await {
                tracing::warn!(container = record.id, %error, "an end is not recorded yet");
                let state = unrecorded(&record, task, begun);
                return Ok(Some((record, state)));
            }
            let Some(record) = get(runtime, &record.id).await? else { return Ok(None) };
            let state = exit(&record).unwrap_or(State::Created);
            return Ok(Some((record, state)));
        }
    };
    Ok(Some((record, state)))
}

/// The end of a container as far as it is known, for when it cannot be recorded.
fn unrecorded(record: &Record, task: Option<&Process>, started_at: Option<jiff::Timestamp>) -> State {
    State::Exited {
        started_at,
        finished_at: task.and_then(|task| time(task.exited_at)).unwrap_or_else(|| created_at(record)),
        code: task.and_then(|task| i32::try_from(task.exit_status).ok()).unwrap_or(UNKNOWN_EXIT),
        oom: false,
    }
}

/// A container's folder for what ends with the machine.
pub fn folder(id: &str) -> PathBuf {
    crate::logger::folder(id)
}

/// When a container's process began, as far as this boot knows.
fn started_at(record: &Record) -> Option<jiff::Timestamp> {
    fs::read_to_string(folder(&record.id).join("started")).ok()?.parse().ok()
}

fn created_at(record: &Record) -> jiff::Timestamp {
    time(record.created_at).unwrap_or_else(clock::now)
}

/// A recorded end.
pub fn exit(record: &Record) -> Option<State> {
    Some(State::Exited {
        code: record.labels.get(label::EXIT_CODE)?.parse().ok()?,
        started_at: record.labels.get(label::STARTED_AT).and_then(|at| at.parse().ok()),
        finished_at: text(record, label::FINISHED_AT).parse().ok()?,
        oom: text(record, label::OOM) == "true",
    })
}

/// Records a container's end if it has ended, and tells.
pub async fn settle(runtime: &Containerd, id: &str) -> Result<(), RuntimeError> {
    let _turn = runtime.shared.containers.lock(id).await;
    settle_locked(runtime, id).await
}

/// The exit code of a container that has ended; recorded by now.
pub async fn ended(runtime: &Containerd, id: &str) -> Result<Option<i32>, RuntimeError> {
    settle(runtime, id).await?;
    let record = get(runtime, id).await?;
    Ok(record.as_ref().and_then(exit).and_then(|state| match state {
        State::Exited { code, .. } => Some(code),
        _ => None,
    }))
}

/// As [`settle`], by whoever holds the container's lock.
pub async fn settle_locked(runtime: &Containerd, id: &str) -> Result<(), RuntimeError> {
    let Some(record) = get(runtime, id).await? else { return Ok(()) };
    let task = task(runtime, id).await?;
    if task.as_ref().is_some_and(alive) {
        return Ok(());
    }
    if exit(&record).is_none() {
        let started_at = started_at(&record);
        let (code, finished_at) = match &task {
            Some(task) => (i32::try_from(task.exit_status).unwrap_or(UNKNOWN_EXIT), time(task.exited_at)),
            // Neither ended nor begun in this boot: it was not started yet.
            None if started_at.is_none() && folder(id).exists() => return Ok(()),
            None => (UNKNOWN_EXIT, None),
        };
        let oom = cgroup::oom_kills(text(&record, label::CGROUP)) > 0;
        record_exit(runtime, record, code, started_at, finished_at, oom).await?;
    }
    if task.is_some() {
        delete_task(runtime, id).await?;
    }
    Ok(())
}

/// Writes an end into the record's labels, and tells.
pub async fn record_exit(
    runtime: &Containerd,
    mut record: Record,
    code: i32,
    started_at: Option<jiff::Timestamp>,
    finished_at: Option<jiff::Timestamp>,
    oom: bool,
) -> Result<(), RuntimeError> {
    let uid = text(&record, label::POD_UID).to_owned();
    let finished_at = finished_at.unwrap_or_else(clock::now);
    let mut set = |key: &str, value: String| record.labels.insert(key.to_owned(), value);
    set(label::EXIT_CODE, code.to_string());
    set(label::FINISHED_AT, finished_at.to_string());
    set(label::OOM, oom.to_string());
    if let Some(started_at) = started_at {
        set(label::STARTED_AT, started_at.to_string());
    }
    let doing = format!("record the end of the container {}", record.id);
    let request = UpdateContainerRequest {
        container: Some(record),
        update_mask: Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] }),
    };
    runtime.link().containers().update(request).await.map_err(failed(doing))?;
    runtime.hint(&uid);
    Ok(())
}

/// Deletes a task that has ended.
pub async fn delete_task(runtime: &Containerd, id: &str) -> Result<(), RuntimeError> {
    let request = DeleteTaskRequest { container_id: id.to_owned() };
    match runtime.link().tasks().delete(request).await {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        deleted => deleted.map(drop).map_err(failed(format!("delete the task of the container {id}"))),
    }
}
