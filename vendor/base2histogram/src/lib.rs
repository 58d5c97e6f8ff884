//! What openraft counts about itself, in the place of the crate of this name: nothing. openraft shows it only when built with
//! its feature `runtime-stats`, but would fill 25 MB of tables in every process to count it.

use std::fmt;
use std::marker::PhantomData;

/// Forgets every number it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

/// Of no numbers: zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named after their percentile")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

/// A chart of nothing.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart;

impl<T> Histogram<T> {
    /// Empty, as it will stay.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// Forgets `value`.
    pub fn record(&mut self, _value: u64) {}

    /// Forgets `value`, `count` times.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Zeros.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

impl AsciiChart {
    /// Without anything to draw.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Draws nothing of `histogram`.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("not counted")
    }
}
