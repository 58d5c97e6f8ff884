//! What must always hold; one file a property.

mod acknowledged_write_kept;
mod decided_stays_decided;
mod reads_match;
mod replicas_agree;
mod watch_complete;

pub use acknowledged_write_kept::check as acknowledged_write_kept;

use crate::dice::Dice;
use crate::world::World;

/// Checked after every step.
pub fn check(world: &World, dice: &mut Dice) -> Result<(), String> {
    decided_stays_decided::check(world)?;
    replicas_agree::check(world)?;
    watch_complete::check(world)?;
    reads_match::check(world, &mut dice.fork())
}

/// Checked once nothing fails any more and all have caught up.
pub fn check_healed(world: &World, dice: &mut Dice) -> Result<(), String> {
    check(world, dice)?;
    replicas_agree::check_all_caught_up(world)?;
    watch_complete::check_all_read(world)
}
