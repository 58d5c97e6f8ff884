//! How many requests run at once, and how long they may take.

use std::time::Duration;

/// Flags of limits.
#[derive(Clone, Debug, clap::Args)]
pub struct LimitArgs {
    /// Reads that may run at once; with the writes they are the seats of priority and fairness.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: u64,
    /// Writes that may run at once.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: u64,
    /// How long a request may take, watches and streams apart, e.g. 1m0s.
    #[arg(long, default_value = "1m0s", value_parser = crate::args::duration)]
    pub request_timeout: Duration,
    /// How long to go on serving, no longer ready, once asked to stop, e.g. 5s: for load balancers to take notice.
    #[arg(long, default_value = "0s", value_parser = crate::args::duration)]
    pub shutdown_delay_duration: Duration,
}

impl LimitArgs {
    /// Seats of priority and fairness.
    #[must_use]
    pub fn seats(&self) -> u64 {
        (self.max_requests_inflight + self.max_mutating_requests_inflight).max(1)
    }
}
