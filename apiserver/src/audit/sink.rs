//! How events get to the log or to a webhook: each before its request goes on, or in batches behind it (`--audit-log-mode`).
//!
//! In: events. Out: events at their target, in their order where that is a file. Invariants: what waits is bounded, and what
//! finds no place is counted as lost; a stop delivers what waits.

use super::event::{Event, Form};
use super::log::Log;
use crate::outbound::remote::Remote;
use coracle_daemon::clock::Instant;
use coracle_daemon::{Tasks, clock};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Batches that are on their way to a webhook at once. While one hangs, others wait, and then what finds no place is lost.
const UNDER_WAY: usize = 32;

/// When a request goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// At once: events are written behind it.
    Batch,
    /// Once its event is written, or could not be.
    #[default]
    Blocking,
    /// Once its event is written; what cannot be noted is not done.
    BlockingStrict,
}

/// A bound on batches.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    /// A second.
    pub qps: f64,
    /// At once.
    pub burst: f64,
}

/// How batches are made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batches {
    /// Events that may wait.
    pub buffer: usize,
    /// Events of one batch.
    pub size: usize,
    /// How long a batch waits for more.
    pub wait: Duration,
    /// How many there may be.
    pub throttle: Option<Throttle>,
}

/// How events get to a target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// `log` or `webhook`.
    pub whose: &'static str,
    /// When requests go on.
    pub mode: Mode,
    /// Of the batch mode.
    pub batches: Batches,
    /// Bytes of an event, if they are bounded.
    pub event_max: Option<usize>,
}

/// Where events go.
#[derive(Clone)]
pub enum Target {
    /// To a file.
    Log(Arc<Log>, Form),
    /// To a server; again after so long.
    Webhook(Arc<Remote>, Duration),
}

/// A way to a target.
pub struct Sink {
    settings: Settings,
    target: Target,
    /// To the task that delivers, in batch mode.
    waiting: Option<mpsc::Sender<Vec<u8>>>,
    failures: Counter,
}

impl Target {
    fn encoded(&self, event: &Event) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Log(_, form) => {
                let mut line = form.line(event)?;
                line.push(b'\n');
                Ok(line)
            }
            Self::Webhook(..) => event.listed(),
        }
    }

    /// Delivers while the request waits.
    fn deliver_now(&self, item: Vec<u8>) -> Result<(), String> {
        match self {
            Self::Log(log, _) => log.write(&item).map_err(|error| error.to_string()),
            Self::Webhook(..) => tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(self.deliver(vec![item]))
            }),
        }
    }

    async fn deliver(&self, batch: Vec<Vec<u8>>) -> Result<(), String> {
        match self {
            Self::Log(log, _) => {
                let log = log.clone();
                // Disks are slow, and requests run on these threads.
                let work = move || batch.iter().try_for_each(|line| log.write(line));
                let written = tokio::task::spawn_blocking(work).await;
                written.map_or(Ok(()), |written| written.map_err(|error| error.to_string()))
            }
            Self::Webhook(remote, pause) => {
                let items: Vec<&str> =
                    batch.iter().filter_map(|item| std::str::from_utf8(item).ok()).collect();
                let list = format!(
                    "{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{{}},\"items\":[{}]}}",
                    items.join(",")
                );
                remote.tell(list.into(), *pause).await.map_err(|error| error.to_string())
            }
        }
    }
}

impl Sink {
    /// To a target; what is lost is counted.
    pub fn new(settings: Settings, target: Target, failures: Counter, tasks: &Tasks) -> Self {
        let waiting = (settings.mode == Mode::Batch).then(|| {
            let (send, items) = mpsc::channel(settings.batches.buffer.max(1));
            let delivery = Delivery {
                target: target.clone(),
                batches: settings.batches,
                failures: failures.clone(),
                tasks: tasks.clone(),
            };
            tasks.run(format!("audit {}", settings.whose), delivery.run(items));
            send
        });
        Self { settings, target, waiting, failures }
    }

