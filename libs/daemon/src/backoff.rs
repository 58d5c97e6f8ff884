//! Exponential back-off with jitter, for whatever talks to a server that may be away.

use crate::random;
use std::time::Duration;

/// The delays of one retrying loop: doubling from `first` to `most`, each stretched by up to a half at random so that
/// many clients of one failed server do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// A loop that has not failed yet.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The delay after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = exponential(self.first, self.most, self.failures);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(1.0 + random::fraction() / 2.0)
    }

    /// Forgets the failures.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `first · 2^failures`, at most `most`.
#[must_use]
pub fn exponential(first: Duration, most: Duration, failures: u32) -> Duration {
    2_u32
        .checked_pow(failures)
        .and_then(|factor| first.checked_mul(factor))
        .map_or(most, |delay| delay.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound() {
        let ms = Duration::from_millis;
        let delays: Vec<_> = [0, 1, 2, 10, 64].map(|n| exponential(ms(5), ms(1000), n)).into();
        assert_eq!(delays, [ms(5), ms(10), ms(20), ms(1000), ms(1000)]);
    }
}
