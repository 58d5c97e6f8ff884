//! The gate that every short request passes: it runs at once, waits for its turn, or is sent away with 429.
//!
//! Exempt requests take no lock. A seat is given back when its [`Permit`] goes, however that happens.

#[cfg(test)]
mod tests;

use super::counts::{Counts, Meters, OfLevel, OfRefusal, OfSchema};
use super::matching::{Configuration, Limit, Schema};
use super::queues::{Arrival, Id, Queues, Usage};
use crate::request::{RequestInfo, UserInfo};
use arc_swap::ArcSwap;
use coracle_daemon::clock;
use coracle_daemon::panics::Mutex;
use http::HeaderValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Objects that a seat is good for, and the most seats of a list.
const OBJECTS_PER_SEAT: usize = 100;
const LIST_SEATS_MAX: usize = 10;

/// A schema with what belongs to it.
struct Compiled {
    schema: Arc<Schema>,
    told: Told,
    limit: Limit,
    meters: Meters,
}

#[derive(Default)]
struct Compilation {
    configuration: Configuration,
    schemas: Vec<Arc<Compiled>>,
}

#[derive(Default)]
pub(super) struct State {
    pub queues: Queues,
    turns: HashMap<Id, Turn>,
}

/// What a waiting request waits for, and what there is to tell of it.
struct Turn {
    come: oneshot::Sender<()>,
    digest: Box<Digest>,
}

/// A waiting request.
pub(super) struct Digest {
    pub schema: Arc<Schema>,
    pub flow: String,
    pub arrived: jiff::Timestamp,
    pub seats: u64,
    pub user: String,
    pub info: RequestInfo,
}

impl State {
    /// Wakes whoever may run now.
    fn dispatch(&mut self, now: Duration) {
        for id in self.queues.dispatch(now) {
            // Whoever has gone meanwhile gives the seat back when it is told.
            let taken = self.turns.remove(&id).is_some_and(|turn| turn.come.send(()).is_ok());
            if !taken {
                self.queues.end(id, now);
            }
        }
    }

    /// What there is to tell of a waiting request.
    pub fn digest(&self, id: Id) -> Option<&Digest> {
        self.turns.get(&id).map(|turn| turn.digest.as_ref())
    }
}

/// Priority and fairness of a server.
pub struct FlowControl {
    compiled: ArcSwap<Compilation>,
    state: Mutex<State>,
    seats: u64,
    wait_max: Duration,
    next: AtomicU64,
    start: Instant,
    counts: Counts,
    /// Running reads and writes.
    inflight: [AtomicI64; 2],
    /// How many of them there may be, where nothing but that counts; 0: all.
    bounds: Option<[u64; 2]>,
}

/// Where a request belongs: clients are told. Made once for all requests of a schema.
#[derive(Clone)]
pub struct Told {
    pub schema_uid: HeaderValue,
    pub level_uid: HeaderValue,
}

/// The right to run.
pub struct Permit<'g> {
    gate: &'g FlowControl,
    compiled: Option<Arc<Compiled>>,
    /// `None` for exempt requests.
    id: Option<Id>,
    seats: u64,
    began: Instant,
    writes: usize,
    watches: bool,
}

impl Permit<'_> {
    /// Where the request belongs.
    #[must_use]
    pub fn told(&self) -> Option<&Told> {
        self.compiled.as_deref().map(|compiled| &compiled.told)
    }
}

fn header(uid: &str) -> HeaderValue {
    HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""))
}

fn seats_gauge(seats: u64) -> i64 {
    i64::try_from(seats).unwrap_or(i64::MAX)
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.gate.inflight[self.writes].fetch_sub(1, Ordering::Relaxed);
        if let Some(compiled) = &self.compiled {
            compiled.meters.running.dec();
            compiled.meters.seats.dec_by(seats_gauge(self.seats));
            compiled.meters.ran[usize::from(self.watches)].took(self.began.elapsed());
        }
        if let Some(id) = self.id {
            let now = self.gate.now();
            let mut state = self.gate.state.lock();
            state.queues.end(id, now);
            state.dispatch(now);
        }
    }
}

/// A request that waits; gives up when it goes.
struct Wait<'g> {
    gate: &'g FlowControl,
    compiled: &'g Compiled,
    id: Id,
    over: bool,
    /// It is told already that it waited too long.
    told: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if !self.told {
            self.gate.refusals(self.compiled, "cancelled").inc();
        }
        let now = self.gate.now();
        let mut state = self.gate.state.lock();
        state.turns.remove(&self.id);
        // Its turn may have come just now.
        if !state.queues.leave(self.id, now) {
            state.queues.end(self.id, now);
        }
        state.dispatch(now);
    }
}

