//! A log that opens again has all that was acknowledged, and of the one batch whose fate was open any first part: nothing else.

use crate::member::Member;
use store::wal::LogState;

/// Compares what was opened with what was promised, and takes it as the new promise.
pub fn check(member: &mut Member, opened: &LogState) -> Result<(), String> {
    let mut possible = member.promised.clone();
    let mut open = std::mem::take(&mut member.open).into_iter();
    loop {
        if possible == *opened {
            member.promised = possible;
            return Ok(());
        }
        match open.next() {
            Some(record) => possible.apply(record)?,
            None => break,
        }
    }
    Err(format!(
        "member {} was promised to keep {:?} and {} entries, but opened with {:?} and {} entries",
        member.name,
        member.promised.head,
        member.promised.entries.len(),
        opened.head,
        opened.entries.len()
    ))
}
