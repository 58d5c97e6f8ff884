//! The files of the work tree: everything but what is built, and what git keeps for itself.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Folders of the root that are nobody's source.
const SKIPPED: [&str; 2] = [".git", "target"];

/// Paths of all files, relative to `root`, in order.
///
/// # Errors
/// A folder cannot be read.
pub fn list(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    walk(root, "", &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(root: &Path, folder: &str, found: &mut Vec<String>) -> Result<()> {
    let entries =
        fs::read_dir(root.join(folder)).with_context(|| format!("cannot read folder {folder:?}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read folder {folder:?}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let kind = entry.file_type().with_context(|| format!("cannot look at {path}"))?;
        if SKIPPED.contains(&path.as_str()) {
            continue;
        } else if kind.is_dir() {
            walk(root, &path, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::root;

    #[test]
    fn our_own_sources_are_found_and_what_is_built_is_not() {
        let files = list(&root()).expect("readable");
        assert!(files.contains(&"xtask/src/tidy/files.rs".to_owned()));
        assert!(files.contains(&"Cargo.toml".to_owned()));
        assert!(!files.iter().any(|path| path.starts_with("target/") || path.starts_with(".git/")));
    }
}
