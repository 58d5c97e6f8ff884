//! What clients do inside containers: logs, exec, attach and port-forward, as HTTP handlers for the kubelet's server.
//!
//! ```text
//! request ──► target (pod, container) ──► upgrade::negotiate ──► 101 ──► websocket ┐
//!                                                                  └──► spdy ───┴──► session | forward ──► Runtime
//! /containerLogs ──► logs ──► files in /var/log/pods
//! ```
//!
//! Invariants: what can be refused is refused before the upgrade, with upstream's texts; every queue and message is bounded;
//! a client that leaves ends its command.

mod forward;
mod logs;
mod remote;
mod session;
mod spdy;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod upgrade;
mod websocket;

use crate::runtime::simulated::NO_CONTAINERS;
use crate::runtime::{Runtime, State as Doing};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use coracle_client::{Key, Store};
use coracle_daemon::Tasks;
use k8s_openapi::api::core::v1::{Container, Pod};
use session::Session;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Semaphore, broadcast};
use upgrade::{Refusal, Wanted};
use url::form_urlencoded;

/// Sessions at a time.
const SESSIONS_MAX: usize = 512;
/// Changed pods that wait for the followers of logs to look.
const CHANGES_MAX: usize = 256;

/// What the handlers know.
#[derive(Clone)]
pub struct Streaming {
    /// `None` for nodes without containers.
    runtime: Option<Arc<dyn Runtime>>,
    pods: Store<Pod>,
    /// `/var/log/pods`
    logs: PathBuf,
    tasks: Tasks,
    changed: broadcast::Sender<Key>,
    slots: Arc<Semaphore>,
}

impl Streaming {
    /// Handlers for these pods; without a runtime, for pods that have no containers.
    #[must_use]
    pub fn new(runtime: Option<Arc<dyn Runtime>>, pods: Store<Pod>, logs: PathBuf, tasks: Tasks) -> Self {
        let (changed, _) = broadcast::channel(CHANGES_MAX);
        let tell = changed.clone();
        pods.on_change(move |change| {
            // Mostly nobody follows a log.
            let _ = tell.send(change.key.clone());
        });
        Self { runtime, pods, logs, tasks, changed, slots: Arc::new(Semaphore::new(SESSIONS_MAX)) }
    }
}

/// The routes, to be merged into the kubelet's server, which must let connections be upgraded.
pub fn router(streaming: Streaming) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/attach/{namespace}/{pod}/{container}", any(attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward))
        .with_state(streaming)
}

type Named = Path<(String, String, String)>;

