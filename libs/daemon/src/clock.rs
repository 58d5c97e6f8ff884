//! The clock seam. Wall time is asked for here and nowhere else; waiting goes through tokio's timers, which
//! tests pause and the simulator steps.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

pub use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

/// Nanoseconds added to the machine's clock: zero, unless a simulation or a fault turns it.
static SKEW_NANOS: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// Milliseconds since 1970, on a thread that a simulation runs on.
    static SIMULATED: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Stops this thread's wall clock at a time of a simulation, in milliseconds since 1970.
pub fn simulate(millis: i64) {
    SIMULATED.set(Some(millis));
}

/// Whether this thread is one that a simulation runs on: nothing may happen on other threads then.
#[must_use]
pub fn is_simulated() -> bool {
    SIMULATED.get().is_some()
}

/// The wall clock now. It may jump either way: never subtract two of these to measure a duration.
#[must_use]
pub fn now() -> jiff::Timestamp {
    if let Some(simulated) = SIMULATED.get().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
    {
        return simulated;
    }
    let skew = jiff::SignedDuration::from_nanos(SKEW_NANOS.load(Ordering::Relaxed));
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    let now = jiff::Timestamp::now();
    now.checked_add(skew).unwrap_or(now)
}

/// Moves this process's wall clock by `by` from the machine's; for simulations and clock faults.
pub fn set_skew(by: jiff::SignedDuration) {
    SKEW_NANOS.store(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX), Ordering::Relaxed);
}

/// Waits until wall time `at`, as far ahead as the wall clock says now.
pub async fn sleep_until_wall(at: jiff::Timestamp) {
    let ahead = at.duration_since(now());
    sleep(Duration::try_from(ahead).unwrap_or(Duration::ZERO)).await;
}

/// `now` as Kubernetes' `metav1.Time`: RFC 3339, UTC, whole seconds.
#[must_use]
pub fn rfc3339_seconds(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `now` as Kubernetes' `metav1.MicroTime`: RFC 3339, UTC, six fractional digits.
#[must_use]
pub fn rfc3339_micros(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
