//! Where the files of a cluster are: all below one folder.

use crate::args::Which;
use std::io;
use std::path::{Path, PathBuf};

/// Names, without their endings, of all that lies right in the folder.
const OWN: [&str; 8] = ["spec", "addons", "pki", "kubeconfigs", "logs", "stores", "nodes", "volumes"];
const SOCKET: &str = "supervisor";

/// The cluster's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The folder of the cluster that `which` names.
    #[must_use]
    pub fn of(which: &Which) -> Self {
        let dir = which.dir.clone().unwrap_or_else(|| {
            let base = if nix::unistd::geteuid().is_root() {
                PathBuf::from("/var/lib")
            } else {
                std::env::var_os("XDG_DATA_HOME").map_or_else(|| home().join(".local/share"), PathBuf::from)
            };
            base.join("coracle").join(&which.name)
        });
        Self::at(&dir)
    }

    /// A cluster in `dir`.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()) }
    }

    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Whether nothing lies in the folder but what a cluster puts there, or there is no folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn holds_nothing_else(&self) -> io::Result<bool> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = PathBuf::from(entry?.file_name());
            let is_ours =
                name.file_stem().is_some_and(|stem| stem == SOCKET || OWN.iter().any(|own| stem == *own));
            if !is_ours {
                return Ok(false);
            }
        }
        Ok(true)
    }
    /// The cluster's facts.
    #[must_use]
    pub fn spec(&self) -> PathBuf {
        self.dir.join("spec.json")
    }
    /// Objects that its apiservers make first.
    #[must_use]
    pub fn addons(&self) -> PathBuf {
        self.dir.join("addons.json")
    }
    /// Certificates and keys.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }
    /// A certificate.
    #[must_use]
    pub fn cert(&self, name: &str) -> PathBuf {
        self.pki().join(format!("{name}.crt"))
    }
    /// A private key.
    #[must_use]
    pub fn key(&self, name: &str) -> PathBuf {
        self.pki().join(format!("{name}.key"))
    }
    /// A kubeconfig of a component or of `admin`.
    #[must_use]
    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        self.dir.join("kubeconfigs").join(format!("{name}.kubeconfig"))
    }
    /// A process's log.
    #[must_use]
    pub fn log(&self, id: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{id}.log"))
    }
    /// Data of a store member.
    #[must_use]
    pub fn store(&self, i: u16) -> PathBuf {
        self.dir.join("stores").join(i.to_string())
    }
    /// Files of a node.
    #[must_use]
    pub fn node(&self, name: &str) -> PathBuf {
        self.dir.join("nodes").join(name)
    }
    /// Folders of volumes that are made for claims.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.dir.join("volumes")
    }
    /// The supervisor's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET).with_extension("sock")
    }
}

/// The user's home folder.
#[must_use]
pub fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}
