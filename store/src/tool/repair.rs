//! `coracle store repair --dry-run`: whether a stopped member's log is whole, and what would be lost if it were cut off at damage.

use crate::wal::{Damage, Disk, Folder, Inspection, inspect};
use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// `coracle store repair`
#[derive(ClapArgs, Clone, Debug)]
pub struct RepairArgs {
    /// The member's data folder
    #[arg(long, env = "ETCD_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Folder of the log, where it is elsewhere
    #[arg(long, env = "ETCD_WAL_DIR")]
    pub wal_dir: Option<PathBuf>,
    /// Only tell what is wrong. A log is not cut off in place: members get their data from other members, or from a backup
    #[arg(long, required = true)]
    pub dry_run: bool,
}

pub(super) fn run(args: &RepairArgs) -> Result<String> {
    let folder = args.wal_dir.clone().unwrap_or_else(|| args.data_dir.join("wal"));
    anyhow::ensure!(folder.is_dir(), "{} is no folder of a log", folder.display());
    let disk = Folder::open(&folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    report(&disk)
}

/// One line about a log that is whole; an error about one that is not.
pub(super) fn report(disk: &dyn Disk) -> Result<String> {
    let Inspection { segments, last, torn, damage } = inspect(disk)?;
    let Some((first, newest)) = segments else { return Ok("the log is empty".to_owned()) };
    let last =
        last.map_or_else(|| "no entry".to_owned(), |id| format!("entry {} of term {}", id.index, id.term));
    if let Some(Damage { error, behind }) = damage {
        let lost = match (behind.first(), behind.last()) {
            (Some(from), Some(to)) => format!(
                "{} readable entries behind it, {from} to {to}, and what is unreadable between",
                behind.len()
            ),
            _ => "what is unreadable there; nothing readable is behind it".to_owned(),
        };
        bail!("{error}. It is whole up to {last}. Cutting it off there would lose {lost}");
    }
    let tail = torn.map_or_else(String::new, |(segment, at)| {
        format!("; an unfinished batch, which nobody was told of, goes at the next start (segment {segment}, byte {at})")
    });
    Ok(format!("the log is whole: segments {first} to {newest}, up to {last}{tail}"))
}
