//! Containers made, started, stopped and removed. Every step may be cut off by a crash; the next call goes on from what is there.

use super::accounts::check_not_root;
use super::link::{failed, found};
use super::records::{self, label};
use super::spec::{Ground, RESOURCES_TYPE, SPEC_TYPE, limits};
use super::streams::Output;
use super::{Containerd, SNAPSHOTTER, host, images::Local};
use crate::runtime::sandbox::Held;
use crate::runtime::{ContainerSpec, Resources, RuntimeError};
use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::{
    CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, KillRequest, StartRequest,
    UpdateTaskRequest, WaitRequest,
};
use containerd_client::types;
use coracle_daemon::clock;
use prost_types::Any;
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::time::Duration;
use tonic::{Code, Status};

/// The exit code that upstream gives a container whose command could not be started.
const START_ERROR_EXIT: i32 = 128;
/// How long a killed process may take to be gone.
const KILLED_MAX: Duration = Duration::from_secs(30);
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

/// The same pod, name and attempt is the same container.
pub fn id(spec: &ContainerSpec) -> String {
    super::hex(&Sha256::digest(format!("{}/{}/{}", spec.pod_uid, spec.name, spec.attempt)))
}

/// Makes and starts a container.
pub async fn start(runtime: &Containerd, spec: &ContainerSpec) -> Result<String, RuntimeError> {
    let id = id(spec);
    let _turn = runtime.shared.containers.lock(&id).await;
    // It may have been started before, and may have ended since.
    records::settle_locked(runtime, &id).await?;
    if let Some(record) = records::get(runtime, &id).await? {
        let task = records::task(runtime, &id).await?;
        if records::exit(&record).is_some() || task.as_ref().is_some_and(running) {
            return Ok(id);
        }
        if task.is_some_and(|task| task.status() == types::v1::Status::Stopped) {
            // It has ended since it was looked at. What has run once does not run again.
            records::settle_locked(runtime, &id).await?;
            return Ok(id);
        }
        // Half-made by a kubelet that died.
        remove_locked(runtime, &id).await?;
    }
    let held = runtime
        .held(&spec.pod_uid)?
        .filter(Held::ready)
        .ok_or_else(|| RuntimeError::NotFound { what: format!("sandbox of the pod {}", spec.pod_uid) })?;
    let (image_record, image) = runtime
        .shared
        .images
        .find(&spec.image)
        .await?
        .ok_or_else(|| RuntimeError::NotFound { what: format!("image {:?}", spec.image) })?;
    create(runtime, spec, &id, &held, (&image_record.name, &image)).await?;
    let mounts = prepare(runtime, &id, &image).await?;
    let output = Output::prepare(runtime, spec, &id).await?;
    match run(runtime, spec, &id, mounts, &output).await {
        Ok(()) => {}
        Err(error) => {
            output.abandon().await;
            if let RuntimeError::Start(_) = error {
                end_unstarted(runtime, &id).await?;
            }
            return Err(error);
        }
    }
    fs::write(records::folder(&id).join("started"), clock::now().to_string())
        .map_err(failed(format!("note the start of the container {id}")))?;
    runtime.hint(&spec.pod_uid);
    Ok(id)
}

/// Gives a running container other limits.
pub async fn update(runtime: &Containerd, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
    let _turn = runtime.shared.containers.lock(id).await;
    let value = limits(resources, &runtime.shared.host).to_string().into_bytes();
    let request = UpdateTaskRequest {
        container_id: id.to_owned(),
        resources: Some(Any { type_url: RESOURCES_TYPE.to_owned(), value }),
        ..UpdateTaskRequest::default()
    };
    let updated = runtime.link().tasks().update(request).await;
    updated.map(drop).map_err(failed(format!("set the limits of the container {id}")))
}

/// Whether standard input ends with the first who gives it. A terminal's never does: that would hang it up.
pub fn once(spec: &ContainerSpec) -> bool {
    spec.stdin && spec.stdin_once && !spec.tty
}

fn running(task: &types::v1::Process) -> bool {
    matches!(task.status(), types::v1::Status::Running | types::v1::Status::Paused)
}

