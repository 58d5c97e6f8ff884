//! How many requests run at once. Watches and streams are not counted: they wait more than they work.

use tokio::sync::{Semaphore, SemaphorePermit};

const READS_MAX: usize = 400;
const WRITES_MAX: usize = 200;

/// Places for running requests.
pub struct Limits {
    reads: Semaphore,
    writes: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reads: Semaphore::new(READS_MAX), writes: Semaphore::new(WRITES_MAX) }
    }
}

impl Limits {
    /// A place for a request of that verb; `None` when all are taken.
    pub fn place(&self, verb: &str) -> Option<SemaphorePermit<'_>> {
        let places = if matches!(verb, "get" | "list") { &self.reads } else { &self.writes };
        places.try_acquire().ok()
    }

    /// Reads and writes that run now.
    #[must_use]
    pub fn running(&self) -> (usize, usize) {
        (READS_MAX - self.reads.available_permits(), WRITES_MAX - self.writes.available_permits())
    }
}
