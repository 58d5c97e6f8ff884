//! `/containerLogs`: which run's file, and how much of it.

mod entry;
mod follow;

use super::{Streaming, spec_of};
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use coracle_client::Key;
use coracle_daemon::clock;
use entry::{Printer, Wanted};
use follow::{Log, Run};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::convert::Infallible;
use std::path::Path as FilePath;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use url::form_urlencoded;

/// Chunks that wait for the client.
const WAITING_MAX: usize = 4;

/// A log request's query.
#[derive(Debug, Default, PartialEq)]
struct Options {
    follow: bool,
    previous: bool,
    wanted: Wanted,
}

impl Options {
    /// The apiserver has validated these already, except when it was not asked.
    fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut options = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let on = value == "true" || value == "1";
            let bad = || format!("invalid {name}: {value:?}");
            let number = || value.parse::<u64>().map_err(|_| bad());
            match &*name {
                "follow" => options.follow = on,
                "previous" => options.previous = on,
                "timestamps" => options.wanted.timestamps = on,
                "tailLines" => options.wanted.tail = Some(usize::try_from(number()?).unwrap_or(usize::MAX)),
                "limitBytes" => options.wanted.limit = Some(number()?),
                "sinceSeconds" => {
                    let ago = SignedDuration::from_secs(i64::try_from(number()?).map_err(|_| bad())?);
                    options.wanted.since = Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN));
                }
                "sinceTime" => options.wanted.since = Some(value.parse().map_err(|_| bad())?),
                "stream" => {
                    options.wanted.stream = match &*value {
                        "" | "All" => None,
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        _ => return Err(bad()),
                    }
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

/// Answers a log request.
pub async fn serve(
    State(streaming): State<Streaming>,
    Path((namespace, pod, container)): super::Named,
    RawQuery(query): RawQuery,
) -> Response {
    let options = match Options::parse(&query.unwrap_or_default(), clock::now()) {
        Ok(options) => options,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let key = Key::new(namespace, pod);
    let Some(known) = streaming.pods.get(&key) else {
        return (StatusCode::NOT_FOUND, format!("pod {:?} does not exist", key.name)).into_response();
    };
    if spec_of(&known, &container).is_none() {
        let text = format!("container {container} is not valid for pod {}", key.name);
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let Some(runtime) = streaming.runtime.clone() else { return text(Body::empty()) };
    let uid = known.metadata.uid.clone().unwrap_or_default();
    let folder = streaming.logs.join(format!("{}_{}_{uid}", key.namespace, key.name)).join(&container);
    let attempt = match choose(&attempts(&folder).await, status_of(&known, &container), options.previous) {
        Ok(attempt) => attempt,
        Err(why) => {
            let text = why.text(&container, &key.name);
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    let (chunks, body) = mpsc::channel(WAITING_MAX);
    let log = Log {
        file: folder.join(format!("{attempt}.log")),
        folder,
        run: Run { runtime, uid, container, attempt },
        pod: key.clone(),
        // Subscribed before anything is looked at, so that no change is missed.
        changed: streaming.changed.subscribe(),
    };
    let stop = streaming.tasks.stopping();
    streaming.tasks.run(format!("log of {key}"), async move {
        let printer = Printer::new(options.wanted);
        let told = stop.run_until_cancelled(log.tell(printer, options.follow, chunks)).await;
        if let Some(Err(error)) = told {
            tracing::warn!(%error, "cannot read a log");
        }
    });
    text(Body::from_stream(ReceiverStream::new(body).map(Ok::<_, Infallible>)))
}

fn text(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|known| known.name == container)
}

/// The runs that have a log, in order.
async fn attempts(folder: &FilePath) -> Vec<u32> {
    let mut attempts = Vec::new();
    // No folder means no run so far.
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return attempts };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        attempts.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    attempts.sort_unstable();
    attempts
}

/// Why there is no log.
#[derive(Debug, PartialEq, Eq)]
enum NoLog {
    Previous,
    Waiting(String),
}

impl NoLog {
    fn text(&self, container: &str, pod: &str) -> String {
        match self {
            Self::Previous => format!("previous terminated container {container:?} in pod {pod:?} not found"),
            Self::Waiting(why) => {
                format!("container {container:?} in pod {pod:?} is waiting to start: {why}")
            }
        }
    }
}

/// Which run to tell of: the latest, or the last that ended before the current one.
fn choose(attempts: &[u32], status: Option<&ContainerStatus>, previous: bool) -> Result<u32, NoLog> {
    let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
    match (attempts, previous) {
        // A container that waits for its next run has no current one: the latest has ended.
        ([.., last], true) if waiting.is_some() => Ok(*last),
        ([.., before, _], true) => Ok(*before),
        (_, true) => Err(NoLog::Previous),
        ([.., last], false) => Ok(*last),
        ([], false) => Err(NoLog::Waiting(match reason {
            Some("ErrImagePull") => "image can't be pulled".to_owned(),
            Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
            reason => reason.unwrap_or("ContainerCreating").to_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting};

    #[test]
    fn the_run_asked_for_is_found_or_said_to_be_missing() {
        let waiting = |reason: &str| ContainerStatus {
            state: Some(ContainerState {
                waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message: None }),
                ..ContainerState::default()
            }),
            ..ContainerStatus::default()
        };
        let backing_off = waiting("CrashLoopBackOff");
        let pulling = waiting("ErrImagePull");
        let waits = |why: &str| Err(NoLog::Waiting(why.to_owned()));
        let rows = [
            (&[0, 1, 2][..], None, false, Ok(2)),
            (&[0, 1, 2], None, true, Ok(1)),
            (&[0, 1], Some(&backing_off), true, Ok(1)),
            (&[0, 1], Some(&backing_off), false, Ok(1)),
            (&[0], None, true, Err(NoLog::Previous)),
            (&[], None, true, Err(NoLog::Previous)),
            (&[], None, false, waits("ContainerCreating")),
            (&[], Some(&pulling), false, waits("image can't be pulled")),
        ];
        for (attempts, status, previous, expected) in rows {
            assert_eq!(choose(attempts, status, previous), expected, "{attempts:?} {previous}");
        }
        let text = NoLog::Previous.text("c", "p");
        assert_eq!(text, r#"previous terminated container "c" in pod "p" not found"#);
        let text = NoLog::Waiting("ContainerCreating".into()).text("c", "p");
        assert_eq!(text, r#"container "c" in pod "p" is waiting to start: ContainerCreating"#);
    }

    #[test]
    fn queries_are_understood() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let query =
            "follow=true&previous=1&timestamps=true&tailLines=3&limitBytes=9&sinceSeconds=5&stream=Stderr";
        let expected = Options {
            follow: true,
            previous: true,
            wanted: Wanted {
                timestamps: true,
                tail: Some(3),
                limit: Some(9),
                since: Some("2026-01-02T03:04:00Z".parse().unwrap()),
                stream: Some("stderr"),
            },
        };
        assert_eq!(Options::parse(query, now), Ok(expected));
        assert_eq!(Options::parse("tailLines=x", now), Err(r#"invalid tailLines: "x""#.to_owned()));
        assert_eq!(Options::parse("sinceTime=noon", now), Err(r#"invalid sinceTime: "noon""#.to_owned()));
    }
}
