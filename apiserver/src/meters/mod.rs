//! What is measured of admission, the store, watches and the process, under kube-apiserver's names.
//!
//! In: that something was done, and how long it took or how large it was. Out: series for `/metrics`. Invariants: measuring
//! costs a look into a table and an atomic addition; series are bounded by kinds, plugins and configured webhooks.

pub mod access;
pub mod admission;
pub mod process;
pub mod storage;
pub mod watch;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Registers metrics under a common beginning of their names.
pub struct Register<'r> {
    registry: &'r mut Registry,
    prefix: &'static str,
}

impl<'r> Register<'r> {
    /// At a registry.
    pub fn of(registry: &'r mut Registry, prefix: &'static str) -> Self {
        Self { registry, prefix }
    }

    /// A metric that is told of from now on.
    pub fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(format!("{}{name}", self.prefix), help, metric.clone());
        metric
    }
}

/// How often values were within bounds, counted with nothing but atomics: many threads observe at once.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    bounds: &'static [f64],
    /// By bounds, and above the last.
    within: Box<[AtomicU64]>,
    /// Of what was observed, in `unit`s.
    sum: AtomicU64,
    unit: f64,
}

/// Histograms by labels.
pub type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

impl Histogram {
    /// Of seconds.
    #[must_use]
    pub fn seconds(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1e-9)
    }

    /// Of bytes.
    #[must_use]
    pub fn bytes(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1.0)
    }

    fn new(bounds: &'static [f64], unit: f64) -> Self {
        let within = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self(Arc::new(Counts { bounds, within, sum: AtomicU64::default(), unit }))
    }

    /// Observes how long something took.
    pub fn took(&self, time: Duration) {
        self.add(time.as_secs_f64(), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Observes how many bytes there were.
    #[expect(clippy::cast_precision_loss, reason = "a bound is met by sizes that are exact in a double")]
    pub fn size(&self, bytes: usize) {
        self.add(bytes as f64, bytes as u64);
    }

    fn add(&self, value: f64, units: u64) {
        let at = self.0.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.0.within.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum.fetch_add(units, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    #[expect(clippy::cast_precision_loss, reason = "a sum need not be exact")]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = self.0.bounds.iter().copied().chain([f64::MAX]);
        let counts = self.0.within.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum.load(Ordering::Relaxed) as f64 * self.0.unit;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn values_are_counted_within_their_bounds() {
        let (mut registry, times) = (Registry::default(), Histogram::seconds(&[0.1, 1.0]));
        registry.register("t_seconds", "Times", times.clone());
        for millis in [100, 500, 2000] {
            times.took(Duration::from_millis(millis));
        }
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "t_seconds_sum 2.6",
            "t_seconds_count 3",
            "t_seconds_bucket{le=\"0.1\"} 1",
            "t_seconds_bucket{le=\"1.0\"} 2",
            "t_seconds_bucket{le=\"+Inf\"} 3",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}: {text}");
        }
    }
}
