//! What is made of files, and made anew when one of them has changed: certificates are replaced while processes run.
//!
//! In: paths, and how to read them. Out: the newest that could be read. Files are looked at when somebody asks, not in between;
//! what cannot be read, such as a certificate whose key is still to come, leaves in force what was there before.

use super::TlsError;
use crate::panics::Mutex;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What tells one content of a file from another: device, inode, size, and the time of its last change in nanoseconds.
/// `None` when it is not there.
type Stamp = Option<(u64, u64, u64, i128)>;

type Make<T> = Box<dyn Fn() -> Result<Arc<T>, TlsError> + Send + Sync>;

/// See the module.
pub struct Fresh<T: ?Sized> {
    paths: Vec<PathBuf>,
    make: Make<T>,
    known: Mutex<(Vec<Stamp>, Arc<T>)>,
}

impl<T: ?Sized> std::fmt::Debug for Fresh<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fresh").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        let changed = i128::from(file.ctime()) * 1_000_000_000 + i128::from(file.ctime_nsec());
        Some((file.dev(), file.ino(), file.size(), changed))
    };
    paths.iter().map(stamp).collect()
}

impl<T: ?Sized> Fresh<T> {
    /// Made for the first time.
    ///
    /// # Errors
    /// What `make` finds.
    pub fn new(
        paths: Vec<PathBuf>,
        make: impl Fn() -> Result<Arc<T>, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // Looked at before it is read: what changes meanwhile is read again.
        let seen = stamps(&paths);
        let value = make()?;
        Ok(Self { paths, make: Box::new(make), known: Mutex::new((seen, value)) })
    }

    /// The newest that could be read.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        let mut known = self.known.lock();
        let seen = stamps(&self.paths);
        if known.0 != seen {
            // Files that are no use are not read again before they change.
            known.0 = seen;
            match (self.make)() {
                Ok(value) => {
                    tracing::info!(files = ?self.paths, "read changed certificates");
                    known.1 = value;
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "changed certificates are no use; the former ones stay");
                }
            }
        }
        known.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_once_it_has_changed_and_the_former_content_stays_when_it_is_no_use() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "one").expect("written");
        let (from, reads) = (path.clone(), Arc::new(Mutex::new(0)));
        let counted = reads.clone();
        let fresh = Fresh::<str>::new(vec![path.clone()], move || {
            *counted.lock() += 1;
            let text = std::fs::read_to_string(&from).unwrap_or_default();
            let unusable = || TlsError::Unusable { path: from.clone(), source: rustls::Error::EncryptError };
            if text.is_empty() { Err(unusable()) } else { Ok(text.into()) }
        })
        .expect("read");
        assert_eq!((&*fresh.get(), *reads.lock()), ("one", 1));
        // As long, at once, and put in the place of the other, as careful writers do.
        std::fs::write(folder.path().join("next"), "two").expect("written");
        std::fs::rename(folder.path().join("next"), &path).expect("renamed");
        assert_eq!((&*fresh.get(), &*fresh.get(), *reads.lock()), ("two", "two", 2));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!((&*fresh.get(), &*fresh.get(), *reads.lock()), ("two", "two", 3));
        std::fs::write(&path, "three").expect("written");
        assert_eq!((&*fresh.get(), *reads.lock()), ("three", 4));
    }
}