/// The seats of a request: lists take more, by what they look at.
#[must_use]
pub fn seats(verb: &str, stored: usize, limit: Option<usize>) -> u64 {
    if verb != "list" {
        return 1;
    }
    let objects = limit.filter(|limit| *limit > 0).map_or(stored, |limit| limit.min(stored));
    objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, LIST_SEATS_MAX) as u64
}

/// Whether a request writes, as an index.
fn writes(info: &RequestInfo) -> usize {
    usize::from(!matches!(info.verb.as_str(), "get" | "list" | "watch"))
}

impl FlowControl {
    /// With that many seats; requests wait no longer than a quarter of their time.
    #[must_use]
    pub fn new(seats: u64, request_timeout: Duration, registry: &mut Registry) -> Self {
        let own = Self {
            compiled: ArcSwap::default(),
            state: Mutex::default(),
            seats,
            wait_max: request_timeout / 4,
            next: AtomicU64::new(0),
            start: Instant::now(),
            counts: Counts::new(registry),
            inflight: Default::default(),
            bounds: None,
        };
        let wanted = super::wanted();
        let of = |plural: &str| -> Vec<Arc<Value>> {
            let own = wanted.iter().filter(|(of, _)| *of == plural);
            own.map(|(_, object)| Arc::new(object.clone())).collect()
        };
        own.configure(&of("flowschemas"), &of("prioritylevelconfigurations"));
        own
    }

    /// The same with bounds alone, if there are any (`--enable-priority-and-fairness=false`).
    #[must_use]
    pub fn bounded(self, bounds: Option<[u64; 2]>) -> Self {
        Self { bounds, ..self }
    }

