//! Automatic compaction, as `--auto-compaction-mode` and `--auto-compaction-retention` ask for it. Only the leader compacts.

use super::Api;
use crate::Args;
use crate::args::{CompactionMode, parse_duration};
use crate::command::Op;
use crate::error::StoreError;
use anyhow::Context;
use coracle_daemon::clock;
use coracle_etcd::proto::CompactionRequest;
use std::collections::VecDeque;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the number of revisions is looked at.
const REVISIONS_EVERY: Duration = Duration::from_secs(5 * 60);
/// Parts of the retention after which revisions are noted.
const NOTES: u32 = 10;
/// The longest time between notes.
const NOTE_EVERY_MAX: Duration = Duration::from_secs(6 * 60);

/// What to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Revisions of the last so much time.
    Time(Duration),
    /// So many revisions.
    Revisions(i64),
}

impl Policy {
    /// From the flags; `None`: no compaction.
    pub fn from_args(args: &Args) -> anyhow::Result<Option<Self>> {
        let text = args.auto_compaction_retention.as_str();
        let policy = match (args.auto_compaction_mode, text.parse::<i64>()) {
            (CompactionMode::Revision, Ok(revisions)) => {
                (revisions > 0).then_some(Self::Revisions(revisions))
            }
            (CompactionMode::Revision, Err(_)) => {
                anyhow::bail!("--auto-compaction-retention {text:?} is no number of revisions")
            }
            (CompactionMode::Periodic, Ok(hours)) => {
                let hours =
                    u64::try_from(hours).context("--auto-compaction-retention must not be negative")?;
                (hours > 0).then(|| Self::Time(Duration::from_secs(hours.saturating_mul(3600))))
            }
            (CompactionMode::Periodic, Err(_)) => {
                let time = parse_duration(text).map_err(anyhow::Error::msg)?;
                (!time.is_zero()).then_some(Self::Time(time))
            }
        };
        Ok(policy)
    }

    fn every(self) -> Duration {
        match self {
            Self::Time(retention) => (retention / NOTES).min(NOTE_EVERY_MAX),
            Self::Revisions(_) => REVISIONS_EVERY,
        }
    }
}

/// Revisions as they were noted, oldest first.
#[derive(Default)]
struct Notes(VecDeque<(clock::Instant, i64)>);

impl Notes {
    /// Notes the revision now. Returns the last one that is older than `retention`.
    fn turn(&mut self, now: clock::Instant, revision: i64, retention: Duration) -> Option<i64> {
        self.0.push_back((now, revision));
        let mut old = None;
        while let Some((at, noted)) = self.0.front()
            && now.duration_since(*at) >= retention
        {
            old = Some(*noted);
            self.0.pop_front();
        }
        old
    }
}

/// Compacts until `stop`.
pub(super) async fn run(policy: Policy, api: &Api, stop: CancellationToken) {
    let mut notes = Notes::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock::sleep(policy.every()) => {}
        }
        let revision = api.shared.machine().revision();
        let target = match policy {
            Policy::Time(retention) => notes.turn(clock::Instant::now(), revision, retention),
            Policy::Revisions(keep) => Some(revision - keep),
        };
        let Some(target) = target.filter(|target| *target > api.shared.machine().compacted()) else {
            continue;
        };
        if !api.leadership().is_me {
            continue;
        }
        match api.commit(Op::Compact(CompactionRequest { revision: target, physical: false })).await {
            Ok(_) => tracing::info!(revision = target, "compacted"),
            Err(StoreError::Compacted) => {}
            Err(error) => tracing::warn!(revision = target, %error, "cannot compact; trying again later"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_retention_is_given_up() {
        let (mut notes, start, minute) = (Notes::default(), clock::Instant::now(), Duration::from_secs(60));
        let retention = 3 * minute;
        let turns: Vec<Option<i64>> =
            (0..6).map(|turn| notes.turn(start + turn * minute, 10 * i64::from(turn), retention)).collect();
        assert_eq!(turns, [None, None, None, Some(0), Some(10), Some(20)]);
    }
}
