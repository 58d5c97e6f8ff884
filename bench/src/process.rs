//! What a process of this machine costs: time and memory, as the kernel tells.

use nix::time::{clock_getcpuclockid, clock_gettime};
use std::time::Duration;

/// The fields of `/proc/PID/stat` after the program's name.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok().filter(|parent| *parent > 1)
}

/// Seconds that a process has been busy, in its own code and in the kernel's, to the nanosecond. `/proc/PID/stat` counts
/// whole ticks of the timer, which is also what wakes most idle processes: it charges them for far more than they ran.
pub fn busy_seconds(pid: u32) -> Option<f64> {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().ok()?);
    let ran = clock_gettime(clock_getcpuclockid(pid).ok()?).ok()?;
    Some(Duration::from(ran).as_secs_f64())
}

/// Bytes of memory that a process holds. What it shares with others, such as its program, is divided among them
/// (proc(5), `Pss`): summed over processes of one program, nothing counts twice.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_a_parent_some_memory_and_has_been_busy() {
        let own = std::process::id();
        assert!(stat(own).is_some_and(|fields| fields.len() > 20));
        assert!(busy_seconds(own).is_some_and(|seconds| seconds >= 0.0));
        assert!(resident_bytes(own).is_some_and(|bytes| bytes > 100_000));
    }
}