/// The record: before the snapshot, which the garbage collector would otherwise be free to take.
async fn create(
    runtime: &Containerd,
    spec: &ContainerSpec,
    id: &str,
    held: &Held,
    (image_name, image): (&str, &Local),
) -> Result<(), RuntimeError> {
    let config = image.config.config().as_ref();
    let image_user = config.and_then(|config| config.user().clone()).unwrap_or_default();
    let pod = format!("{}_{}({})", spec.pod_name, spec.pod_namespace, spec.pod_uid);
    check_not_root(&spec.security, &image_user, &pod, &spec.name).map_err(RuntimeError::Config)?;
    let accounts = match runtime.shared.images.accounts(image).await {
        // Not unpacked yet, or its snapshots were taken by the garbage collector.
        Err(_) => {
            runtime.shared.images.unpack(image).await?;
            runtime.shared.images.accounts(image).await?
        }
        accounts => accounts?,
    };
    let user = accounts.resolve(&spec.security, &image_user).map_err(RuntimeError::Config)?;
    let devices = if spec.security.privileged { host::devices() } else { Vec::new() };
    let ground = Ground {
        container: spec,
        id,
        image: &image.config,
        user: &user,
        sandbox: held,
        host: &runtime.shared.host,
        target: target(runtime, spec).await?,
        devices: &devices,
    };
    let runtime_spec = ground.spec().map_err(RuntimeError::Config)?;
    let signal = config.and_then(|config| config.stop_signal().clone()).unwrap_or_default();
    let labels = [
        (label::STOP_SIGNAL, signal_number(&signal).unwrap_or(SIGTERM).to_string()),
        (label::CGROUP, runtime_spec["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_owned()),
        (label::STDIN, if once(spec) { "once".to_owned() } else { spec.stdin.to_string() }),
        (label::TTY, spec.tty.to_string()),
    ];
    let any = Any { type_url: SPEC_TYPE.to_owned(), value: runtime_spec.to_string().into_bytes() };
    let record = records::record(id, spec, (image_name, &image.id), &labels, any);
    let folder = records::folder(id);
    fs::create_dir_all(&folder).map_err(failed(format!("make {}", folder.display())))?;
    let request = CreateContainerRequest { container: Some(record) };
    let created = runtime.link().containers().create(request).await;
    created.map(drop).map_err(failed(format!("make the container {id}")))
}

/// The first process of the container whose processes are to be seen.
async fn target(runtime: &Containerd, spec: &ContainerSpec) -> Result<Option<u32>, RuntimeError> {
    let Some(target) = &spec.target else { return Ok(None) };
    let task = records::task(runtime, target).await?.filter(running);
    let ended = || RuntimeError::Config(format!("the target container {target} does not run"));
    task.map(|task| Some(task.pid)).ok_or_else(ended)
}

/// The container's own writable layer over the image's.
async fn prepare(runtime: &Containerd, id: &str, image: &Local) -> Result<Vec<types::Mount>, RuntimeError> {
    let doing = || format!("make the file system of the container {id}");
    let request = || PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: id.to_owned(),
        parent: image.snapshot(),
        ..PrepareSnapshotRequest::default()
    };
    let prepared = match runtime.link().snapshots().prepare(request()).await {
        Err(status) if status.code() == Code::NotFound => {
            runtime.shared.images.unpack(image).await?;
            runtime.link().snapshots().prepare(request()).await
        }
        // Left by a kubelet that died; nobody runs in it.
        Err(status) if status.code() == Code::AlreadyExists => {
            remove_snapshot(runtime, id).await?;
            runtime.link().snapshots().prepare(request()).await
        }
        prepared => prepared,
    };
    Ok(prepared.map_err(failed(doing()))?.into_inner().mounts)
}

async fn run(
    runtime: &Containerd,
    spec: &ContainerSpec,
    id: &str,
    mounts: Vec<types::Mount>,
    output: &Output,
) -> Result<(), RuntimeError> {
    let request = CreateTaskRequest {
        container_id: id.to_owned(),
        rootfs: mounts,
        stdin: output.stdin(),
        stdout: output.stdout(),
        stderr: output.stderr(),
        terminal: spec.tty,
        ..CreateTaskRequest::default()
    };
    let created = runtime.link().tasks().create(request).await;
    created.map_err(|status| not_started("failed to create containerd task", status, id))?;
    let request = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
    let started = runtime.link().tasks().start(request).await;
    started
        .map(drop)
        .map_err(|status| not_started(&format!("failed to start containerd task {id:?}"), status, id))
}

/// The low-level runtime's own refusals are about the container's command; all else is about us.
fn not_started(what: &str, status: Status, id: &str) -> RuntimeError {
    if status.code() == Code::Unknown || status.message().contains("OCI runtime") {
        RuntimeError::Start(format!("{what}: {}", status.message()))
    } else {
        failed(format!("start the container {id}"))(status)
    }
}

/// A container whose command could not be started counts as one that ran and ended.
async fn end_unstarted(runtime: &Containerd, id: &str) -> Result<(), RuntimeError> {
    if records::task(runtime, id).await?.is_some() {
        kill(runtime, id, SIGKILL).await?;
        records::delete_task(runtime, id).await?;
    }
    if let Some(record) = records::get(runtime, id).await? {
        let now = clock::now();
        records::record_exit(runtime, record, START_ERROR_EXIT, Some(now), Some(now), false).await?;
    }
    Ok(())
}

/// Stops a container; returns once it has ended.
pub async fn stop(runtime: &Containerd, id: &str, grace: Duration) -> Result<(), RuntimeError> {
    let Some(record) = records::get(runtime, id).await? else { return Ok(()) };
    let task = records::task(runtime, id).await?;
    if task.as_ref().is_some_and(records::alive) {
        let request = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
        let mut tasks = runtime.link().patient().tasks();
        let end = async { tasks.wait(request).await.map(drop) };
        tokio::pin!(end);
        let signal = records::text(&record, label::STOP_SIGNAL).parse().unwrap_or(SIGTERM);
        let mut ended = None;
        if !grace.is_zero() {
            kill(runtime, id, signal).await?;
            ended = clock::timeout(grace, &mut end).await.ok();
        }
        if ended.is_none() {
            kill(runtime, id, SIGKILL).await?;
            ended = clock::timeout(KILLED_MAX, &mut end).await.ok();
        }
        let doing = || format!("stop the container {id}");
        let ended = ended.ok_or_else(|| failed(doing())("it does not end although it was killed"))?;
        // Its shim may have gone before it could answer; what is recorded is what counts.
        if let Err(status) = ended
            && records::ended(runtime, id).await?.is_none()
            && records::get(runtime, id).await?.is_some()
        {
            return Err(failed(doing())(status));
        }
    }
    records::settle(runtime, id).await
}

async fn kill(runtime: &Containerd, id: &str, signal: u32) -> Result<(), RuntimeError> {
    let request = KillRequest {
        container_id: id.to_owned(),
        exec_id: String::new(),
        signal,
        // Where process namespaces are shared, killing the first process alone would leave the others.
        all: signal == SIGKILL,
    };
    match runtime.link().tasks().kill(request).await {
        // It ended by itself in the meantime.
        Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => Ok(()),
        killed => killed.map(drop).map_err(failed(format!("send signal {signal} to the container {id}"))),
    }
}

/// Forgets a container.
pub async fn remove(runtime: &Containerd, id: &str) -> Result<(), RuntimeError> {
    let _turn = runtime.shared.containers.lock(id).await;
    remove_locked(runtime, id).await
}

async fn remove_locked(runtime: &Containerd, id: &str) -> Result<(), RuntimeError> {
    let record = records::get(runtime, id).await?;
    if let Some(task) = records::task(runtime, id).await? {
        if records::alive(&task) {
            let request = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
            let mut tasks = runtime.link().patient().tasks();
            kill(runtime, id, SIGKILL).await?;
            // A task that was never started has nothing to wait for.
            if running(&task) {
                let ended = clock::timeout(KILLED_MAX, tasks.wait(request)).await;
                let ended = ended.map_err(failed(format!("end the container {id}")))?;
                found(ended).map_err(failed(format!("end the container {id}")))?;
            }
        }
        records::delete_task(runtime, id).await?;
    }
    remove_snapshot(runtime, id).await?;
    let deleted = runtime.link().containers().delete(DeleteContainerRequest { id: id.to_owned() }).await;
    found(deleted).map_err(failed(format!("remove the container {id}")))?;
    super::streams::end_logger(&records::folder(id)).await;
    match fs::remove_dir_all(records::folder(id)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(failed(format!("remove the folder of the container {id}")))?,
    }
    if let Some(record) = record {
        runtime.hint(records::text(&record, label::POD_UID));
    }
    Ok(())
}

async fn remove_snapshot(runtime: &Containerd, id: &str) -> Result<(), RuntimeError> {
    let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: id.to_owned() };
    let removed = found(runtime.link().snapshots().remove(request).await);
    removed.map(drop).map_err(failed(format!("remove the file system of the container {id}")))
}

/// `SIGQUIT`, `QUIT`, `3` or `RTMIN+1` as a number.
fn signal_number(name: &str) -> Option<u32> {
    let name = name.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        // As the kernel sees it, before the C library takes two for itself.
        let offset: u32 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        return (offset <= 30).then_some(34 + offset);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().and_then(|s| u32::try_from(s as i32).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_understood_as_images_write_them() {
        let rows = [
            ("SIGQUIT", Some(3)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("", None),
            ("SIGNOSUCH", None),
            ("99", None),
        ];
        for (name, expected) in rows {
            assert_eq!(signal_number(name), expected, "{name}");
        }
    }
}
