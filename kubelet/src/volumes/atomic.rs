//! Writes a volume's files so that readers see all of the old ones or all of the new ones.
//!
//! ```text
//! volume/..2026_x/key      the files
//! volume/..data            -> ..2026_x       renamed into place: the moment of change
//! volume/key               -> ..data/key
//! ```

use super::content::Payload;
use coracle_daemon::random;
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

const DATA: &str = "..data";

/// Makes the folder hold exactly `payload`; `true` when something changed. `group` shall be able to read.
///
/// # Errors
/// The file system refuses.
pub fn write(folder: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let old = match fs::read_link(folder.join(DATA)) {
        Ok(old) => Some(folder.join(old)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if old.as_ref().is_some_and(|old| holds(old, payload, group)) {
        return Ok(false);
    }
    let name = format!("..{}", random::name_suffix(12));
    let fresh = folder.join(&name);
    make_folder(&fresh, group)?;
    for (path, file) in payload {
        let path = Path::new(path);
        let mut above = fresh.clone();
        for part in path.parent().into_iter().flat_map(Path::components) {
            above.push(part);
            make_folder(&above, group)?;
        }
        let target = fresh.join(path);
        let mode = mode(file.mode, group);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        out.write_all(&file.bytes)?;
        if group.is_some() {
            chown(&target, None, group)?;
        }
        // After chown, and not as part of open: both drop bits.
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
    }
    let next = folder.join("..data_tmp");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&name, &next)?;
    fs::rename(&next, folder.join(DATA))?;
    link_names(folder, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(old)?;
    }
    Ok(true)
}

/// A file that a group shall read.
const fn mode(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | 0o440 } else { mode }
}

fn make_folder(path: &Path, group: Option<u32>) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    if group.is_some() {
        chown(path, None, group)?;
    }
    // Whatever the umask says.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn holds(folder: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let mut found = 0;
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(next) else { return false };
        for entry in entries {
            let Ok(entry) = entry else { return false };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => found += 1,
                Err(_) => return false,
            }
        }
    }
    let same = |(path, file): (&String, &super::content::File)| {
        let path = folder.join(path);
        let permissions = fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o777);
        permissions.is_ok_and(|found| found == mode(file.mode, group))
            && fs::read(&path).is_ok_and(|bytes| bytes == file.bytes)
    };
    found == payload.len() && payload.iter().all(same)
}

/// Links for the first part of every path; those of files that went are removed.
fn link_names(folder: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), folder.join(name)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let stale = name.to_str().is_none_or(|name| !name.starts_with("..") && !wanted.contains(name));
        if stale && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::content::File;
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |text: &str, mode| File { bytes: text.as_bytes().to_vec(), mode };
        files.iter().map(|(path, text, mode)| ((*path).to_owned(), file(text, *mode))).collect()
    }

    #[test]
    fn files_change_together_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        assert!(write(at, &payload(&[("a", "1", 0o644), ("sub/b", "2", 0o600)]), None).unwrap());
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(at.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(at.join("sub/b")).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read_link(at.join(DATA)).unwrap();
        assert!(!write(at, &payload(&[("a", "1", 0o644), ("sub/b", "2", 0o600)]), None).unwrap());
        assert_eq!(fs::read_link(at.join(DATA)).unwrap(), first, "nothing changed, nothing was written");
        assert!(write(at, &payload(&[("a", "3", 0o644)]), None).unwrap());
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "3");
        assert!(!at.join("sub").exists() && !at.join(first).exists());
        assert!(write(at, &payload(&[]), None).unwrap());
        assert!(!at.join("a").exists());
    }
}
