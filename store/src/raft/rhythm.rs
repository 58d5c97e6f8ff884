//! How often a leader beats: often while much is written, rarely otherwise.
//!
//! In: beats as they are sent, and how many entries there are. Out: when the next beat is due.

use super::pulse::Timing;
use coracle_daemon::clock::Instant;
use std::time::Duration;

/// Over how long entries are counted, and how many in a second make a busy cluster: components that renew their leases do
/// not, though they do so together.
const COUNTED_OVER: Duration = Duration::from_secs(1);
const BUSY_ENTRIES: u64 = 10;
const BURST_ENTRIES: u64 = 32;
/// How often a leader beats.
#[derive(Debug)]
pub struct Rhythm {
    timing: Timing,
    next: Instant,
    /// The last beat, and since when entries are counted.
    last: Instant,
    since: Instant,
    /// The entries that there were then.
    counted: u64,
    busy: bool,
}

impl Rhythm {
    /// A leader begins. There are this many `entries`.
    #[must_use]
    pub fn new(timing: Timing, now: Instant, entries: u64) -> Self {
        Self { timing, next: now + timing.heartbeat, last: now, since: now, counted: entries, busy: true }
    }

    /// A beat is sent; how long until the next one, which is `quiet` while little is written.
    pub fn beat(&mut self, now: Instant, entries: u64, quiet: Duration) -> Duration {
        let (over, more) = (now.saturating_duration_since(self.since), entries.saturating_sub(self.counted));
        let burst = more >= BURST_ENTRIES;
        if burst || over >= COUNTED_OVER {
            #[expect(clippy::cast_precision_loss, reason = "few entries, and a rate")]
            let is_often = more as f64 >= BUSY_ENTRIES as f64 * over.as_secs_f64();
            self.busy = burst || is_often;
            (self.since, self.counted) = (now, entries);
        }
        let pause = if self.busy { self.timing.heartbeat } else { quiet };
        (self.last, self.next) = (now, now + pause);
        pause
    }

    /// When the next beat is due: a burst of entries does not wait for a rare one.
    #[must_use]
    pub fn due(&self, entries: u64) -> Instant {
        let burst = entries >= self.burst();
        if burst { self.next.min(self.last + self.timing.heartbeat) } else { self.next }
    }

    /// How many entries make a burst; more than ever come while beats are frequent, as nothing needs to make them so.
    #[must_use]
    pub fn burst(&self) -> u64 {
        if self.busy { u64::MAX } else { self.counted.saturating_add(BURST_ENTRIES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing { heartbeat: Duration::from_millis(50), lease: Duration::from_millis(200) };

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_leader_beats_rarely_while_little_is_written() {
        let start = Instant::now();
        let (often, rarely) = (TIMING.heartbeat, millis(10_000));
        let mut rhythm = Rhythm::new(TIMING, start, 0);
        for (at, entries, wanted) in [
            (50, 20, often),
            (950, 31, often),
            (1_000, 31, often),
            (1_050, 40, often),
            (2_000, 40, rarely),
            // As many as leases need, if not all at once, over a longer time.
            (12_000, 71, rarely),
            (22_000, 171, often),
            (22_050, 171, often),
            (23_000, 171, rarely),
            // A burst, before its time.
            (23_050, 203, often),
            (23_100, 203, often),
            (24_050, 203, rarely),
        ] {
            let now = start + millis(at);
            assert_eq!(rhythm.beat(now, entries, rarely), wanted, "at {at} ms");
            assert_eq!(rhythm.due(entries), now + wanted);
        }
        let last = start + millis(24_050);
        assert_eq!(rhythm.due(203 + BURST_ENTRIES - 1), last + rarely);
        assert_eq!(rhythm.due(203 + BURST_ENTRIES), last + often, "a burst does not wait");
    }
}
