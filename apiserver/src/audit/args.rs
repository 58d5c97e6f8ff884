//! Flags of the audit log, named as kube-apiserver's: for the file and for the webhook the same ones.

use super::event::Form;
use super::sink::{Batches, Mode, Settings, Throttle};
use anyhow::{bail, ensure};
use std::path::PathBuf;
use std::time::Duration;

/// Flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AuditArgs {
    /// Policy that says what is noted of which requests.
    #[arg(long)]
    pub audit_policy_file: Option<PathBuf>,
    /// File to which all noted events go; `-` for standard output.
    #[arg(long)]
    pub audit_log_path: Option<PathBuf>,
    /// Megabytes at which the file is put away.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// Old files that are kept; 0: all.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Days that old files are kept; 0: for ever.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxage: u64,
    /// How events are written.
    #[arg(long, value_enum, default_value_t = Form::Json)]
    pub audit_log_format: Form,
    /// When requests go on: with their events written behind them, once these are written, or only if they are.
    #[arg(long, value_enum, default_value_t = Mode::Blocking)]
    pub audit_log_mode: Mode,
    /// Events that may wait to be written, in batch mode; more are lost.
    #[arg(long, default_value_t = 10_000)]
    pub audit_log_batch_buffer_size: usize,
    /// Events of a batch.
    #[arg(long, default_value_t = 1)]
    pub audit_log_batch_max_size: usize,
    /// How long a batch waits until it is full.
    #[arg(long, default_value = "0s", value_parser = crate::flags::duration)]
    pub audit_log_batch_max_wait: Duration,
    /// Bound how many batches are written.
    #[arg(long, default_value = "false", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub audit_log_batch_throttle_enable: bool,
    /// Batches a second, bounded.
    #[arg(long, default_value_t = 0.0)]
    pub audit_log_batch_throttle_qps: f64,
    /// Batches at once, bounded.
    #[arg(long, default_value_t = 0)]
    pub audit_log_batch_throttle_burst: u32,
    /// Leave bodies out of events that are too large, and the events that still are.
    #[arg(long, default_value = "false", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub audit_log_truncate_enabled: bool,
    /// Bytes of a batch, at least those of an event: events come one by one.
    #[arg(long, default_value_t = 10 << 20)]
    pub audit_log_truncate_max_batch_size: usize,
    /// Bytes of an event.
    #[arg(long, default_value_t = 100 << 10)]
    pub audit_log_truncate_max_event_size: usize,
    /// Kubeconfig of a server to which all noted events are sent.
    #[arg(long)]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// When requests go on, as of the file.
    #[arg(long, value_enum, default_value_t = Mode::Batch)]
    pub audit_webhook_mode: Mode,
    /// How long to wait before events are sent again, e.g. 10s; half as long again each time.
    #[arg(long, alias = "audit-webhook-batch-initial-backoff", default_value = "10s", value_parser = crate::flags::duration)]
    pub audit_webhook_initial_backoff: Duration,
    /// Events that may wait to be sent, in batch mode; more are lost.
    #[arg(long, default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,
    /// Events of a batch.
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// How long a batch waits until it is full.
    #[arg(long, default_value = "30s", value_parser = crate::flags::duration)]
    pub audit_webhook_batch_max_wait: Duration,
    /// Bound how many batches are sent.
    #[arg(long, default_value = "true", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub audit_webhook_batch_throttle_enable: bool,
    /// Batches a second, bounded.
    #[arg(long, default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f64,
    /// Batches at once, bounded.
    #[arg(long, default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: u32,
    /// Leave bodies out of events that are too large, and the events that still are.
    #[arg(long, default_value = "false", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub audit_webhook_truncate_enabled: bool,
    /// Bytes of a batch, at least those of an event: events come one by one.
    #[arg(long, default_value_t = 10 << 20)]
    pub audit_webhook_truncate_max_batch_size: usize,
    /// Bytes of an event.
    #[arg(long, default_value_t = 100 << 10)]
    pub audit_webhook_truncate_max_event_size: usize,
}

