//! Who a container runs as: the image's /etc/passwd and /etc/group with the pod's wishes in, numbers out.

use crate::runtime::Security;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

/// Longest list of users that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The text of an image's lists; empty where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// /etc/passwd
    pub passwd: String,
    /// /etc/group
    pub group: String,
}

/// Numbers of a user and its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The main group.
    pub gid: u32,
    /// All groups, the main one included.
    pub groups: Vec<u32>,
    /// The home folder, when known.
    pub home: Option<String>,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Accounts {
    fn users(&self) -> impl Iterator<Item = Entry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some(Entry {
                name: fields.first()?,
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
                home: fields.get(5).copied().unwrap_or_default(),
            })
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some((*fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3).copied().unwrap_or_default()))
        })
    }

    /// Who runs: the pod's wish before the image's user, which is `USER`, `UID`, `USER:GROUP` or nothing.
    ///
    /// # Errors
    /// The image names somebody whom its lists do not have.
    pub fn resolve(&self, security: &Security, image_user: &str) -> Result<User, String> {
        let (name, group) = match security.user {
            Some(uid) => (uid.to_string(), None),
            None => match image_user.split_once(':') {
                Some((name, group)) => (name.to_owned(), Some(group)),
                None => (image_user.to_owned(), None),
            },
        };
        let name = if name.is_empty() { "0".to_owned() } else { name };
        let number: Option<u32> = name.parse().ok();
        let entry = self.users().find(|entry| match number {
            Some(uid) => entry.uid == uid,
            None => entry.name == name,
        });
        let (uid, mut gid) = match (&entry, number) {
            (Some(entry), _) => (entry.uid, entry.gid),
            (None, Some(uid)) => (uid, 0),
            (None, None) => {
                return Err(format!("unable to find user {name}: no matching entries in passwd file"));
            }
        };
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            gid = match group.parse() {
                Ok(gid) => gid,
                Err(_) => self.groups().find(|(name, ..)| *name == group).map(|(_, gid, _)| gid).ok_or_else(
                    || format!("unable to find group {group}: no matching entries in group file"),
                )?,
            };
        }
        if let Some(wanted) = security.group {
            gid = u32::try_from(wanted).map_err(|_| format!("the group {wanted} is out of range"))?;
        }
        let mut groups = vec![gid];
        let login = entry.as_ref().map(|entry| entry.name);
        let listed = self
            .groups()
            .filter(|(_, _, members)| login.is_some_and(|login| members.split(',').any(|m| m == login)))
            .map(|(_, gid, _)| gid);
        let wanted = security.groups.iter().filter_map(|gid| u32::try_from(*gid).ok());
        for gid in listed.chain(wanted) {
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        let home = entry.map(|entry| entry.home.to_owned()).filter(|home| !home.is_empty());
        Ok(User { uid, gid, groups, home })
    }
}

/// Upstream's refusals of a root user; `pod` is `name_namespace(uid)`.
///
/// # Errors
/// The container would, or might, run as root although it must not.
pub fn check_not_root(
    security: &Security,
    image_user: &str,
    pod: &str,
    container: &str,
) -> Result<(), String> {
    let whose = format!("(pod: \"{pod}\", container: {container})");
    let name = image_user.split(':').next().unwrap_or_default();
    match (security.non_root, security.user) {
        (false, _) => Ok(()),
        (true, Some(0)) => Err(format!("container's runAsUser breaks non-root policy {whose}")),
        (true, Some(_)) => Ok(()),
        (true, None) if name.is_empty() || name.parse() == Ok(0) => {
            Err(format!("container has runAsNonRoot and image will run as root {whose}"))
        }
        (true, None) if name.parse::<u32>().is_err() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {whose}"
        )),
        (true, None) => Ok(()),
    }
}

