//! The audit log: one event a line, to standard output or a file that is rotated by size, with old files kept by number and
//! age. A write is done when it returns: no event waits in memory.

use anyhow::Context;
use coracle_daemon::clock;
use coracle_daemon::panics::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The time in an old file's name.
const TIME: &str = "%Y-%m-%dT%H-%M-%S.%3f";
/// Where no size is given.
const MEGABYTES: u64 = 100;

/// What becomes of old files; 0 is no bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Size at which a file is put away.
    pub megabytes: u64,
    /// Old files.
    pub backups: usize,
    /// Their age.
    pub days: u64,
}

/// The log.
pub struct Log {
    out: Mutex<Out>,
}

enum Out {
    Standard,
    Rotated(Rotated),
}

struct Rotated {
    path: PathBuf,
    keep: Keep,
    file: File,
    bytes: u64,
}

impl Log {
    /// Opens the log at `path`; `-` is standard output.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path, keep: Keep) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { out: Mutex::new(Out::Standard) });
        }
        let rotated = Rotated::open(path, keep)
            .with_context(|| format!("cannot write the audit log {}", path.display()))?;
        Ok(Self { out: Mutex::new(Out::Rotated(rotated)) })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        match &mut *self.out.lock() {
            Out::Standard => io::stdout().lock().write_all(line),
            Out::Rotated(rotated) => rotated.write(line),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Bodies of requests may stand in it.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Rotated {
    fn open(path: &Path, keep: Keep) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), keep, file, bytes })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let megabytes = if self.keep.megabytes == 0 { MEGABYTES } else { self.keep.megabytes };
        if self.bytes > 0 && self.bytes + line.len() as u64 > megabytes << 20 {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// What old files' names begin and end with.
    fn affixes(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let end = part(self.path.extension()).map(|end| format!(".{end}")).unwrap_or_default();
        (format!("{}-", part(self.path.file_stem()).unwrap_or_default()), end)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let (begin, end) = self.affixes();
        match std::fs::rename(&self.path, self.free_name(&begin, &end)?) {
            // Somebody moved it, or the new file could not be made last time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = append(&self.path)?;
        self.bytes = 0;
        // What is too old can go later; what is new must be written now.
        if let Err(error) = self.forget(&begin, &end) {
            tracing::warn!(%error, log = %self.path.display(), "cannot remove old audit logs");
        }
        Ok(())
    }

    /// An old file's name that no file has: two may be put away within the millisecond that names tell.
    fn free_name(&self, begin: &str, end: &str) -> io::Result<PathBuf> {
        let mut at = clock::now();
        loop {
            let path = self.path.with_file_name(format!("{begin}{}{end}", at.strftime(TIME)));
            if !path.try_exists()? {
                return Ok(path);
            }
            at += jiff::SignedDuration::from_millis(1);
        }
    }

    /// Removes old files that are too many or too old. Names hold their times, and sort by them.
    fn forget(&self, begin: &str, end: &str) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut old: Vec<(String, PathBuf)> = Vec::new();
        for found in std::fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })? {
            let found = found?;
            let name = found.file_name().to_string_lossy().into_owned();
            if let Some(time) = name.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end)) {
                old.push((time.to_owned(), found.path()));
            }
        }
        old.sort();
        old.reverse();
        let age =
            jiff::SignedDuration::from_hours(i64::try_from(self.keep.days).unwrap_or(0).saturating_mul(24));
        let oldest = clock::now().checked_sub(age).ok();
        let oldest = oldest.map(|oldest| oldest.strftime(TIME).to_string());
        for (index, (time, path)) in old.iter().enumerate() {
            let too_many = self.keep.backups > 0 && index >= self.keep.backups;
            let too_old = self.keep.days > 0 && oldest.as_ref().is_some_and(|oldest| time < oldest);
            if too_many || too_old {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_away_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("logs/audit.log");
        let log = Log::open(&path, Keep { megabytes: 1, backups: 2, days: 1 }).expect("log");
        std::fs::write(folder.path().join("logs/audit-2001-01-01T00-00-00.000.log"), "old").expect("old");
        std::fs::write(folder.path().join("logs/other.log"), "other").expect("other");
        let line = vec![b'x'; 700 << 10];
        for _ in 0..6 {
            log.write(&line).expect("written");
        }
        let names: Vec<String> = std::fs::read_dir(folder.path().join("logs"))
            .expect("folder")
            .map(|found| found.expect("file").file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.len(), 4, "{names:?}: the log, two old ones, and what is none");
        assert!(names.iter().all(|name| !name.contains("2001")));
        assert_eq!(std::fs::metadata(&path).expect("log").len(), 700 << 10);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).expect("log").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_lost_when_files_are_put_away_quickly_or_the_log_was_moved() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.log");
        let log = Log::open(&path, Keep { megabytes: 1, ..Keep::default() }).expect("log");
        for _ in 0..6 {
            log.write(&vec![b'x'; 700 << 10]).expect("written");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 6, "one of each write");
        std::fs::remove_file(&path).expect("removed");
        log.write(&vec![b'y'; 700 << 10]).expect("written");
        assert_eq!(std::fs::read(&path).expect("log")[0], b'y');
    }
}
