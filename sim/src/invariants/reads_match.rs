//! A member that is up to date reads what the oracle reads, now and at any revision that is not compacted.

use crate::commands;
use crate::dice::Dice;
use crate::world::World;
use coracle_etcd::proto::RangeRequest;

pub fn check(world: &World, dice: &mut Dice) -> Result<(), String> {
    let (key, range_end) = commands::range(dice);
    let oracle = &world.oracle;
    let past = oracle.compacted.max(1) + i64::try_from(dice.below(40)).unwrap_or(0);
    let revision = if dice.percent(50) { 0 } else { past.min(oracle.revision) };
    let request = RangeRequest { key, range_end, revision, ..RangeRequest::default() };
    let wanted = oracle.range(&request).map_err(|error| error.to_string())?;
    for member in &world.members {
        let Some(running) = &member.running else { continue };
        if running.applied != world.decided.len() as u64 {
            continue;
        }
        let found = running.machine.range(&request);
        let found =
            found.map_err(|error| format!("member {} refuses {request:?}: {error}", member.name))?.kvs;
        if found != wanted {
            return Err(format!(
                "member {} answers {request:?} with {found:#?}, not {wanted:#?}",
                member.name
            ));
        }
    }
    Ok(())
}
