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

/// How long until the wall clock shows a whole multiple of `period`: the next, or the one after it where that is less than a
/// quarter of the period away.
///
/// For whatever is done again and again and may be done a little sooner or later. The processes of an idle machine then wake
/// together and find its caches warm, where each wake by itself costs many times its work.
#[must_use]
pub fn until_whole(period: Duration) -> Duration {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let until = until_multiple(now().as_millisecond(), millis(period));
    u64::try_from(until).map_or(period, Duration::from_millis)
}

fn until_multiple(now: i64, period: i64) -> i64 {
    let period = period.max(1);
    // The first multiple that is more than a quarter of the period ahead.
    (now + period / 4).div_euclid(period).saturating_add(1).saturating_mul(period) - now
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_again_and_again_is_done_at_whole_multiples_of_its_period_however_late_it_was() {
        for (now, until) in [
            (0, 1000),
            (3, 997),
            (400, 600),
            (749, 251),
            // Too soon after what was just done, or just before it.
            (750, 1250),
            (999, 1001),
            (-1, 1001),
        ] {
            assert_eq!(until_multiple(now, 1000), until, "at {now}");
            assert_eq!((now + until) % 1000, 0);
        }
        assert_eq!(until_multiple(5, 0), 1);
        assert!(until_whole(Duration::from_secs(10)) <= Duration::from_millis(12_500));
    }
}
