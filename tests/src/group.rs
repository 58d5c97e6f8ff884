//! Groups of steps that share a cluster, as tests of their own.

use crate::cluster::{Cluster, Shape, program};
use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One step: a claim as its name, and how to see that it holds.
pub type Step = (&'static str, fn(&Cluster) -> Result<()>);

/// What a group needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but kubectl.
    Nothing,
    /// Root, containerd, runc, nft and ip.
    Containers,
    /// Debian's etcd.
    Etcd,
}

/// Steps that share one cluster, in order.
pub struct Group {
    /// Its name, which is also a part of the cluster's.
    pub name: &'static str,
    /// What it needs of the machine.
    pub needs: Needs,
    /// Its cluster.
    pub shape: Shape,
    /// Its steps.
    pub steps: &'static [Step],
}

/// The cluster that is up now, and of which group.
#[derive(Default)]
struct Current {
    group: &'static str,
    cluster: Option<Cluster>,
    /// Why there is none, told once.
    failure: Option<String>,
}

/// Runs all steps that the command line asks for, one after the other.
#[must_use]
pub fn run(groups: Vec<Group>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Steps of a group follow from each other, and two clusters at once would disturb each other's times.
    arguments.test_threads = Some(1);
    let scratch = std::env::temp_dir().join(format!("coracle-e2e-{}", std::process::id()));
    if !arguments.list {
        remove_left_behind();
    }
    let current = Arc::new(Mutex::new(Current::default()));
    let mut trials = Vec::new();
    for group in groups {
        let missing = missing(group.needs);
        if let Some(why) = missing.as_ref().filter(|_| !arguments.list) {
            eprintln!("SKIPPED: all steps of {}, for {why}", group.name);
        }
        let (name, shape) = (group.name, group.shape);
        for (claim, step) in group.steps {
            let (current, scratch) = (current.clone(), scratch.clone());
            let trial = Trial::test(format!("{name}::{claim}"), move || {
                run_step(&mut lock(&current), name, shape, &scratch, *step)
            });
            trials.push(trial.with_ignored_flag(missing.is_some()));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let left = lock(&current).end();
    // Made only if a cluster was.
    let _ = fs::remove_dir_all(&scratch);
    match left {
        Err(left) => {
            eprintln!("a cluster could not be taken down: {left:#}");
            ExitCode::FAILURE
        }
        Ok(()) => conclusion.exit_code(),
    }
}

fn lock(current: &Mutex<Current>) -> MutexGuard<'_, Current> {
    // A step that panicked has failed; the cluster is still there for the others.
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_step(
    current: &mut Current,
    group: &'static str,
    shape: Shape,
    scratch: &Path,
    step: fn(&Cluster) -> Result<()>,
) -> Result<(), Failed> {
    if current.group != group {
        current.end().map_err(|error| Failed::from(format!("{error:#}")))?;
        *current = Current { group, ..Current::default() };
        let name = format!("e2e-{}-{group}", std::process::id());
        match Cluster::up(&name, &scratch.join(group), shape) {
            Ok(cluster) => current.cluster = Some(cluster),
            Err(error) => current.failure = Some(format!("{error:#}")),
        }
    }
    let Some(cluster) = &current.cluster else {
        return Err(current.failure.take().unwrap_or_else(|| "the cluster is not up".to_owned()).into());
    };
    let before = cluster.log_lengths();
    step(cluster).map_err(|error| format!("{error:#}\n{}", cluster.told_since(&before)).into())
}

impl Current {
    fn end(&mut self) -> Result<()> {
        let Some(cluster) = self.cluster.take() else { return Ok(()) };
        cluster.down("")?.ok().map(|_| ())
    }
}

/// Why a group cannot run here, if so.
fn missing(needs: Needs) -> Option<String> {
    let programs: &[&str] = match needs {
        Needs::Nothing => &[],
        Needs::Containers => &["containerd", "runc", "nft", "ip"],
        Needs::Etcd => &["etcd"],
    };
    if needs == Needs::Containers && !nix::unistd::geteuid().is_root() {
        return Some("they need root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| {
        std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
    };
    programs.iter().find(|program| !found(program)).map(|program| format!("they need {program}"))
}

/// Takes down clusters of earlier runs that were killed before they could.
fn remove_left_behind() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for folder in entries.flatten().map(|entry| entry.path()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("coracle-e2e-").and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        for group in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let cluster: PathBuf = group.path().join("cluster");
            let name = format!("e2e-{pid}-{}", group.file_name().to_string_lossy());
            eprintln!("taking down {name}, which an earlier run left behind");
            let mut down = Command::new(program());
            down.args(["down", "--name", &name]).arg("--dir").arg(cluster);
            down.arg("--kubeconfig").arg(group.path().join("kubeconfig"));
            if let Err(error) = down.status() {
                eprintln!("cannot take {name} down: {error}");
            }
        }
        let _ = fs::remove_dir_all(&folder);
    }
}
