//! The folders behind the volumes that we make: one for each volume, all below one parent on this machine.
//!
//! In: a volume's name. Out: its folder, made, or removed with all that is in it. Of the API's objects nothing but that
//! name, and only if it is one of ours, becomes part of a path: no object can point us elsewhere.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names of our volumes: this and the uid of the claim.
pub const PREFIX: &str = "pvc-";

#[derive(Clone, Debug)]
pub struct Folders {
    parent: PathBuf,
}

impl Folders {
    pub fn new(parent: &Path) -> Self {
        Self { parent: parent.to_owned() }
    }

    /// Where a volume of ours is; `None` for a name that we give to none.
    pub fn of(&self, volume: &str) -> Option<PathBuf> {
        let uid = volume.strip_prefix(PREFIX)?;
        let plain = !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        plain.then(|| self.parent.join(volume))
    }

    /// Makes the folder, for any user of a container to write to; only root gets to it from outside.
    pub async fn make(&self, volume: &str) -> io::Result<()> {
        let (parent, folder) = (self.parent.clone(), self.checked(volume)?);
        blocking(move || {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                made => made.and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(0o777))),
            }
        })
        .await
    }

    /// Removes the folder; one that is gone is as good.
    pub async fn remove(&self, volume: &str) -> io::Result<()> {
        let folder = self.checked(volume)?;
        blocking(move || match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
        .await
    }

    fn checked(&self, volume: &str) -> io::Result<PathBuf> {
        let refuse = || io::Error::new(ErrorKind::InvalidInput, format!("{volume:?} is no volume of ours"));
        self.of(volume).ok_or_else(refuse)
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of one test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("coracle-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[tokio::test]
    async fn a_folder_is_made_for_all_users_and_removed_with_its_content() {
        let parent = Scratch::new("folders-made");
        let folders = Folders::new(&parent.0.join("volumes"));
        for _ in 0..2 {
            folders.make("pvc-1").await.unwrap();
        }
        let folder = folders.of("pvc-1").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (0o777, 0o700));
        fs::write(folder.join("file"), "x").unwrap();
        for _ in 0..2 {
            folders.remove("pvc-1").await.unwrap();
        }
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn nothing_but_our_own_volumes_is_ever_touched() {
        let parent = Scratch::new("folders-refused");
        let folders = Folders::new(&parent.0.join("volumes"));
        for name in ["pvc-", "data", "pvc-../x", "../pvc-1", "pvc-a/b", ""] {
            assert!(folders.of(name).is_none(), "{name}");
            assert!(folders.remove(name).await.is_err() && folders.make(name).await.is_err(), "{name}");
        }
        assert!(!parent.0.join("volumes").exists());
    }
}