impl AuditArgs {
    /// How events get to the file.
    ///
    /// # Errors
    /// A number means nothing.
    pub fn log(&self) -> anyhow::Result<Settings> {
        let throttle = Throttle {
            qps: self.audit_log_batch_throttle_qps,
            burst: f64::from(self.audit_log_batch_throttle_burst),
        };
        let batches = Batches {
            buffer: self.audit_log_batch_buffer_size,
            size: self.audit_log_batch_max_size,
            wait: self.audit_log_batch_max_wait,
            throttle: self.audit_log_batch_throttle_enable.then_some(throttle),
        };
        let sizes = [self.audit_log_truncate_max_event_size, self.audit_log_truncate_max_batch_size];
        settings("log", self.audit_log_mode, batches, sizes, self.audit_log_truncate_enabled)
    }

    /// How events get to the webhook.
    ///
    /// # Errors
    /// A number means nothing.
    pub fn webhook(&self) -> anyhow::Result<Settings> {
        let throttle = Throttle {
            qps: self.audit_webhook_batch_throttle_qps,
            burst: f64::from(self.audit_webhook_batch_throttle_burst),
        };
        let batches = Batches {
            buffer: self.audit_webhook_batch_buffer_size,
            size: self.audit_webhook_batch_max_size,
            wait: self.audit_webhook_batch_max_wait,
            throttle: self.audit_webhook_batch_throttle_enable.then_some(throttle),
        };
        let sizes = [self.audit_webhook_truncate_max_event_size, self.audit_webhook_truncate_max_batch_size];
        settings("webhook", self.audit_webhook_mode, batches, sizes, self.audit_webhook_truncate_enabled)
    }
}

fn settings(
    whose: &'static str,
    mode: Mode,
    batches: Batches,
    [event_max, batch_max]: [usize; 2],
    truncates: bool,
) -> anyhow::Result<Settings> {
    if mode == Mode::Batch {
        for (what, number) in [("buffer size", batches.buffer), ("max batch size", batches.size)] {
            ensure!(number > 0, "invalid audit batch {whose} {what} {number}, must be a positive number");
        }
        for (what, number) in
            batches.throttle.iter().flat_map(|told| [("QPS", told.qps), ("burst", told.burst)])
        {
            ensure!(
                number > 0.0,
                "invalid audit batch {whose} throttle {what} {number}, must be a positive number"
            );
        }
    }
    ensure!(
        event_max > 0,
        "invalid audit truncate {whose} max event size {event_max}, must be a positive number"
    );
    if batch_max < event_max {
        bail!(
            "invalid audit truncate {whose} max batch size {batch_max}, must be greater than max event size ({event_max})"
        );
    }
    Ok(Settings { whose, mode, batches, event_max: truncates.then_some(event_max) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: AuditArgs,
        }
        let told = |flag: &str| {
            let args = <Cli as clap::Parser>::parse_from(["x", "--audit-log-mode=batch", flag]).args;
            let told = args.log().and_then(|_| args.webhook());
            told.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(told("--audit-webhook-batch-max-size=5"), "");
        let rows = [
            (
                "--audit-log-batch-buffer-size=0",
                "invalid audit batch log buffer size 0, must be a positive number",
            ),
            (
                "--audit-log-batch-throttle-enable",
                "invalid audit batch log throttle QPS 0, must be a positive number",
            ),
            (
                "--audit-webhook-truncate-max-event-size=0",
                "invalid audit truncate webhook max event size 0, must be a positive number",
            ),
            (
                "--audit-log-truncate-max-batch-size=5",
                "invalid audit truncate log max batch size 5, must be greater than max event size (102400)",
            ),
        ];
        for (flag, why) in rows {
            assert_eq!(told(flag), why);
        }
    }
}
