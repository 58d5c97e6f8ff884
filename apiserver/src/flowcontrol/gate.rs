//! The gate that every short request passes: it runs at once, waits for its turn, or is sent away with 429.
//!
//! Exempt requests take no lock. A seat is given back when its [`Permit`] goes, however that happens.

use super::matching::{Configuration, Limit, Schema};
use super::queues::{Arrival, Id, Queues, Usage};
use crate::endpoints::metrics::Register;
use crate::request::{RequestInfo, UserInfo};
use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
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
const BUCKETS: [f64; 12] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfSchema {
    priority_level: String,
    flow_schema: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRefusal {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfLevel {
    priority_level: String,
}

type Times = Family<OfSchema, Histogram, fn() -> Histogram>;

/// What is counted.
struct Counts {
    dispatched: Family<OfSchema, Counter>,
    refused: Family<OfRefusal, Counter>,
    waiting: Family<OfSchema, Gauge>,
    running: Family<OfSchema, Gauge>,
    seats: Family<OfSchema, Gauge>,
    waited: Times,
    ran: Times,
    nominal: Family<OfLevel, Gauge>,
    least: Family<OfLevel, Gauge>,
    most: Family<OfLevel, Gauge>,
}

impl Counts {
    fn new(registry: &mut Registry) -> Self {
        let times = || -> Times { Family::new_with_constructor(|| Histogram::new(BUCKETS)) };
        let mut to = Register::of(registry, "apiserver_flowcontrol_");
        Self {
            dispatched: to.add("dispatched_requests", "Requests that ran", Family::default()),
            refused: to.add("rejected_requests", "Requests that were sent away", Family::default()),
            waiting: to.add("current_inqueue_requests", "Requests that wait now", Family::default()),
            running: to.add("current_executing_requests", "Requests that run now", Family::default()),
            seats: to.add("current_executing_seats", "Seats in use now", Family::default()),
            waited: to.add("request_wait_duration_seconds", "Time in queues", times()),
            ran: to.add("request_execution_seconds", "Time of running", times()),
            nominal: to.add("nominal_limit_seats", "A level's own seats", Family::default()),
            least: to.add("lower_limit_seats", "Seats that a level does not lend", Family::default()),
            most: to.add("upper_limit_seats", "Seats that a level may use", Family::default()),
        }
    }
}

/// The counters of one schema, found once.
#[derive(Clone)]
struct Meters {
    dispatched: Counter,
    waiting: Gauge,
    running: Gauge,
    seats: Gauge,
    waited: Histogram,
    ran: Histogram,
}

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
struct State {
    queues: Queues,
    turns: HashMap<Id, oneshot::Sender<()>>,
}

impl State {
    /// Wakes whoever may run now.
    fn dispatch(&mut self, now: Duration) {
        for id in self.queues.dispatch(now) {
            // Whoever has gone meanwhile gives the seat back when it is told.
            let taken = self.turns.remove(&id).is_some_and(|turn| turn.send(()).is_ok());
            if !taken {
                self.queues.end(id, now);
            }
        }
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
            compiled.meters.ran.observe(self.began.elapsed().as_secs_f64());
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
    id: Id,
    over: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let now = self.gate.now();
        let mut state = self.gate.state.lock();
        state.turns.remove(&self.id);
        // Its turn may have come just now.
        if !state.queues.leave(self.id) {
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
        };
        let wanted = super::wanted();
        let of = |plural: &str| -> Vec<Arc<Value>> {
            let own = wanted.iter().filter(|(of, _)| *of == plural);
            own.map(|(_, object)| Arc::new(object.clone())).collect()
        };
        own.configure(&of("flowschemas"), &of("prioritylevelconfigurations"));
        own
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
            let meters = Meters {
                dispatched: self.counts.dispatched.get_or_create_owned(&label),
                waiting: self.counts.waiting.get_or_create_owned(&label),
                running: self.counts.running.get_or_create_owned(&label),
                seats: self.counts.seats.get_or_create_owned(&label),
                waited: self.counts.waited.get_or_create_owned(&label),
                ran: self.counts.ran.get_or_create_owned(&label),
            };
            let told = Told { schema_uid: header(&schema.uid), level_uid: header(&level.uid) };
            Arc::new(Compiled { schema: schema.clone(), told, limit: level.limit, meters })
        };
        let compiled = configuration.schemas.iter().map(compile).collect();
        {
            let mut state = self.state.lock();
            state.queues.configure(&configuration.levels, self.seats);
            state.dispatch(self.now());
            for Usage { level, nominal, least, most, .. } in state.queues.usage() {
                let label = OfLevel { priority_level: level };
                for (gauge, seats) in
                    [(&self.counts.nominal, nominal), (&self.counts.least, least), (&self.counts.most, most)]
                {
                    gauge.get_or_create(&label).set(seats_gauge(seats));
                }
            }
        }
        self.compiled.store(Arc::new(Compilation { configuration, schemas: compiled }));
    }

    /// Lets a request run, now or when its turn comes.
    ///
    /// # Errors
    /// There is no place for it; where it belongs.
    pub async fn admit(&self, user: &UserInfo, info: &RequestInfo, seats: u64) -> Result<Permit<'_>, Told> {
        let writes = usize::from(!matches!(info.verb.as_str(), "get" | "list" | "watch"));
        let compilation = self.compiled.load();
        let found = compilation.configuration.place(user, info).and_then(|at| compilation.schemas.get(at));
        let Some(compiled) = found.cloned() else { return Ok(self.permit(None, None, seats, writes)) };
        drop(compilation);
        if compiled.limit == Limit::Exempt {
            return Ok(self.permit(Some(compiled), None, seats, writes));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut hasher = DefaultHasher::new();
        (&compiled.schema.name, compiled.schema.flow(user, info)).hash(&mut hasher);
        let flow = hasher.finish();
        let turn = {
            let mut state = self.state.lock();
            match state.queues.arrive(id, &compiled.schema.level, flow, seats, self.now()) {
                Arrival::Runs => None,
                Arrival::Refused(reason) => {
                    drop(state);
                    return Err(self.refused(&compiled, reason));
                }
                Arrival::Waits => {
                    let (send, turn) = oneshot::channel();
                    state.turns.insert(id, send);
                    Some(turn)
                }
            }
        };
        if let Some(turn) = turn {
            let mut wait = Wait { gate: self, id, over: false };
            let began = Instant::now();
            compiled.meters.waiting.inc();
            let came = tokio::time::timeout(self.wait_max, turn).await;
            compiled.meters.waiting.dec();
            compiled.meters.waited.observe(began.elapsed().as_secs_f64());
            if !matches!(came, Ok(Ok(()))) {
                return Err(self.refused(&compiled, "time-out"));
            }
            wait.over = true;
        }
        Ok(self.permit(Some(compiled), Some(id), seats, writes))
    }

    fn permit(
        &self,
        compiled: Option<Arc<Compiled>>,
        id: Option<Id>,
        seats: u64,
        writes: usize,
    ) -> Permit<'_> {
        self.inflight[writes].fetch_add(1, Ordering::Relaxed);
        if let Some(compiled) = &compiled {
            compiled.meters.dispatched.inc();
            compiled.meters.running.inc();
            compiled.meters.seats.inc_by(seats_gauge(seats));
        }
        Permit { gate: self, compiled, id, seats, began: Instant::now(), writes }
    }

    fn refused(&self, compiled: &Compiled, reason: &'static str) -> Told {
        let label = OfRefusal {
            priority_level: compiled.schema.level.clone(),
            flow_schema: compiled.schema.name.clone(),
            reason,
        };
        self.counts.refused.get_or_create(&label).inc();
        compiled.told.clone()
    }

    /// Reads and writes that run now.
    #[must_use]
    pub fn running(&self) -> [i64; 2] {
        [self.inflight[0].load(Ordering::Relaxed), self.inflight[1].load(Ordering::Relaxed)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn gate(queues: &Value) -> FlowControl {
        let gate = FlowControl::new(2, Duration::from_secs(60), &mut Registry::default());
        let level = json!({"metadata": {"name": "l", "uid": "L"}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 1, "limitResponse": queues}}});
        let schema = json!({"metadata": {"name": "s", "uid": "S"}, "spec": {"matchingPrecedence": 1,
            "priorityLevelConfiguration": {"name": "l"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}]}]}});
        gate.configure(&[Arc::new(schema)], &[Arc::new(level)]);
        gate
    }

    fn question() -> (UserInfo, RequestInfo) {
        let info = RequestInfo {
            is_resource: true,
            verb: "get".to_owned(),
            resource: "nodes".to_owned(),
            ..RequestInfo::default()
        };
        (UserInfo { name: "joe".to_owned(), ..UserInfo::default() }, info)
    }

    #[tokio::test]
    async fn too_many_requests_are_sent_away_and_seats_come_back() {
        let gate = gate(&json!({"type": "Reject"}));
        let (user, info) = question();
        let first = gate.admit(&user, &info, 1).await.ok().expect("runs");
        let second = gate.admit(&user, &info, 1).await.ok().expect("runs");
        assert_eq!(gate.running(), [2, 0]);
        let told = gate.admit(&user, &info, 1).await.err().expect("is sent away");
        assert_eq!((told.schema_uid, told.level_uid), (header("S"), header("L")));
        drop(first);
        assert!(gate.admit(&user, &info, 1).await.is_ok());
        drop(second);
        assert_eq!(gate.running(), [0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_their_turn_or_give_up() {
        let gate =
            gate(&json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}}));
        let (user, info) = question();
        let running = [gate.admit(&user, &info, 1).await.ok(), gate.admit(&user, &info, 1).await.ok()];
        let waits = gate.admit(&user, &info, 1);
        tokio::pin!(waits);
        assert!(futures::poll!(waits.as_mut()).is_pending());
        // One that gives up leaves nothing behind.
        {
            let gone = gate.admit(&user, &info, 1);
            tokio::pin!(gone);
            assert!(futures::poll!(gone.as_mut()).is_pending());
            assert!(gate.admit(&user, &info, 1).await.is_err());
        }
        drop(running);
        let permit = waits.await.ok().expect("its turn came");
        let other = gate.admit(&user, &info, 1).await.ok().expect("runs");
        assert!(gate.admit(&user, &info, 1).await.is_err(), "waited too long");
        drop((permit, other));
        assert!(gate.state.lock().turns.is_empty());
        assert_eq!(gate.state.lock().queues.usage()[0].used, 0);
    }

    #[test]
    fn lists_take_seats_by_what_they_look_at() {
        let rows = [
            ("get", 5000, None, 1),
            ("list", 50, None, 1),
            ("list", 950, None, 10),
            ("list", 90_000, None, 10),
            ("list", 90_000, Some(250), 3),
        ];
        for (verb, stored, limit, want) in rows {
            assert_eq!(seats(verb, stored, limit), want, "{verb} {stored} {limit:?}");
        }
    }
}
