//! The operating system's chance, in the hand of the seed: on a thread that a simulation runs on, `getrandom` gives what
//! follows from the seed. Hash maps of the standard library and generators of dependencies draw from it, and would play each
//! seed in another order otherwise.

use crate::dice::Dice;
use std::cell::RefCell;
use std::panic::resume_unwind;

/// Debug builds of HTTP/2 under openraft go deep.
const STACK_BYTES: usize = 16 << 20;

thread_local! {
    static CHANCE: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// Runs `play` on a thread of its own, which has drawn nothing before, and on which all chance follows from `seed`.
pub fn on_a_fresh_thread<T: Send>(
    seed: u64,
    play: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, move || {
            CHANCE.set(Some(Dice::new(seed)));
            play()
        });
        thread.map_err(|error| error.to_string())?.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// In the place of the C library's function of this name, which Rust's standard library and `getrandom` call.
#[expect(unsafe_code, reason = "nothing else comes before the C library's function")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    let drawn = CHANCE.try_with(|chance| {
        let mut chance = chance.try_borrow_mut().ok()?;
        let dice = chance.as_mut()?;
        for at in 0..length {
            // SAFETY: whoever calls gives a buffer of that length, as the C library's function asks for.
            unsafe { buffer.add(at).write(dice.next().to_le_bytes()[7]) };
        }
        isize::try_from(length).ok()
    });
    match drawn {
        Ok(Some(length)) => length,
        // SAFETY: the system call takes what this function takes.
        _ => unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn hash_maps_of_a_simulation_have_the_order_of_its_seed() {
        let order = |seed| {
            let order = || Ok((0..100).collect::<HashSet<_>>().into_iter().collect::<Vec<u32>>());
            on_a_fresh_thread(seed, order).expect("plays")
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let unseeded = || std::thread::spawn(coracle_daemon::random::u64).join().expect("draws");
        assert_ne!(unseeded(), unseeded(), "other threads draw from the machine");
    }
}
