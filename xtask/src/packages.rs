//! Debian packages that building, running and testing need: found, or installed, or named for whoever may install them.

use crate::step::{asked, program, run};
use anyhow::Result;
use std::path::Path;

/// Needed to build anything: containerd-client's build script wants `protoc`.
pub const BUILD: &[&str] = &["protobuf-compiler"];
/// Needed for nodes that run containers; without them there are simulated nodes.
pub const NODES: &[&str] = &["containerd", "runc", "nftables", "iproute2", "busybox-static"];
/// Needed by tests: the etcd that our store is compared with, its client, and a client of our API in another language.
pub const TESTS: &[&str] = &["etcd-server", "etcd-client", "python3-kubernetes"];

/// Installs what is missing of `wanted`; where it may not, says what to do. Fails only if something `required` is missing.
///
/// # Errors
/// A required package is missing and cannot be installed from here.
pub fn provide(required: &[&'static str], wanted: &[&'static str]) -> Result<()> {
    let (missing_required, missing_wanted) = (missing(required), missing(wanted));
    let all: Vec<&str> = missing_required.iter().chain(&missing_wanted).copied().collect();
    if all.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install {}", all.join(" "));
    match refusal() {
        None => {
            eprintln!("installing Debian packages: {}", all.join(" "));
            return install(&all);
        }
        Some(why) if missing_required.is_empty() => {
            eprintln!("{why}: not installing {}; for nodes with containers, run `{line}`", all.join(" "));
        }
        Some(why) => anyhow::bail!("{why}, and {} is missing: run `{line}`", missing_required.join(" ")),
    }
    Ok(())
}

/// Why we may not install packages, if so.
fn refusal() -> Option<&'static str> {
    if !Path::new("/usr/bin/apt-get").exists() {
        return Some("this is no Debian system");
    }
    let root = asked(program("id", &["-u"])).is_some_and(|id| id.trim() == "0");
    (!root).then_some("only root can install packages")
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = |words: &[&str]| {
        let mut command = program("apt-get", words);
        // Nobody is there to answer questions, and a package's service is not ours to start.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command
    };
    run(apt(&["-qq", "update"]))?;
    let options =
        ["-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "install"];
    run(apt(&[&options, packages].concat()))
}

/// Of the given packages those that are neither installed nor have their program on the PATH already.
fn missing(packages: &[&'static str]) -> Vec<&'static str> {
    let mut words = vec!["-W", "-f", "${Package} ${db:Status-Status}\n"];
    words.extend(packages);
    // dpkg-query fails if one package is unknown, but tells of the others: its output counts, not its end.
    let told = program("dpkg-query", &words)
        .stderr(std::process::Stdio::null())
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    missing_of(packages, &told, on_path)
}

fn missing_of(packages: &[&'static str], told: &str, on_path: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let installed = |package: &str| told.lines().any(|line| line == format!("{package} installed"));
    let there = |package: &str| installed(package) || program_of(package).is_some_and(&on_path);
    packages.iter().copied().filter(|package| !there(package)).collect()
}

/// A program that stands for a package where it came another way.
fn program_of(package: &str) -> Option<&'static str> {
    Some(match package {
        "protobuf-compiler" => "protoc",
        "containerd" => "containerd",
        "runc" => "runc",
        "nftables" => "nft",
        "iproute2" => "ip",
        "etcd-server" => "etcd",
        "etcd-client" => "etcdctl",
        _ => return None,
    })
}

/// Whether a program can be run by its name; `/usr/sbin` counts, for root's services live there.
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_if_installed_or_if_its_program_is_there() {
        let told = "runc installed\nnftables config-files\n";
        let missing =
            missing_of(&["runc", "nftables", "containerd"], told, |program| program == "containerd");
        assert_eq!(missing, ["nftables"]);
    }

    #[test]
    fn nothing_is_installed_where_nothing_is_missing() {
        provide(&[], &[]).expect("nothing to do");
    }
}
