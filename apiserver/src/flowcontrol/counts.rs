//! What is counted of levels and schemas.

use crate::endpoints::metrics::Register;
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

type Times = Histograms<OfSchema>;

/// What is counted.
pub struct Counts {
    pub dispatched: Family<OfSchema, Counter>,
    pub refused: Family<OfRefusal, Counter>,
    pub waiting: Family<OfSchema, Gauge>,
    pub running: Family<OfSchema, Gauge>,
    pub seats: Family<OfSchema, Gauge>,
    pub waited: Times,
    pub ran: Times,
    pub nominal: Family<OfLevel, Gauge>,
    pub least: Family<OfLevel, Gauge>,
    pub most: Family<OfLevel, Gauge>,
    pub limit: Family<OfLevel, Gauge>,
}

impl Counts {
    pub fn new(registry: &mut Registry) -> Self {
        let times = || -> Times { Family::new_with_constructor(|| Histogram::seconds(&BUCKETS)) };
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
    pub waited: Histogram,
    pub ran: Histogram,
}
