//! What is counted of levels and schemas.

use crate::meters::Register;
use crate::meters::{Histogram, Histograms};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

const BUCKETS: [f64; 12] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfSchema {
    pub priority_level: String,
    pub flow_schema: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfRefusal {
    pub priority_level: String,
    pub flow_schema: String,
    pub reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfLevel {
    pub priority_level: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfWait {
    pub priority_level: String,
    pub flow_schema: String,
    /// Whether it ran then.
    pub execute: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OfRun {
    pub priority_level: String,
    pub flow_schema: String,
    /// `watch`, or what is no watch.
    pub r#type: &'static str,
}

/// What is counted.
pub struct Counts {
    pub dispatched: Family<OfSchema, Counter>,
    pub refused: Family<OfRefusal, Counter>,
    pub waiting: Family<OfSchema, Gauge>,
    pub running: Family<OfSchema, Gauge>,
    pub seats: Family<OfSchema, Gauge>,
    pub waited: Histograms<OfWait>,
    pub ran: Histograms<OfRun>,
    pub nominal: Family<OfLevel, Gauge>,
    pub least: Family<OfLevel, Gauge>,
    pub most: Family<OfLevel, Gauge>,
    pub limit: Family<OfLevel, Gauge>,
}

impl Counts {
    pub fn new(registry: &mut Registry) -> Self {
        let times = || Histogram::seconds(&BUCKETS);
        let waits = Family::new_with_constructor(times as fn() -> Histogram);
        let runs = Family::new_with_constructor(times as fn() -> Histogram);
        let mut to = Register::of(registry, "apiserver_flowcontrol_");
        Self {
            dispatched: to.add("dispatched_requests", "Requests that ran", Family::default()),
            refused: to.add("rejected_requests", "Requests that were sent away", Family::default()),
            waiting: to.add("current_inqueue_requests", "Requests that wait now", Family::default()),
            running: to.add("current_executing_requests", "Requests that run now", Family::default()),
            seats: to.add("current_executing_seats", "Seats in use now", Family::default()),
            waited: to.add("request_wait_duration_seconds", "Time in queues", waits),
            ran: to.add("request_execution_seconds", "Time of running", runs),
            nominal: to.add("nominal_limit_seats", "A level's own seats", Family::default()),
            least: to.add("lower_limit_seats", "Seats that a level does not lend", Family::default()),
            most: to.add("upper_limit_seats", "Seats that a level may use", Family::default()),
            limit: to.add("current_limit_seats", "Seats that a level may use for now", Family::default()),
        }
    }
}

/// The counters of one schema, found once.
#[derive(Clone)]
pub struct Meters {
    pub dispatched: Counter,
    pub waiting: Gauge,
    pub running: Gauge,
    pub seats: Gauge,
    /// Of those that did not run then, and of those that did.
    pub waited: [Histogram; 2],
    /// Of what is no watch, and of watches.
    pub ran: [Histogram; 2],
}

impl Meters {
    /// Of a schema.
    pub fn new(counts: &Counts, label: &OfSchema) -> Self {
        let OfSchema { priority_level, flow_schema } = label.clone();
        let waited = |execute| {
            let (priority_level, flow_schema) = (priority_level.clone(), flow_schema.clone());
            counts.waited.get_or_create_owned(&OfWait { priority_level, flow_schema, execute })
        };
        let ran = |r#type| {
            let (priority_level, flow_schema) = (priority_level.clone(), flow_schema.clone());
            counts.ran.get_or_create_owned(&OfRun { priority_level, flow_schema, r#type })
        };
        Self {
            dispatched: counts.dispatched.get_or_create_owned(label),
            waiting: counts.waiting.get_or_create_owned(label),
            running: counts.running.get_or_create_owned(label),
            seats: counts.seats.get_or_create_owned(label),
            waited: [waited("false"), waited("true")],
            ran: [ran("regular"), ran("watch")],
        }
    }
}
