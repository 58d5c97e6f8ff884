//! A watcher is told every event of its range once and in order, up to where it has read; and where it cannot go on, it is told.

use crate::watcher::Watcher;
use crate::world::World;

pub fn check(world: &World) -> Result<(), String> {
    world.watchers.iter().try_for_each(|watcher| check_one(world, watcher))
}

fn check_one(world: &World, watcher: &Watcher) -> Result<(), String> {
    let wanted = world.oracle.events.iter().filter(|event| {
        watcher.range.contains(&event.key) && event.revision >= watcher.from && event.revision <= watcher.read
    });
    let mut seen = watcher.seen.iter();
    for event in wanted {
        let told = seen.next();
        if told != Some(event) {
            return Err(format!(
                "a watcher of {:?} should be told {event:?}, but was {told:?}",
                watcher.range
            ));
        }
    }
    match seen.next() {
        Some(more) => Err(format!("a watcher of {:?} was told {more:?}, which was not to be", watcher.range)),
        None if watcher.compacted && world.oracle.compacted <= watcher.read => Err(format!(
            "a watcher at {} was refused, but only {} is compacted",
            watcher.read, world.oracle.compacted
        )),
        None => Ok(()),
    }
}

/// Nobody is behind, but those whom a compaction overtook.
pub fn check_all_read(world: &World) -> Result<(), String> {
    for watcher in world.watchers.iter().filter(|watcher| !watcher.compacted) {
        if watcher.read != world.oracle.revision {
            return Err(format!(
                "a watcher of {:?} has read up to {}, of {}",
                watcher.range, watcher.read, world.oracle.revision
            ));
        }
    }
    Ok(())
}
