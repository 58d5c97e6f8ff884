//! Which crate may depend on which: the folders are the architecture, and the arrows between them point one way.
//!
//! In: `cargo metadata`. Out: arrows that must not be.

use super::Finding;
use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use std::path::Path;

/// Where each component lives. They know the libraries, never each other.
const COMPONENTS: [&str; 8] =
    ["apiserver", "cluster", "controllers", "dns", "kubelet", "proxy", "scheduler", "store"];
/// Who knows etcd's types.
const KNOW_ETCD: [&str; 5] = ["apiserver", "store", "tests", "bench", "sim"];
/// What `libs/api` must be without: anything that waits, talks, or draws.
const NOT_IN_API: [&str; 14] = [
    "tokio",
    "tokio-util",
    "hyper",
    "hyper-util",
    "axum",
    "tonic",
    "tower",
    "kube",
    "rand",
    "async-trait",
    "futures",
    "reqwest",
    "rustls",
    "socket2",
];

/// A crate of ours with what it depends on, in any way.
#[derive(Debug)]
pub struct Package {
    /// Its folder in the work tree.
    pub folder: String,
    /// Folders of the crates of ours that it uses.
    pub ours: Vec<String>,
    /// Names of the crates of others that it uses in its own code.
    pub others: Vec<String>,
}

/// Reads the crates of the workspace.
///
/// # Errors
/// A manifest is wrong.
pub fn read(root: &Path) -> Result<Vec<Package>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .context("cannot read the workspace")?;
    let folder_of = |path: &Path| {
        path.strip_prefix(root).ok().map(|folder| folder.to_string_lossy().trim_end_matches('/').to_owned())
    };
    let packages = metadata.packages.iter().map(|package| {
        let manifest = package.manifest_path.parent().context("a manifest without a folder")?;
        let mut ours = Vec::new();
        let mut others = Vec::new();
        for dependency in &package.dependencies {
            match dependency.path.as_ref().and_then(|path| folder_of(path.as_std_path())) {
                Some(folder) => ours.push(folder),
                None if dependency.kind == cargo_metadata::DependencyKind::Normal => {
                    others.push(dependency.name.clone());
                }
                None => {}
            }
        }
        Ok(Package { folder: folder_of(manifest.as_std_path()).unwrap_or_default(), ours, others })
    });
    packages.collect()
}

/// Arrows that must not be.
pub fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let mut tell = |instead: String| {
            let path = format!("{}/Cargo.toml", package.folder);
            findings.push(Finding { path, line: 1, rule: "arrow", instead });
        };
        for used in package.ours.iter().filter(|used| **used != package.folder) {
            if let Some(instead) = wrong(&package.folder, used) {
                tell(instead);
            }
        }
        if package.folder == "libs/api" {
            for used in package.others.iter().filter(|used| NOT_IN_API.contains(&used.as_str())) {
                tell(format!(
                    "libs/api is without I/O, clock and chance: what needs {used} belongs into a component"
                ));
            }
        }
    }
    findings
}

/// What to do instead of letting `user` depend on `used`, if it must not.
fn wrong(user: &str, used: &str) -> Option<String> {
    let is_library = |folder: &str| folder.starts_with("libs/");
    let is_component = |folder: &str| COMPONENTS.contains(&folder);
    if used == "libs/etcd" && !KNOW_ETCD.contains(&user) {
        return Some("only apiserver and store know etcd's types: talk to the apiserver".to_owned());
    }
    if user == "xtask" {
        return Some(format!("xtask must build without protoc, and fast: do without {used}"));
    }
    if is_component(used) && !matches!(user, "cli" | "sim") {
        return Some(format!("only cli links components: move what {user} needs of {used} into libs/"));
    }
    if !is_library(used) && !is_component(used) {
        return Some(format!("{used} is nobody's library: move what is needed into libs/"));
    }
    if user == "libs/api" {
        return Some(format!("libs/api stands on nothing: do without {used}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(folder: &str, ours: &[&str], others: &[&str]) -> Package {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Package { folder: folder.to_owned(), ours: owned(ours), others: owned(others) }
    }

    #[track_caller]
    fn forbids(user: &str, used: &str) {
        assert_eq!(check(&[package(user, &[used], &[])]).len(), 1, "{user} -> {used}");
    }

    #[track_caller]
    fn permits(user: &str, used: &str) {
        assert_eq!(check(&[package(user, &[used], &[])]), [], "{user} -> {used}");
    }

    #[test]
    fn a_component_knows_libraries_and_no_other_component() {
        permits("scheduler", "libs/client");
        forbids("scheduler", "controllers");
        forbids("cluster", "apiserver");
        forbids("libs/client", "scheduler");
    }

    #[test]
    fn only_cli_and_sim_link_components() {
        permits("cli", "apiserver");
        permits("sim", "store");
        forbids("tests", "apiserver");
        forbids("xtask", "libs/api");
    }

    #[test]
    fn only_apiserver_and_store_know_etcd() {
        permits("apiserver", "libs/etcd");
        permits("store", "libs/etcd");
        forbids("kubelet", "libs/etcd");
    }

    #[test]
    fn the_api_library_has_no_runtime_and_stands_on_nothing() {
        assert_eq!(check(&[package("libs/api", &[], &["tokio", "serde"])]).len(), 1);
        forbids("libs/api", "libs/daemon");
    }

    #[test]
    fn a_crate_may_name_itself_to_turn_a_feature_on_for_its_tests() {
        permits("libs/client", "libs/client");
    }

    #[test]
    fn our_own_workspace_can_be_read() {
        let packages = read(&crate::step::root()).expect("readable");
        let cli = packages.iter().find(|package| package.folder == "cli").expect("cli");
        assert!(cli.ours.iter().any(|folder| folder == "apiserver"), "{cli:?}");
    }
}