    /// Takes an event; whether what it tells of may go on.
    pub fn take(&self, event: &Event) -> bool {
        let item = match self.bounded(event) {
            Ok(item) => item,
            Err(why) => {
                self.lost(&why);
                return true;
            }
        };
        let Some(waiting) = &self.waiting else {
            let Err(error) = self.target.deliver_now(item) else { return true };
            self.lost(&error);
            return self.settings.mode != Mode::BlockingStrict;
        };
        if waiting.try_send(item).is_err() {
            self.lost("audit buffer queue blocked");
        }
        true
    }

    /// The event as it is told; without bodies where it would be too large.
    fn bounded(&self, event: &Event) -> Result<Vec<u8>, String> {
        let encoded = |event: &Event| self.target.encoded(event).map_err(|error| error.to_string());
        let Some(most) = self.settings.event_max else { return encoded(event) };
        let fits = |event: &Event| event.size().is_ok_and(|size| size <= most);
        if fits(event) {
            return encoded(event);
        }
        let cut = event.truncated().ok_or("event is too large even after truncating")?;
        if !fits(&cut) {
            return Err("event is too large even after truncating".to_owned());
        }
        encoded(&cut)
    }

    fn lost(&self, why: &str) {
        self.failures.inc();
        tracing::error!(whose = self.settings.whose, why, "an audit event is lost");
    }
}

/// What delivers batches.
struct Delivery {
    target: Target,
    batches: Batches,
    failures: Counter,
    tasks: Tasks,
}

