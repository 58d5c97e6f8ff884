//! A pod's files on the node: its volumes, /etc/hosts and the like, logs and last words.
//!
//! ```text
//! root/pods/UID/volumes/KIND/NAME      what containers mount
//! root/pods/UID/etc-hosts …            files of our own making
//! root/pods/UID/containers/NAME/N      last words of run N
//! logs/NS_NAME_UID/CONTAINER/N.log     output of run N
//! ```
//!
//! In: the pod and what it refers to. Out: paths to mount. Everything may be made again at any time; what is the same is left
//! alone, and content that changed is swapped at one stroke.

mod atomic;
mod claim;
pub mod content;
mod mounts;
mod setup;
pub mod token;

use crate::launch::{ConfigError, text};
use content::Source;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};
use nix::mount::{MntFlags, umount2};
use setup::Kind;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a pod's files are not there, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// A volume cannot be made. The event says so.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    Failed {
        /// The volume.
        volume: String,
        /// What went wrong.
        why: String,
    },
    /// Something is not known yet; we are woken when it is.
    #[error("waiting for what volume {volume:?} refers to")]
    NotYet {
        /// The volume.
        volume: String,
    },
}

/// Where the files of all pods are.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
    logs: PathBuf,
    /// Whether we may mount; tests may not.
    may_mount: bool,
}

/// Paths of a pod's volumes, by name.
pub type Paths = BTreeMap<String, PathBuf>;

impl Files {
    /// Below these folders.
    pub fn new(root: &Path, logs: &Path, may_mount: bool) -> Self {
        Self { root: root.to_owned(), logs: logs.to_owned(), may_mount }
    }

    fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// The pod's folder.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    fn volume(&self, uid: &str, volume: &Volume) -> PathBuf {
        self.pod(uid).join("volumes").join(setup::plugin(volume)).join(&volume.name)
    }

    /// The folder of the pod's logs.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The log of one run of a container.
    pub fn log(&self, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
        let meta = &pod.metadata;
        let (ns, name) = (text(meta.namespace.as_ref()), text(meta.name.as_ref()));
        self.pod_logs(ns, name, text(meta.uid.as_ref())).join(container).join(format!("{attempt}.log"))
    }

    /// Where one run of a container leaves its last words.
    pub fn last_words(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid).join("containers").join(container).join(attempt.to_string())
    }

    /// Makes the pod's folder and all of its volumes; `claims` are the paths of its PersistentVolumeClaims.
    ///
    /// # Errors
    /// A volume cannot be made (yet).
    pub fn prepare(&self, source: &Source<'_>, claims: &Paths) -> Result<Paths, VolumeError> {
        let uid = text(source.pod.metadata.uid.as_ref());
        let pod = self.pod(uid);
        let made = fs::create_dir_all(pod.join("volumes")).and_then(|()| private(&pod));
        made.map_err(|error| VolumeError::Failed { volume: String::new(), why: error.to_string() })?;
        let mut paths = Paths::new();
        for volume in source.spec.volumes.iter().flatten() {
            let kind = kind_of(source, volume, claims)?;
            let folder = self.volume(uid, volume);
            let path = setup::set_up(&volume.name, &kind, &folder, fs_group(source.spec), self.may_mount)?;
            paths.insert(volume.name.clone(), path);
        }
        Ok(paths)
    }

    /// Brings the content of volumes up to date.
    ///
    /// # Errors
    /// A volume's content is gone or cannot be written; the old one stays.
    pub fn refresh(&self, source: &Source<'_>) -> Result<(), VolumeError> {
        let uid = text(source.pod.metadata.uid.as_ref());
        for volume in source.spec.volumes.iter().flatten() {
            if !is_content(volume) {
                continue;
            }
            let kind = kind_of(source, volume, &Paths::new())?;
            let folder = self.volume(uid, volume);
            setup::set_up(&volume.name, &kind, &folder, fs_group(source.spec), self.may_mount)?;
        }
        Ok(())
    }

    /// Removes the pod's volumes and folder, and its logs if `logs`.
    ///
    /// # Errors
    /// A mount cannot be undone: then nothing below it is touched.
    pub fn remove(&self, namespace: &str, name: &str, uid: &str, logs: bool) -> io::Result<()> {
        // A uid comes from outside; an empty or odd one must not reach other folders.
        if uid.is_empty() || uid.contains(['/', '.']) {
            return Ok(());
        }
        let folder = self.pod(uid);
        if folder.exists() {
            let mounts = fs::read_to_string("/proc/self/mountinfo")?;
            let mut below: Vec<PathBuf> = mounts
                .lines()
                .filter_map(|line| line.split(' ').nth(4).map(|path| PathBuf::from(unescaped(path))))
                .filter(|path| path.starts_with(&folder))
                .collect();
            below.sort();
            for mount in below.iter().rev() {
                umount2(mount, MntFlags::MNT_DETACH)?;
            }
            gone(fs::remove_dir_all(&folder))?;
        }
        if logs {
            gone(fs::remove_dir_all(self.pod_logs(namespace, name, uid)))?;
        }
        Ok(())
    }

    /// Uids of pods that have files here.
    pub fn uids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.pods()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// `\040` and the like stand for spaces and tabs in the kernel's table.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o750))
}

fn fs_group(spec: &PodSpec) -> Option<u32> {
    spec.security_context.as_ref()?.fs_group.and_then(|group| u32::try_from(group).ok())
}

fn is_content(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

/// Whether the content of one of the pod's volumes may change.
pub fn has_content(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(is_content)
}

fn kind_of(source: &Source<'_>, volume: &Volume, claims: &Paths) -> Result<Kind, VolumeError> {
    let failed = |why: String| VolumeError::Failed { volume: volume.name.clone(), why };
    if let Some(kind) = setup::simple(volume) {
        return Ok(kind);
    }
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        let path = claims.get(&volume.name).cloned();
        let path = path.ok_or_else(|| failed("the claim is not bound yet".to_owned()))?;
        return Ok(Kind::Host { path, kind: "DirectoryOrCreate".to_owned(), owned: true });
    }
    match content::of_volume(source, volume) {
        Ok(Some(files)) => Ok(Kind::Content { files, memory: volume.config_map.is_none() }),
        Ok(None) => Err(failed("this kind of volume is not supported".to_owned())),
        Err(ConfigError::NotYet { .. }) => Err(VolumeError::NotYet { volume: volume.name.clone() }),
        Err(error) => Err(failed(error.to_string())),
    }
}

pub use claim::paths as claim_paths;
pub use mounts::{Own, of_container as mounts_of_container, write_own};
