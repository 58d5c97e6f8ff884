//! A leader has every decided entry (Raft, section 5.4.3, leader completeness), and no member has applied anything else.

use crate::world::World;

pub fn check(world: &World) -> Result<(), String> {
    let decided = world.decided.len() as u64;
    for member in &world.members {
        let Some(running) = &member.running else { continue };
        if running.applied > decided {
            return Err(format!(
                "member {} has applied entry {}, of {decided} decided",
                member.name, running.applied
            ));
        }
    }
    let Some(leader) = world.leader else { return Ok(()) };
    for entry in &world.decided {
        let ours = world.members[leader].entry(entry.id.index);
        let dropped = world.members[leader].running.as_ref().and_then(|running| running.log.head.purged);
        if ours != Some(entry) && dropped.is_none_or(|id| id.index < entry.id.index) {
            return Err(format!("leader {leader} lacks the decided entry {}", entry.id.index));
        }
    }
    Ok(())
}