impl Delivery {
    /// Delivers batches until the process stops, and what waits then.
    async fn run(self, mut items: mpsc::Receiver<Vec<u8>>) {
        let (stop, size) = (self.tasks.stopping(), self.batches.size.max(1));
        let mut bucket = self.batches.throttle.map(Bucket::new);
        let under_way = Arc::new(Semaphore::new(UNDER_WAY));
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                _ = items.recv_many(&mut batch, size) => {}
                // No more are taken; those that wait are still told.
                () = stop.cancelled(), if !items.is_closed() => items.close(),
            }
            if batch.is_empty() && items.is_closed() {
                return;
            }
            if !self.batches.wait.is_zero() && !batch.is_empty() {
                tokio::select! {
                    _ = clock::timeout(self.batches.wait, fill(&mut items, &mut batch, size)) => {}
                    () = stop.cancelled() => {}
                }
            }
            if batch.is_empty() {
                continue;
            }
            if let Some(bucket) = &mut bucket {
                tokio::select! {
                    () = bucket.turn() => {}
                    () = stop.cancelled() => {}
                }
            }
            let (target, failures, count) = (self.target.clone(), self.failures.clone(), batch.len() as u64);
            let work = async move {
                if let Err(error) = target.deliver(batch).await {
                    failures.inc_by(count);
                    tracing::error!(error, count, "audit events are lost");
                }
            };
            match self.target {
                Target::Log(..) => work.await,
                // One that is slow does not hold up the others.
                Target::Webhook(..) => {
                    let Ok(permit) = under_way.clone().acquire_owned().await else { return };
                    self.tasks.run("audit batch", async move {
                        work.await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

/// How long a turn is waited for at most; flags may ask for next to none.
const TURN_MAX: Duration = Duration::from_secs(1 << 30);

/// Turns that there are so many of at once, and so many a second.
struct Bucket {
    throttle: Throttle,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new(throttle: Throttle) -> Self {
        Self { throttle, left: throttle.burst, at: Instant::now() }
    }

    async fn turn(&mut self) {
        let Throttle { qps, burst } = self.throttle;
        let now = Instant::now();
        let more = now.saturating_duration_since(self.at).as_secs_f64() * qps;
        self.left = (self.left + more).min(burst) - 1.0;
        self.at = now;
        if self.left < 0.0 {
            clock::sleep(Duration::try_from_secs_f64(-self.left / qps).unwrap_or(TURN_MAX)).await;
        }
    }
}

/// Waits until a batch is full, or nothing more comes.
async fn fill(items: &mut mpsc::Receiver<Vec<u8>>, batch: &mut Vec<Vec<u8>>, size: usize) {
    while batch.len() < size {
        let Some(item) = items.recv().await else { return };
        batch.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event;
    use crate::audit::log::Keep;
    use futures::FutureExt;
    use std::path::Path;

    fn sink(path: &Path, mode: Mode, batches: Batches, tasks: &Tasks) -> Sink {
        let log = Arc::new(Log::open(path, Keep::default()).expect("a log"));
        let settings = Settings { whose: "log", mode, batches, event_max: Some(2000) };
        Sink::new(settings, Target::Log(log, Form::Json), Counter::default(), tasks)
    }

    #[tokio::test]
    async fn a_batch_is_written_behind_and_a_stop_writes_what_waits() {
        let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
        let path = folder.path().join("audit.log");
        let batches =
            Batches { buffer: 100, size: 10, wait: Duration::from_secs(3600), ..Batches::default() };
        let sink = sink(&path, Mode::Batch, batches, &tasks);
        for at in 0..25 {
            assert!(sink.take(&event::tests::of(&format!("/{at}"), 0)));
        }
        tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
        let text = std::fs::read_to_string(&path).expect("a log");
        let told: Vec<bool> = text
            .lines()
            .enumerate()
            .map(|(at, line)| line.contains(&format!("\"requestURI\":\"/{at}\"")))
            .collect();
        assert_eq!(told, [true; 25]);
    }

    #[tokio::test]
    async fn what_finds_no_place_is_counted_as_lost_and_holds_nobody_up() {
        let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
        let batches = Batches { buffer: 2, size: 1, ..Batches::default() };
        let sink = sink(&folder.path().join("audit.log"), Mode::Batch, batches, &tasks);
        // Nothing is written before this task waits.
        assert!((0..10).all(|_| sink.take(&event::tests::of("/", 0))));
        assert_eq!(sink.failures.get(), 8);
        tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    }

    #[tokio::test]
    async fn only_the_strict_mode_refuses_what_cannot_be_noted() {
        let tasks = Tasks::new();
        for (mode, goes_on) in [(Mode::Blocking, true), (Mode::BlockingStrict, false)] {
            let sink = sink(Path::new("/dev/full"), mode, Batches::default(), &tasks);
            assert_eq!(sink.take(&event::tests::of("/", 0)), goes_on, "{mode:?}");
            assert_eq!(sink.failures.get(), 1);
        }
    }

    #[tokio::test]
    async fn events_that_are_too_large_are_told_without_bodies_or_not_at_all() {
        let (folder, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
        let path = folder.path().join("audit.log");
        let sink = sink(&path, Mode::Blocking, Batches::default(), &tasks);
        assert!(sink.take(&event::tests::of("/small", 10)));
        assert!(sink.take(&event::tests::of("/large", 4000)));
        assert!(sink.take(&event::tests::of(&"/x".repeat(2000), 4000)));
        assert_eq!(sink.failures.get(), 1);
        let text = std::fs::read_to_string(&path).expect("a log");
        let told: Vec<(bool, bool)> = text
            .lines()
            .map(|line| {
                (line.contains("requestObject"), line.contains("\"audit.k8s.io/truncated\":\"true\""))
            })
            .collect();
        assert_eq!(told, [(true, false), (false, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_batches_pass_than_there_are_turns() {
        let mut bucket = Bucket::new(Throttle { qps: 2.0, burst: 3.0 });
        let began = Instant::now();
        for _ in 0..5 {
            bucket.turn().await;
        }
        assert_eq!(began.elapsed().as_millis() / 100, 10);
        let mut rare = Bucket::new(Throttle { qps: f64::MIN_POSITIVE, burst: 1.0 });
        rare.turn().await;
        assert!(rare.turn().now_or_never().is_none());
    }
}
