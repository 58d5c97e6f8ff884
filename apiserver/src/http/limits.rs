//! How many requests run at once, and how long they may take.

use coracle_api::expression::go_duration;
use coracle_api::status::Status;
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
    /// Let requests run by FlowSchemas and priority levels; without, by the two numbers alone.
    #[arg(long, default_value = "true", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub enable_priority_and_fairness: bool,
    /// Seconds that a watch lasts at least which names no time.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
    /// Let those who may see how much is logged change it at /debug/flags/v.
    #[arg(long, default_value = "true", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub profiling: bool,
    /// How long a request may take, watches and streams apart, e.g. 1m0s.
    #[arg(long, default_value = "1m0s", value_parser = crate::flags::duration)]
    pub request_timeout: Duration,
    /// How long to go on serving, no longer ready, once asked to stop, e.g. 5s: for load balancers to take notice.
    #[arg(long, default_value = "0s", value_parser = crate::flags::duration)]
    pub shutdown_delay_duration: Duration,
}

impl LimitArgs {
    /// How many reads and writes may run at once where priority and fairness is off; 0: all.
    #[must_use]
    pub fn bounds(&self) -> Option<[u64; 2]> {
        let bounds = [self.max_requests_inflight, self.max_mutating_requests_inflight];
        (!self.enable_priority_and_fairness).then_some(bounds)
    }

    /// Seats of priority and fairness.
    #[must_use]
    pub fn seats(&self) -> u64 {
        (self.max_requests_inflight + self.max_mutating_requests_inflight).max(1)
    }
}

/// How long a request may take that asks for `asked` (the parameter `timeout`, empty where there is none): at most `most`.
///
/// # Errors
/// 400: it is no duration.
pub fn time_limit(asked: &str, most: Duration) -> Result<Duration, Status> {
    if asked.is_empty() {
        return Ok(most);
    }
    let asked = go_duration(asked).map_err(|fault| {
        Status::bad_request(format!("invalid timeout specified in the request URL - {fault}"))
    })?;
    // Nothing and less than nothing say that the client does not care.
    Ok(Duration::try_from(asked).ok().filter(|asked| !asked.is_zero()).map_or(most, |asked| asked.min(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_shorten_the_time_of_their_requests() {
        let most = Duration::from_secs(60);
        for (asked, seconds) in [("", 60), ("2s", 2), ("5m", 60), ("0s", 60), ("-1s", 60)] {
            assert_eq!(time_limit(asked, most), Ok(Duration::from_secs(seconds)), "{asked}");
        }
        let rows = [
            ("x", "time: invalid duration \"x\""),
            ("1", "time: missing unit in duration \"1\""),
            ("1y", "time: unknown unit \"y\" in duration \"1y\""),
        ];
        for (asked, fault) in rows {
            let status = time_limit(asked, most).expect_err(asked);
            let told = format!("invalid timeout specified in the request URL - {fault}");
            assert_eq!((status.code, status.message), (400, told));
        }
    }
}
