//! The seam to the disk, so that tests and simulations can tear writes and fail syncs.

use super::direct::FolderFile;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A folder of files.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that is there.
    ///
    /// # Errors
    /// It is not, or cannot be opened.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a file of `size` zeros on stable storage, in the place of any file of that name.
    ///
    /// # Errors
    /// The disk is full or fails.
    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, on stable storage.
    ///
    /// # Errors
    /// The disk fails.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, on stable storage.
    ///
    /// # Errors
    /// The disk fails.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    /// All its bytes.
    ///
    /// # Errors
    /// The disk fails.
    fn read_all(&self) -> io::Result<Vec<u8>>;
    /// Fills `bytes` with what stands from `offset` on.
    ///
    /// # Errors
    /// The disk fails, or the file ends before.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let all = self.read_all()?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let part = all.get(from..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    /// Writes in place.
    ///
    /// # Errors
    /// The disk is full or fails.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Waits until everything written is on stable storage.
    ///
    /// # Errors
    /// The disk fails; what was written since the last sync is then lost or not.
    fn sync(&mut self) -> io::Result<()>;
    /// Writes where only zeros follow, and waits until it is on stable storage.
    ///
    /// # Errors
    /// The disk is full or fails; what was written is then lost or not.
    fn append(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)?;
        self.sync()
    }
    /// Its length.
    ///
    /// # Errors
    /// The disk fails.
    fn size(&self) -> io::Result<u64>;
}

/// A real folder, readable by its owner only.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held open: syncing it makes names stable, and its lock keeps a second process out.
    handle: File,
}

impl Folder {
    /// Opens the folder at `path`, making it when it is not there.
    ///
    /// # Errors
    /// It cannot be made, or another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let handle = File::open(path)?;
        handle.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("another process uses {}", path.display()),
            ),
            std::fs::TryLockError::Error(error) => error,
        })?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { path: path.to_owned(), handle })
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.path)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Box::new(FolderFile::new(file)))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        const ZEROS: &[u8] = &[0; 1 << 20];
        let path = self.path.join(name);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let fill = || -> io::Result<()> {
            let mut at = 0;
            while at < size {
                let step = (size - at).min(ZEROS.len() as u64);
                #[expect(clippy::cast_possible_truncation, reason = "at most the length of ZEROS")]
                file.write_all_at(&ZEROS[..step as usize], at)?;
                at += step;
            }
            file.sync_all()?;
            self.handle.sync_all()
        };
        if let Err(error) = fill() {
            // Half a file would only keep a full disk full.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Box::new(FolderFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        self.handle.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))?;
        self.handle.sync_all()
    }
}