    /// Whether FlowSchemas and levels count.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.bounds.is_none()
    }

    /// Whether a request must go where only numbers count: what lasts is not counted, and those who may do everything are
    /// always answered.
    fn is_full(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let writes = writes(info);
        let Some(most) = self.bounds.map(|bounds| bounds[writes]).filter(|most| *most > 0) else {
            return false;
        };
        let running = u64::try_from(self.inflight[writes].load(Ordering::Relaxed)).unwrap_or(0);
        let privileged = || user.groups.iter().any(|group| group == "system:masters");
        running >= most && info.verb != "watch" && !privileged()
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Takes the cluster's objects as they are now.
    pub fn configure(&self, schemas: &[Arc<Value>], levels: &[Arc<Value>]) {
        let configuration = Configuration::read(schemas, levels);
        let compile = |schema: &Arc<Schema>| {
            let level = &configuration.levels[&schema.level];
            let label = OfSchema { priority_level: level.name.clone(), flow_schema: schema.name.clone() };
            let meters = Meters::new(&self.counts, &label);
            let told = Told { schema_uid: header(&schema.uid), level_uid: header(&level.uid) };
            Arc::new(Compiled { schema: schema.clone(), told, limit: level.limit, meters })
        };
        let compiled = configuration.schemas.iter().map(compile).collect();
        {
            let mut state = self.state.lock();
            let now = self.now();
            state.queues.configure(&configuration.levels, self.seats, now);
            state.dispatch(now);
            self.tell(&state.queues);
        }
        self.compiled.store(Arc::new(Compilation { configuration, schemas: compiled }));
    }

    /// Tells of the seats of levels.
    fn tell(&self, queues: &Queues) {
        let counts = &self.counts;
        for Usage { level, nominal, least, most, limit, .. } in queues.usage() {
            let label = OfLevel { priority_level: level };
            let all = [
                (&counts.nominal, nominal),
                (&counts.least, least),
                (&counts.most, most),
                (&counts.limit, limit),
            ];
            for (gauge, seats) in all {
                gauge.get_or_create(&label).set(seats_gauge(seats));
            }
        }
    }

    /// Shares seats out anew where it is time for that. Only what comes or waits asks: nothing ticks while nothing flows.
    fn turn(&self, state: &mut State, now: Duration) {
        if state.queues.turn(now) {
            self.tell(&state.queues);
            state.dispatch(now);
        }
    }

    /// Waits until a turn comes, or for too long.
    async fn wait(&self, mut turn: oneshot::Receiver<()>) -> bool {
        let until = Instant::now() + self.wait_max;
        loop {
            let shared = {
                let mut state = self.state.lock();
                let now = self.now();
                self.turn(&mut state, now);
                self.start + state.queues.next_turn()
            };
            tokio::select! {
                biased;
                came = &mut turn => return came.is_ok(),
                () = clock::sleep_until(until.min(shared)) => {
                    if Instant::now() >= until {
                        return false;
                    }
                }
            }
        }
    }

    /// Lets a request run, now or when its turn comes.
    ///
    /// # Errors
    /// There is no place for it; where it belongs, if anywhere.
    pub async fn admit(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        seats: u64,
    ) -> Result<Permit<'_>, Option<Told>> {
        if !self.is_on() {
            if self.is_full(user, info) {
                return Err(None);
            }
            return Ok(self.permit(None, None, seats, info));
        }
        let compilation = self.compiled.load();
        let found = compilation.configuration.place(user, info).and_then(|at| compilation.schemas.get(at));
        let Some(compiled) = found.cloned() else { return Ok(self.permit(None, None, seats, info)) };
        drop(compilation);
        if compiled.limit == Limit::Exempt {
            return Ok(self.permit(Some(compiled), None, seats, info));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut hasher = DefaultHasher::new();
        (&compiled.schema.name, compiled.schema.flow(user, info)).hash(&mut hasher);
        let flow = hasher.finish();
        let turn = {
            let mut state = self.state.lock();
            let now = self.now();
            self.turn(&mut state, now);
            match state.queues.arrive(id, &compiled.schema.level, flow, seats, now) {
                Arrival::Runs => {
                    // All that may wait does, if for no time.
                    if matches!(compiled.limit, Limit::Queue { .. }) {
                        compiled.meters.waited[1].took(Duration::ZERO);
                    }
                    None
                }
                Arrival::Refused(reason) => {
                    drop(state);
                    return Err(self.refused(&compiled, reason));
                }
                Arrival::Waits => {
                    let (come, turn) = oneshot::channel();
                    let digest = Box::new(Digest {
                        schema: compiled.schema.clone(),
                        flow: compiled.schema.flow(user, info).to_owned(),
                        arrived: clock::now(),
                        seats,
                        user: user.name.clone(),
                        info: info.clone(),
                    });
                    state.turns.insert(id, Turn { come, digest });
                    Some(turn)
                }
            }
        };
        if let Some(turn) = turn {
            let mut wait = Wait { gate: self, compiled: &compiled, id, over: false, told: false };
            let began = Instant::now();
            compiled.meters.waiting.inc();
            let came = self.wait(turn).await;
            compiled.meters.waiting.dec();
            compiled.meters.waited[usize::from(came)].took(began.elapsed());
            if !came {
                wait.told = true;
                return Err(self.refused(&compiled, "time-out"));
            }
            wait.over = true;
        }
        Ok(self.permit(Some(compiled), Some(id), seats, info))
    }

    fn permit(
        &self,
        compiled: Option<Arc<Compiled>>,
        id: Option<Id>,
        seats: u64,
        info: &RequestInfo,
    ) -> Permit<'_> {
        let (writes, watches) = (writes(info), info.verb == "watch");
        self.inflight[writes].fetch_add(1, Ordering::Relaxed);
        if let Some(compiled) = &compiled {
            compiled.meters.dispatched.inc();
            compiled.meters.running.inc();
            compiled.meters.seats.inc_by(seats_gauge(seats));
        }
        Permit { gate: self, compiled, id, seats, began: Instant::now(), writes, watches }
    }

    fn refused(&self, compiled: &Compiled, reason: &'static str) -> Option<Told> {
        self.refusals(compiled, reason).inc();
        Some(compiled.told.clone())
    }

    /// Its levels and queues, and of each schema its level, what has run and what runs.
    pub(super) fn look<T>(&self, of: impl FnOnce(&State, &[(&str, u64, i64)]) -> T) -> T {
        let compiled = self.compiled.load();
        let schemas: Vec<(&str, u64, i64)> = compiled
            .schemas
            .iter()
            .map(|own| (own.schema.level.as_str(), own.meters.dispatched.get(), own.meters.running.get()))
            .collect();
        of(&self.state.lock(), &schemas)
    }

    /// How many of each level have waited too long, and how many have gone away.
    pub(super) fn gone(&self) -> [Vec<(String, u64)>; 2] {
        let compiled = self.compiled.load();
        let count = |reason: &'static str| {
            let of = |own: &Arc<Compiled>| (own.schema.level.clone(), self.refusals(own, reason).get());
            let mut all: Vec<(String, u64)> = Vec::new();
            for (level, count) in compiled.schemas.iter().map(of) {
                match all.iter_mut().find(|(own, _)| *own == level) {
                    Some((_, sum)) => *sum += count,
                    None => all.push((level, count)),
                }
            }
            all
        };
        [count("time-out"), count("cancelled")]
    }

    fn refusals(&self, compiled: &Compiled, reason: &'static str) -> Counter {
        let label = OfRefusal {
            priority_level: compiled.schema.level.clone(),
            flow_schema: compiled.schema.name.clone(),
            reason,
        };
        self.counts.refused.get_or_create_owned(&label)
    }

    /// Reads and writes that run now.
    #[must_use]
    pub fn running(&self) -> [i64; 2] {
        [self.inflight[0].load(Ordering::Relaxed), self.inflight[1].load(Ordering::Relaxed)]
    }
}
