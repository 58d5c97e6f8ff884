//! What this process takes of its machine, as Linux tells it: read when it is asked for.

use crate::meters::Register;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ticks of a second and bytes of a page, where nobody has built Linux otherwise.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// Of this process.
pub struct Process {
    cpu: Counter<f64, AtomicU64>,
    virtual_bytes: Gauge<f64, AtomicU64>,
    resident_bytes: Gauge<f64, AtomicU64>,
    open_files: Gauge<f64, AtomicU64>,
    most_files: Gauge<f64, AtomicU64>,
    most_bytes: Gauge<f64, AtomicU64>,
    came: Counter<f64, AtomicU64>,
    went: Counter<f64, AtomicU64>,
}

impl Process {
    /// At a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let mut to = Register::of(registry, "process_");
        Self {
            cpu: to.add("cpu_seconds", "Time on processors, in seconds", Counter::default()),
            virtual_bytes: to.add("virtual_memory_bytes", "Memory that is addressed", Gauge::default()),
            resident_bytes: to.add("resident_memory_bytes", "Memory that is in use", Gauge::default()),
            open_files: to.add("open_fds", "Files that are open", Gauge::default()),
            most_files: to.add("max_fds", "Files that may be open", Gauge::default()),
            most_bytes: to.add("virtual_memory_max_bytes", "Memory that may be addressed", Gauge::default()),
            came: to.add("network_receive_bytes", "Bytes that came over the network", Counter::default()),
            went: to.add("network_transmit_bytes", "Bytes that went over the network", Counter::default()),
        }
    }

    /// Reads all anew; what cannot be read stays as it is.
    #[expect(clippy::cast_precision_loss, reason = "files are few")]
    pub fn read(&self) {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        if let Some([cpu, virtual_bytes, resident_bytes]) = times(&text("/proc/self/stat")) {
            self.cpu.inner().store(cpu.to_bits(), Ordering::Relaxed);
            self.virtual_bytes.set(virtual_bytes);
            self.resident_bytes.set(resident_bytes);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(files.count() as f64);
        }
        let limits = text("/proc/self/limits");
        for (gauge, what) in [(&self.most_files, "Max open files"), (&self.most_bytes, "Max address space")] {
            if let Some(most) = limit(&limits, what) {
                gauge.set(most);
            }
        }
        if let Some(octets) = octets(&text("/proc/self/net/netstat")) {
            for (counter, bytes) in [&self.came, &self.went].into_iter().zip(octets) {
                counter.inner().store(bytes.to_bits(), Ordering::Relaxed);
            }
        }
    }
}

/// Seconds on processors, and bytes of memory addressed and in use.
fn times(stat: &str) -> Option<[f64; 3]> {
    // A program's name may hold anything, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<f64> =
        fields.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number - 4).copied();
    Some([(field(14)? + field(15)?) / TICKS, field(23)?, field(24)? * PAGE])
}

/// A soft limit; what has none may be as much as a number can tell.
#[expect(clippy::cast_precision_loss, reason = "a limit need not be exact")]
fn limit(limits: &str, what: &str) -> Option<f64> {
    let told = limits.lines().find_map(|line| line.strip_prefix(what))?.split_whitespace().next()?;
    if told == "unlimited" { Some(u64::MAX as f64) } else { told.parse().ok() }
}

/// Bytes that came and went by IP: names stand in one line, their numbers in the next.
fn octets(netstat: &str) -> Option<[f64; 2]> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, numbers) = (lines.next()?.split_whitespace(), lines.next()?.split_whitespace());
    let told: Vec<(&str, &str)> = names.zip(numbers).collect();
    let of = |name: &str| told.iter().find(|(own, _)| *own == name)?.1.parse().ok();
    Some([of("InOctets")?, of("OutOctets")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 8 0 12345 104857600 2560 18446744073709551615";
        assert_eq!(times(stat), Some([3.0, 104_857_600.0, 10_485_760.0]));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\nMax address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert!(limit(limits, "Max address space").is_some_and(|most| most > 1e19));
        let netstat = "TcpExt: A\nTcpExt: 1\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 12 34\n";
        assert_eq!(octets(netstat), Some([12.0, 34.0]));
        let process = Process::new(&mut Registry::default());
        process.read();
        assert!(process.resident_bytes.get() > 0.0 && process.open_files.get() > 0.0);
    }
}
