//! Members that have applied the same entries are in the same state, whichever way they came there.

use crate::world::World;
use std::collections::BTreeMap;

pub fn check(world: &World) -> Result<(), String> {
    let mut states = BTreeMap::new();
    for member in &world.members {
        let Some(running) = &member.running else { continue };
        let machine = &running.machine;
        let state =
            (machine.revision(), machine.compacted(), machine.hash_kv(0), member.leases(), machine.size());
        if let Some((other, known)) = states.insert(running.applied, (member.name, state.clone()))
            && known != state
        {
            return Err(format!(
                "members {other} and {} have both applied {} entries, but one is in {known:?} and the other in {state:?}",
                member.name, running.applied
            ));
        }
    }
    Ok(())
}

/// Nobody is behind.
pub fn check_all_caught_up(world: &World) -> Result<(), String> {
    let decided = world.decided.len() as u64;
    for member in &world.members {
        let applied = member.running.as_ref().map(|running| running.applied);
        if applied != Some(decided) {
            return Err(format!(
                "member {} has applied {applied:?} of {decided} decided entries",
                member.name
            ));
        }
        let revision = member.running.as_ref().map(|running| running.machine.revision());
        if revision != Some(world.oracle.revision) {
            return Err(format!(
                "member {} is at revision {revision:?}, not {}",
                member.name, world.oracle.revision
            ));
        }
    }
    Ok(())
}
