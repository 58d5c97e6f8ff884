//! Looking at a log without changing it: what it holds, and what damage in it would cost.

use super::disk::Disk;
use super::open::{Replay, is_born};
use super::record::Record;
use super::segment::{HEADER, file_name, number_of, readable};
use super::{EntryId, WalError};
use std::collections::BTreeSet;

/// What a log holds.
#[derive(Debug)]
pub struct Inspection {
    /// Numbers of the first and the last segment; `None` without any.
    pub segments: Option<(u64, u64)>,
    /// The last entry before any damage.
    pub last: Option<EntryId>,
    /// Where an unfinished batch begins that nobody was told of: segment and byte.
    pub torn: Option<(u64, u64)>,
    /// What is wrong, if anything is.
    pub damage: Option<Damage>,
}

/// What is wrong with a log.
#[derive(Debug)]
pub struct Damage {
    /// Where, and how.
    pub error: WalError,
    /// Entries that are readable behind it, and would be lost with what is unreadable.
    pub behind: BTreeSet<u64>,
}

/// Reads all of the log on `disk`.
///
/// # Errors
/// The disk fails.
pub fn inspect(disk: &dyn Disk) -> Result<Inspection, WalError> {
    let names = disk.list().map_err(|source| WalError::Folder { what: "list", source })?;
    let numbers: BTreeSet<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    let segments = numbers.first().copied().zip(numbers.last().copied());
    let mut found = Inspection { segments, last: None, torn: None, damage: None };
    let mut replay = Replay::default();
    let mut previous = None;
    for number in numbers {
        let is_last = segments.is_some_and(|(_, last)| last == number);
        let failed = |source| WalError::Segment { what: "read", segment: number, source };
        let bytes = disk.open(&file_name(number)).and_then(|file| file.read_all()).map_err(failed)?;
        let gap = previous.is_some_and(|previous| previous + 1 != number);
        previous = Some(number);
        let good = match &mut found.damage {
            Some(damage) => {
                damage.behind.extend(entries(&bytes, HEADER, number));
                continue;
            }
            None if gap => Err(WalError::Missing { segment: number - 1 }),
            // A segment that was never finished is no damage: opening removes it.
            None if is_last && matches!(is_born(&bytes, number), Ok(false)) => continue,
            None => replay.segment(number, &bytes, is_last),
        };
        match good {
            Ok(end) => found.torn = end.torn.then_some((number, end.end)),
            Err(error) => {
                // Damage may be of the segment before, whose end this one tells; then all of this one is behind it.
                let at = match &error {
                    WalError::Damaged { segment, at } | WalError::Contradiction { segment, at, .. }
                        if *segment == number =>
                    {
                        usize::try_from(*at).unwrap_or(usize::MAX).max(HEADER)
                    }
                    _ => HEADER,
                };
                // What the same segment holds before the damage was not taken by the replay as a whole.
                found.last = readable(&bytes, HEADER, number)
                    .take_while(|(place, _)| *place < at)
                    .filter_map(
                        |(_, record)| if let Record::Entry(entry) = record { Some(entry.id) } else { None },
                    )
                    .last()
                    .or(replay.tail.log().head.last);
                found.damage = Some(Damage { error, behind: entries(&bytes, at, number).collect() });
            }
        }
    }
    if found.damage.is_none() {
        found.last = replay.tail.log().head.last;
    }
    Ok(found)
}

fn entries(bytes: &[u8], from: usize, number: u64) -> impl Iterator<Item = u64> {
    readable(bytes, from, number)
        .filter_map(|(_, record)| if let Record::Entry(entry) = record { Some(entry.id.index) } else { None })
}