async fn exec(
    State(streaming): State<Streaming>,
    Path((namespace, pod, container)): Named,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Response {
    let options = Options::parse(&query.unwrap_or_default());
    let target = Target { namespace, pod, container };
    answer(streaming.session(&target, options, true, request).await)
}

async fn attach(
    State(streaming): State<Streaming>,
    Path((namespace, pod, container)): Named,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Response {
    let options = Options::parse(&query.unwrap_or_default());
    let target = Target { namespace, pod, container };
    answer(streaming.session(&target, options, false, request).await)
}

async fn port_forward(
    State(streaming): State<Streaming>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Response {
    answer(streaming.forward(&namespace, &pod, &query.unwrap_or_default(), request))
}

fn answer(answered: Result<Response, Refusal>) -> Response {
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// The container of a request.
struct Target {
    namespace: String,
    pod: String,
    container: String,
}

/// exec's and attach's query, in the kubelet's words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    command: Vec<String>,
}

impl Options {
    fn parse(query: &str) -> Self {
        let mut options = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let on = value == "1" || value == "true";
            match &*name {
                "input" | "stdin" => options.stdin = on,
                "output" | "stdout" => options.stdout = on,
                "error" | "stderr" => options.stderr = on,
                "tty" => options.tty = on,
                "command" => options.command.push(value.into_owned()),
                _ => {}
            }
        }
        options
    }
}

impl Streaming {
    async fn session(
        &self,
        target: &Target,
        options: Options,
        exec: bool,
        request: Request<Body>,
    ) -> Result<Response, Refusal> {
        let runtime = self.runtime()?;
        let (pod, uid) = self.pod(&target.namespace, &target.pod)?;
        if !options.stdin && !options.stdout && !options.stderr {
            let text = "you must specify at least 1 of stdin, stdout, stderr";
            return Err((StatusCode::BAD_REQUEST, text.to_owned()));
        }
        if exec && options.command.is_empty() {
            return Err((StatusCode::BAD_REQUEST, "you must specify a command".to_owned()));
        }
        let container = running(&*runtime, &uid, &target.container).await?;
        // An attachment has a terminal when the container has; a command when it is asked for.
        let own = spec_of(&pod, &target.container).is_some_and(|spec| spec.tty == Some(true));
        let tty = if exec { options.tty } else { own };
        let session = Session {
            runtime,
            container,
            command: exec.then_some(options.command),
            tty,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr && !tty,
        };
        let wanted = upgrade::negotiate(request.headers(), &websocket::PROTOCOLS, &remote::PROTOCOLS)?;
        let Target { namespace, pod, container } = target;
        let name = format!("session in {namespace}/{pod}/{container}");
        self.upgrade(name, request, wanted, |io, wanted| async move {
            match wanted {
                Wanted::WebSocket(protocol) => {
                    websocket::serve(upgrade::websocket(io).await, &protocol, session).await;
                }
                Wanted::Spdy(protocol) => remote::serve(io, &protocol, session).await,
            }
        })
    }

    fn forward(
        &self,
        namespace: &str,
        pod: &str,
        query: &str,
        request: Request<Body>,
    ) -> Result<Response, Refusal> {
        let runtime = self.runtime()?;
        let (_, uid) = self.pod(namespace, pod)?;
        let wanted = upgrade::negotiate(request.headers(), &forward::PROTOCOLS, &[forward::SPDY_PROTOCOL])?;
        let name = format!("port-forward to {namespace}/{pod}");
        let pod = forward::Pod { runtime, name: pod.to_owned(), uid };
        let ports = match &wanted {
            Wanted::WebSocket(protocol) if !protocol.starts_with(upgrade::TUNNEL_PREFIX) => ports(query)?,
            _ => Vec::new(),
        };
        self.upgrade(name, request, wanted, |io, wanted| async move {
            match wanted {
                Wanted::WebSocket(protocol) if ports.is_empty() => {
                    tracing::debug!(protocol, "port-forward in a tunnel");
                    forward::serve_tunnelled(io, pod).await;
                }
                Wanted::WebSocket(protocol) => forward::serve_channels(io, &protocol, &ports, pod).await,
                Wanted::Spdy(_) => forward::serve(io, pod).await,
            }
        })
    }

    /// Grants the upgrade; `serve` has the connection from then on.
    fn upgrade<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: String,
        request: Request<Body>,
        wanted: Wanted,
        serve: impl FnOnce(upgrade::Upgraded, Wanted) -> F + Send + 'static,
    ) -> Result<Response, Refusal> {
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "too many sessions".to_owned()))?;
        let response = upgrade::grant(request.headers(), &wanted);
        let stop = self.tasks.stopping();
        self.tasks.run(name, async move {
            let _slot = slot;
            match upgrade::upgraded(request).await {
                Ok(io) => drop(stop.run_until_cancelled(serve(io, wanted)).await),
                Err(error) => tracing::debug!(%error, "a client left before its upgrade"),
            }
        });
        Ok(response)
    }

    fn runtime(&self) -> Result<Arc<dyn Runtime>, Refusal> {
        self.runtime.clone().ok_or_else(|| (StatusCode::NOT_IMPLEMENTED, NO_CONTAINERS.to_owned()))
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<(Arc<Pod>, String), Refusal> {
        let pod = self.pods.get(&Key::new(namespace, name));
        let pod = pod.ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".to_owned()))?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        Ok((pod, uid))
    }
}

/// The id of the container's latest run, which must not have ended.
async fn running(runtime: &dyn Runtime, uid: &str, container: &str) -> Result<String, Refusal> {
    let refuse = |text: String| (StatusCode::INTERNAL_SERVER_ERROR, text);
    let sandbox = runtime.sandbox(uid).await.map_err(|error| refuse(session::told(&error)))?;
    let runs = sandbox.into_iter().flat_map(|sandbox| sandbox.containers);
    let latest = runs.filter(|run| run.name == container).max_by_key(|run| run.attempt);
    match latest {
        None => Err(refuse(format!("container not found ({container:?})"))),
        Some(run) => match run.state {
            Doing::Running { .. } => Ok(run.id),
            Doing::Created => Err(refuse("container is in CONTAINER_CREATED state".to_owned())),
            Doing::Exited { .. } => Err(refuse("container is in CONTAINER_EXITED state".to_owned())),
        },
    }
}

/// A container of a pod, of whichever kind.
fn spec_of(pod: &Pod, container: &str) -> Option<Container> {
    crate::step::container_named(pod.spec.as_ref()?, container)
}

/// The ports that a WebSocket client names in its query, alone or as lists.
fn ports(query: &str) -> Result<Vec<u16>, Refusal> {
    let refuse = |text: String| (StatusCode::BAD_REQUEST, text);
    let named =
        form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "port" || name == "ports");
    let texts: Vec<String> =
        named.flat_map(|(_, list)| list.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
    let ports = texts.iter().map(|text| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(refuse(format!("invalid port {text:?}"))),
    });
    let ports = ports.collect::<Result<Vec<u16>, Refusal>>()?;
    match ports.len() {
        0 => Err(refuse("query parameter \"port\" is required".to_owned())),
        count if count > forward::PORTS_MAX => Err(refuse(format!("at most {} ports", forward::PORTS_MAX))),
        _ => Ok(ports),
    }
}