/// A file as overlayfs would show it, read from the layers themselves (the uppermost first): empty if there is none.
/// Links are followed inside a layer only, so that an image cannot lead out of it.
///
/// # Errors
/// A layer cannot be read.
pub fn read_in_layers(layers: &[PathBuf], path: &str) -> io::Result<String> {
    for layer in layers {
        let root = open(layer, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let file = match openat2(&root, path, how) {
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP) => continue,
            // A character device 0:0, which overlayfs writes for a removed file, cannot be opened.
            Err(nix::Error::ENXIO) => return Ok(String::new()),
            file => File::from(file?),
        };
        let kind = file.metadata()?.file_type();
        if kind.is_char_device() || !kind.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv:/bin/false\nbroken\n".into(),
            group: "root:x:0:\nweb:x:44:\nlogs:x:50:web,other\nadm:x:60:root\n".into(),
        }
    }

    #[test]
    fn users_and_groups_come_from_the_pod_then_the_image() {
        let security = |user, group, groups: &[i64]| Security {
            user,
            group,
            groups: groups.to_vec(),
            ..Security::default()
        };
        let rows = [
            (security(None, None, &[]), "", Ok((0, 0, vec![0, 60]))),
            (security(None, None, &[]), "web", Ok((33, 44, vec![44, 50]))),
            (security(None, None, &[]), "33", Ok((33, 44, vec![44, 50]))),
            (security(None, None, &[]), "33:logs", Ok((33, 50, vec![50]))),
            (security(None, None, &[]), "7:8", Ok((7, 8, vec![8]))),
            (security(Some(1000), None, &[5, 0, -1]), "web", Ok((1000, 0, vec![0, 5]))),
            (security(Some(33), Some(9), &[]), "", Ok((33, 9, vec![9, 50]))),
            (
                security(None, None, &[]),
                "nosuch",
                Err("unable to find user nosuch: no matching entries in passwd file".to_owned()),
            ),
            (
                security(None, None, &[]),
                "web:nosuch",
                Err("unable to find group nosuch: no matching entries in group file".to_owned()),
            ),
        ];
        for (security, image, expected) in rows {
            let got = accounts().resolve(&security, image).map(|user| (user.uid, user.gid, user.groups));
            assert_eq!(got, expected, "{security:?} {image}");
        }
    }

    #[test]
    fn root_is_refused_where_none_may_be() {
        let check = |user, image: &str| {
            let security = Security { user, non_root: true, ..Security::default() };
            check_not_root(&security, image, "p_d(u)", "c")
        };
        assert_eq!(
            check(None, "").unwrap_err(),
            "container has runAsNonRoot and image will run as root (pod: \"p_d(u)\", container: c)"
        );
        assert_eq!(
            check(None, "web").unwrap_err(),
            "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: \"p_d(u)\", container: c)"
        );
        assert_eq!(
            check(Some(0), "web").unwrap_err(),
            "container's runAsUser breaks non-root policy (pod: \"p_d(u)\", container: c)"
        );
        assert!(check(Some(1), "").is_ok());
        assert!(check(None, "33:0").is_ok());
    }

    #[test]
    fn upper_layers_hide_lower_ones_and_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let layer = dir.path().join(name);
            std::fs::create_dir_all(layer.join("etc")).unwrap();
            layer
        };
        let (upper, lower) = (layer("upper"), layer("lower"));
        std::fs::write(lower.join("etc/passwd"), "lower").unwrap();
        let layers = [upper.clone(), lower];
        assert_eq!(read_in_layers(&layers, "etc/passwd").unwrap(), "lower");
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../../secret", upper.join("etc/passwd")).unwrap();
        assert_eq!(read_in_layers(&layers, "etc/passwd").unwrap(), "lower");
        std::fs::remove_file(upper.join("etc/passwd")).unwrap();
        std::fs::write(upper.join("etc/passwd"), "upper").unwrap();
        assert_eq!(read_in_layers(&layers, "etc/passwd").unwrap(), "upper");
        assert_eq!(read_in_layers(&layers, "etc/group").unwrap(), "");
    }
}
