//! Startup, liveness and readiness probes: one task for each running container that has any.
//!
//! ```text
//! running ─► startup ─ok─► liveness ∥ readiness ──► Finding (only when it changes) ──► the pod's next step
//! ```
//!
//! In: a container and where it is. Out: findings through a callback, and every failed try through another. Between two
//! tries a task sleeps; it is dropped when its container ends.

pub mod check;
mod grpc;

use check::{Check, Place};
use coracle_daemon::clock;
use k8s_openapi::api::core::v1::Probe;
use std::time::Duration;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The others wait for it.
    Startup,
    /// Failing for good, the container is started anew.
    Liveness,
    /// Failing, the pod gets no traffic.
    Readiness,
}

/// What a probe has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which probe.
    pub kind: Kind,
    /// Whether all is well.
    pub well: bool,
}

/// Where findings go.
pub trait Listener: Send + Sync {
    /// A probe decided something new.
    fn found(&self, finding: Finding);
    /// One try failed: for an event.
    fn failed(&self, kind: Kind, why: &str);
}

/// Probes a container until dropped.
pub async fn run(place: Place, listener: impl Listener) {
    let container = place.container.clone();
    if let Some(probe) = &container.startup_probe
        && !repeat(&place, probe, Kind::Startup, &listener).await
    {
        return;
    }
    let other = async |probe: &Option<Probe>, kind| {
        if let Some(probe) = probe {
            repeat(&place, probe, kind, &listener).await;
        }
    };
    tokio::join!(
        other(&container.liveness_probe, Kind::Liveness),
        other(&container.readiness_probe, Kind::Readiness)
    );
}

/// Whether a startup probe succeeded; others end only when liveness fails for good.
async fn repeat(place: &Place, probe: &Probe, kind: Kind, listener: &impl Listener) -> bool {
    let Some(check) = Check::of_probe(probe) else { return true };
    clock::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let timeout = seconds(probe.timeout_seconds, 1);
    let mut timer = clock::interval(seconds(probe.period_seconds, 10));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tally = Tally::new(probe);
    loop {
        timer.tick().await;
        let outcome = match clock::timeout(timeout, check.run(place)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(&check, timeout)),
        };
        if let Err(why) = &outcome {
            listener.failed(kind, why);
        }
        if let Some(well) = tally.count(outcome.is_ok()) {
            listener.found(Finding { kind, well });
            match (kind, well) {
                (Kind::Startup, _) => return well,
                (Kind::Liveness, false) => return false,
                _ => {}
            }
        }
    }
}

fn timed_out(check: &Check, timeout: Duration) -> String {
    match check {
        Check::Exec(command) => {
            format!("command timed out: {:?} timed out after {}s", command.join(" "), timeout.as_secs())
        }
        _ => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
    }
}

fn seconds(given: Option<i32>, default: u64) -> Duration {
    let given = given.and_then(|given| u64::try_from(given).ok());
    // Zero means the default wherever the default is not zero.
    Duration::from_secs(given.filter(|given| *given > 0).unwrap_or(default))
}

/// Counts tries in a row until they decide.
#[derive(Debug)]
struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
    decided: Option<bool>,
}

impl Tally {
    fn new(probe: &Probe) -> Self {
        let count = |given: Option<i32>, default| {
            given.and_then(|given| u32::try_from(given).ok()).filter(|given| *given > 0).unwrap_or(default)
        };
        Self {
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            last: None,
            run: 0,
            decided: None,
        }
    }

    /// What is decided by one more try, if it is news.
    fn count(&mut self, well: bool) -> Option<bool> {
        self.run = if self.last == Some(well) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(well);
        let needed = if well { self.success_threshold } else { self.failure_threshold };
        if self.run < needed || self.decided == Some(well) {
            return None;
        }
        self.decided = Some(well);
        Some(well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_decide() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut tally = Tally::new(&probe);
        let tries = [true, true, true, false, false, true, false, false, false, false, true, true];
        let found: Vec<_> = tries.map(|well| tally.count(well)).into();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(found, [None, yes, None, None, None, None, None, None, no, None, None, yes]);
    }

    #[test]
    fn zero_means_the_default() {
        assert_eq!(seconds(Some(0), 10), Duration::from_secs(10));
        assert_eq!(seconds(Some(3), 10), Duration::from_secs(3));
        assert_eq!(seconds(None, 0), Duration::ZERO);
    }
}
