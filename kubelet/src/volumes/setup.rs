//! Makes one volume: the folder, the tmpfs or the check of what the node has.

use super::content::Payload;
use super::{VolumeError, atomic};
use crate::launch::text;
use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Volume};
use nix::mount::{MsFlags, mount};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Deepest folder that ownership is set in.
const DEPTH_MAX: usize = 64;

/// What a volume is, once everything about it is known.
#[derive(Clone, Debug)]
pub enum Kind {
    /// An empty folder, in memory if asked for, with a most size.
    Empty { memory: bool, bytes: Option<i64> },
    /// Something of the node.
    Host { path: PathBuf, kind: String, owned: bool },
    /// Files that we write, in memory if they are secret.
    Content { files: Payload, memory: bool },
}

/// A volume's directory name, as upstream's.
pub fn plugin(volume: &Volume) -> &'static str {
    if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        "kubernetes.io~empty-dir"
    }
}

/// The kind of a volume that needs no look at the API; `None` for all others.
pub fn simple(volume: &Volume) -> Option<Kind> {
    if let Some(empty) = &volume.empty_dir {
        let limit = empty.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
        let bytes = limit.map(|limit| limit.value()).filter(|bytes| *bytes > 0);
        return Some(Kind::Empty { memory: empty.medium.as_deref() == Some("Memory"), bytes });
    }
    let HostPathVolumeSource { path, type_ } = volume.host_path.as_ref()?;
    Some(Kind::Host { path: path.into(), kind: text(type_.as_ref()).to_owned(), owned: false })
}

/// Makes it at `folder`; returns what containers shall see.
pub fn set_up(
    volume: &str,
    kind: &Kind,
    folder: &Path,
    group: Option<u32>,
    may_mount: bool,
) -> Result<PathBuf, VolumeError> {
    let failed =
        |source: io::Error| VolumeError::Failed { volume: volume.to_owned(), why: source.to_string() };
    match kind {
        Kind::Host { path, kind, owned } => {
            check(path, kind).map_err(|why| VolumeError::Failed { volume: volume.to_owned(), why })?;
            if *owned && let Some(group) = group {
                give(path, group, 0).map_err(failed)?;
            }
            Ok(path.clone())
        }
        Kind::Empty { memory, bytes } => {
            let made = empty(folder, *memory && may_mount, *bytes, group);
            made.map_err(failed)?;
            Ok(folder.to_owned())
        }
        Kind::Content { files, memory } => {
            let make = || -> io::Result<()> {
                fs::create_dir_all(folder)?;
                if *memory && may_mount {
                    tmpfs(folder, "mode=0755,size=64m")?;
                }
                atomic::write(folder, files, group).map(drop)
            };
            make().map_err(failed)?;
            Ok(folder.to_owned())
        }
    }
}

fn empty(folder: &Path, memory: bool, bytes: Option<i64>, group: Option<u32>) -> io::Result<()> {
    let fresh = !folder.exists();
    fs::create_dir_all(folder)?;
    let mounted = if memory {
        let size = bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
        tmpfs(folder, &format!("mode=0777{size}"))?
    } else {
        false
    };
    if fresh || mounted {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
        if let Some(group) = group {
            chown(folder, None, Some(group))?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o2777))?;
        }
    }
    Ok(())
}

/// Mounts a tmpfs, unless something is mounted there; `true` if it did.
fn tmpfs(folder: &Path, options: &str) -> io::Result<bool> {
    let above = folder.parent().unwrap_or(folder);
    if fs::metadata(folder)?.dev() != fs::metadata(above)?.dev() {
        return Ok(false);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some(options))?;
    Ok(true)
}

/// Whether the node has what a hostPath volume names, made if it may be.
fn check(path: &Path, kind: &str) -> Result<(), String> {
    let fits: fn(&fs::FileType) -> bool = match kind {
        "" => return Ok(()),
        "DirectoryOrCreate" | "Directory" => fs::FileType::is_dir,
        "FileOrCreate" | "File" => fs::FileType::is_file,
        "Socket" => fs::FileType::is_socket,
        "CharDevice" => fs::FileType::is_char_device,
        "BlockDevice" => fs::FileType::is_block_device,
        other => return Err(format!("hostPath type check failed: {other} is an invalid volume type")),
    };
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(format!("hostPath type check failed: {shown}: {error}")),
        Ok(found) if fits(&found.file_type()) => return Ok(()),
        Ok(_) => {
            let what = match kind {
                "DirectoryOrCreate" | "Directory" => "directory",
                "FileOrCreate" | "File" => "file",
                "Socket" => "socket file",
                "CharDevice" => "character device",
                _ => "block device",
            };
            return Err(format!("hostPath type check failed: {shown} is not a {what}"));
        }
    }
    let made = match kind {
        "DirectoryOrCreate" => fs::create_dir_all(path),
        "FileOrCreate" => OpenOptions::new().create(true).append(true).mode(0o644).open(path).map(drop),
        _ => return Err(format!("hostPath type check failed: {shown} does not exist")),
    };
    made.map_err(|error| format!("cannot make {shown}: {error}"))
}

/// Lets a group use everything below, as `fsGroup` asks. Links are not followed.
fn give(path: &Path, group: u32, depth: usize) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    std::os::unix::fs::lchown(path, None, Some(group))?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let more = if meta.is_dir() { 0o2770 } else { 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode(meta.permissions().mode() | more))?;
    if meta.is_dir() && depth < DEPTH_MAX {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), group, depth + 1)?;
        }
    }
    Ok(())
}

/// What a container sees of a volume when it mounts a part of it. The part is made if it is not there, and must not
/// lead out of the volume.
pub fn part(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let bad = || format!("failed to prepare subPath: {sub_path:?} leads out of the volume");
    if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
        return Err(bad());
    }
    let fail = |error: io::Error| format!("failed to prepare subPath {sub_path:?}: {error}");
    let root = fs::canonicalize(volume).map_err(fail)?;
    // Down one name at a time, so that no link is followed out before it is checked.
    let mut at = root.clone();
    for name in sub_path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        let next = at.join(name);
        if fs::symlink_metadata(&next).is_err() {
            fs::create_dir(&next).map_err(fail)?;
            let mode = fs::metadata(&at).map_err(fail)?.permissions();
            fs::set_permissions(&next, mode).map_err(fail)?;
        }
        at = fs::canonicalize(&next).map_err(fail)?;
        if !at.starts_with(&root) {
            return Err(bad());
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_checked_and_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        for (name, kind, expected) in [
            ("none", "", ""),
            ("none", "Directory", "does not exist"),
            ("made", "DirectoryOrCreate", ""),
            ("made", "Directory", ""),
            ("file", "Directory", "is not a directory"),
            ("file", "File", ""),
            ("file", "Socket", "is not a socket file"),
            ("new", "FileOrCreate", ""),
        ] {
            match check(&at(name), kind) {
                Ok(()) => assert_eq!(expected, "", "{name} {kind}"),
                Err(error) => assert!(error.ends_with(expected) && !expected.is_empty(), "{error}"),
            }
        }
    }

    #[test]
    fn parts_of_a_volume_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("v");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink("a", root.join("in")).unwrap();
        assert!(part(&root, "a/b").unwrap().ends_with("v/a/b"));
        assert!(part(&root, "in/b").unwrap().ends_with("v/a/b"));
        for bad in ["out", "out/x", "../x", "/etc"] {
            assert!(part(&root, bad).is_err(), "{bad}");
        }
    }
}
