//! containerd's events in, recorded ends and hints out. After every new connection all containers are looked at, because
//! events of the time between are lost.

use super::{Containerd, PAUSE_MAX, PAUSE_MIN, exec, records};
use containerd_client::events::TaskExit;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use coracle_daemon::clock;
use prost_types::Any;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Asked for again until seen: containerd does not tell otherwise that a subscription has begun.
const ECHO_TOPIC: &str = "/coracle/echo";
const ECHO_PAUSE: Duration = Duration::from_millis(20);

/// Follows events until `stop`.
pub async fn follow(runtime: Containerd, stop: CancellationToken) -> anyhow::Result<()> {
    let mut pause = PAUSE_MIN;
    loop {
        let before = clock::Instant::now();
        let ended = tokio::select! {
            ended = subscribe(&runtime) => ended,
            () = stop.cancelled() => return Ok(()),
        };
        if before.elapsed() > PAUSE_MAX {
            pause = PAUSE_MIN;
        }
        if let Err(error) = ended {
            tracing::warn!(%error, "containerd's events stopped; asking again");
        }
        tokio::select! {
            () = clock::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn subscribe(runtime: &Containerd) -> Result<(), Status> {
    let filters = vec!["topic==\"/tasks/exit\"".to_owned(), format!("topic==\"{ECHO_TOPIC}\"")];
    let echo = uuid::Uuid::new_v4().to_string();
    let begun = CancellationToken::new();
    let receive = async {
        let mut events =
            runtime.link().patient().events().subscribe(SubscribeRequest { filters }).await?.into_inner();
        while let Some(event) = events.message().await? {
            match (event.topic.as_str(), event.event) {
                (ECHO_TOPIC, Some(payload)) if payload.value == echo.as_bytes() => begun.cancel(),
                ("/tasks/exit", Some(payload)) => exited(runtime, &payload),
                _ => {}
            }
        }
        Err(Status::unavailable("the stream of events ended"))
    };
    let look = async {
        call_until_heard(runtime, &echo, &begun).await?;
        look_at_all(runtime);
        std::future::pending::<Result<(), Status>>().await
    };
    tokio::select! { ended = receive => ended, ended = look => ended }
}

async fn call_until_heard(runtime: &Containerd, echo: &str, begun: &CancellationToken) -> Result<(), Status> {
    while !begun.is_cancelled() {
        let event = Any { type_url: "coracle.echo".to_owned(), value: echo.as_bytes().to_vec() };
        let request = PublishRequest { topic: ECHO_TOPIC.to_owned(), event: Some(event) };
        runtime.link().events().publish(request).await?;
        tokio::select! { () = begun.cancelled() => {}, () = clock::sleep(ECHO_PAUSE) => {} }
    }
    Ok(())
}

fn exited(runtime: &Containerd, payload: &Any) {
    // containerd leaves out the leading slash that `Any::to_msg` wants.
    match <TaskExit as prost::Message>::decode(payload.value.as_slice()) {
        // The end of a container's first process; others are waited for by whoever started them.
        Ok(exit) if exit.id == exit.container_id => {
            let (runtime, id) = (runtime.clone(), exit.container_id);
            let tasks = runtime.shared.tasks.clone();
            tasks.run(format!("end of container {id}"), async move {
                if let Err(error) = records::settle(&runtime, &id).await {
                    tracing::warn!(container = id, %error, "an end is not recorded yet");
                }
            });
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "an exit event cannot be read"),
    }
}

/// Records what ended unseen, and hints at every pod.
fn look_at_all(runtime: &Containerd) {
    let runtime = runtime.clone();
    let tasks = runtime.shared.tasks.clone();
    tasks.run("look at all containers", async move {
        match records::list(&runtime, None).await {
            Ok(sandboxes) => sandboxes.iter().for_each(|sandbox| runtime.hint(&sandbox.uid)),
            Err(error) => tracing::warn!(%error, "containers cannot be listed"),
        }
        // Whoever was attached last left while nobody was here to tell containerd.
        if let Err(error) = exec::close_left_inputs(&runtime).await {
            tracing::warn!(%error, "containers' inputs cannot be closed");
        }
    });
}
