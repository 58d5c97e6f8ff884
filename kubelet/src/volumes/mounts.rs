//! What a container mounts: its volumes, and the files that every container gets.

use super::{Files, Paths, setup};
use crate::launch::expand::{expand, value_of};
use crate::launch::{ConfigError, Surroundings, names, text};
use crate::runtime::Mount;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where a container leaves its last words unless it says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Files of a pod that are made by us: name on the node, place in the container.
const OWN: [(&str, &str); 3] =
    [("etc-hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname")];

/// Content of the pod's own files.
pub struct Own {
    hosts: String,
    resolv_conf: String,
    hostname: String,
}

impl Own {
    /// For a pod with this address, on a node with these files.
    pub fn new(pod: &Pod, spec: &PodSpec, ip: &str, around: &Surroundings) -> Self {
        // A node without such a file has nothing to hand on.
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            hosts: names::hosts(pod, spec, ip, &read("/etc/hosts"), around),
            resolv_conf: names::resolv_conf(pod, spec, &read("/etc/resolv.conf"), around),
            hostname: format!("{}\n", names::hostname(pod, spec, around)),
        }
    }
}

/// Writes the pod's own files.
///
/// # Errors
/// The file system refuses.
pub fn write_own(files: &Files, uid: &str, own: &Own) -> io::Result<()> {
    let folder = files.pod(uid);
    fs::create_dir_all(&folder)?;
    for ((name, _), content) in OWN.iter().zip([&own.hosts, &own.resolv_conf, &own.hostname]) {
        // In place: it may be mounted already.
        fs::write(folder.join(name), content)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// All mounts of one run, ready to be made.
///
/// # Errors
/// A volume is unknown, or a part of one leads out of it.
pub fn of_container(
    files: &Files,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    env: &[(String, String)],
    volumes: &Paths,
) -> Result<Vec<Mount>, ConfigError> {
    let uid = text(pod.metadata.uid.as_ref());
    let mut all = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        all.push(of_volume(container, mount, env, volumes)?);
    }
    let taken =
        |all: &[Mount], target: &str| all.iter().any(|mount| mount.target.trim_end_matches('/') == target);
    for (name, target) in OWN {
        if !taken(&all, target) {
            all.push(private(files.pod(uid).join(name), target));
        }
    }
    let words = files.last_words(uid, &container.name, attempt);
    let made = words.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| make_writable(&words));
    made.map_err(|error| ConfigError::Impossible(format!("cannot make {}: {error}", words.display())))?;
    let target = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    all.push(private(words, target.unwrap_or(TERMINATION_LOG)));
    Ok(all)
}

/// Whoever the container runs as must be able to write.
fn make_writable(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().create(true).append(true).open(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}

fn private(source: PathBuf, target: &str) -> Mount {
    Mount { source, target: target.to_owned(), read_only: false, propagation: "rprivate" }
}

fn of_volume(
    container: &Container,
    mount: &VolumeMount,
    env: &[(String, String)],
    volumes: &Paths,
) -> Result<Mount, ConfigError> {
    let Some(path) = volumes.get(&mount.name) else {
        let text =
            format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name);
        return Err(ConfigError::Impossible(text));
    };
    let part = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(part), _) if !part.is_empty() => Some(part.clone()),
        (_, Some(expression)) if !expression.is_empty() => {
            let part = expand(expression, |name| value_of(env, name));
            if part.contains("$(") {
                let text = format!("missing value for {expression:?}");
                return Err(ConfigError::Impossible(text));
            }
            Some(part)
        }
        _ => None,
    };
    let source = match part {
        Some(part) => setup::part(path, &part).map_err(ConfigError::Impossible)?,
        None => {
            // A hostPath without type is made when it is missing, as a runtime would.
            if !path.exists() {
                fs::create_dir_all(path).map_err(|error| {
                    ConfigError::Impossible(format!("cannot make {}: {error}", path.display()))
                })?;
            }
            path.clone()
        }
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => "rshared",
        Some("HostToContainer") => "rslave",
        _ => "rprivate",
    };
    Ok(Mount {
        source,
        target: mount.mount_path.clone(),
        read_only: mount.read_only == Some(true),
        propagation,
    })
}
