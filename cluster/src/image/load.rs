//! Archives into the containerd of every node, through its socket as seen from the host.

use crate::control::{Reply, Request, ask};
use crate::host;
use crate::layout::Layout;
use crate::spec::Spec;
use anyhow::{Context, Result};
use coracle_daemon::clock;
use futures::future::try_join_all;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// containerd's namespace for Kubernetes.
const NAMESPACE: &str = "k8s.io";
/// What the kubelet looks for on images that were loaded rather than pulled (its `runtime::PROVIDED`).
const PROVIDED: &str = "coracle.dev/provided=true";
/// How long a node may take to start its containerd.
const SOCKET_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Imports one archive into every node; returns the names of its images.
///
/// # Errors
/// The cluster is not running, or a node refuses the archive.
pub async fn into_all_nodes(layout: &Layout, spec: &Spec, file: &Path) -> Result<Vec<String>> {
    anyhow::ensure!(spec.nodes > 0, "the cluster {} has no nodes with containers", spec.name);
    let loaded = try_join_all((0..spec.nodes).map(|i| async move {
        let socket = socket(layout, &spec.node_name(i)).await?;
        import(&socket, file)
            .await
            .with_context(|| format!("{} does not take {}", spec.node_name(i), file.display()))
    }))
    .await?;
    Ok(loaded.into_iter().next().unwrap_or_default())
}

/// Imports those archives that a node has not imported before: each leaves a marker in the node's folder.
///
/// # Errors
/// As [`into_all_nodes`].
pub async fn missing_into_all_nodes(layout: &Layout, spec: &Spec, files: &[PathBuf]) -> Result<()> {
    try_join_all((0..spec.nodes).map(|i| async move {
        let name = spec.node_name(i);
        for file in files {
            let marker = layout.node(&name).join("images").join(file.file_name().unwrap_or_default());
            if marker.exists() {
                continue;
            }
            let socket = socket(layout, &name).await?;
            import(&socket, file)
                .await
                .with_context(|| format!("{name} does not take {}", file.display()))?;
            std::fs::create_dir_all(marker.parent().unwrap_or(&marker))
                .and_then(|()| std::fs::write(&marker, ""))
                .with_context(|| format!("cannot write {}", marker.display()))?;
        }
        Ok(())
    }))
    .await
    .map(drop)
}

/// The node's containerd socket below /proc, as soon as it accepts connections.
async fn socket(layout: &Layout, node: &str) -> Result<PathBuf> {
    let found = async {
        loop {
            if let Ok(Some(Reply::Status(states))) = ask(&layout.socket(), &Request::Status).await {
                let init = states
                    .iter()
                    .find(|state| state.process.id == node)
                    .and_then(|state| state.pid)
                    .and_then(|outer| host::outer_pid(outer, 1));
                let socket =
                    init.map(|pid| PathBuf::from(format!("/proc/{pid}/root/run/containerd/containerd.sock")));
                if let Some(socket) = socket
                    && tokio::net::UnixStream::connect(&socket).await.is_ok()
                {
                    return socket;
                }
            }
            // Another process's start-up has no event to wait for.
            clock::sleep(PAUSE).await;
        }
    };
    clock::timeout(SOCKET_MAX, found).await.with_context(|| format!("the containerd of {node} did not start"))
}

/// Imports an archive and marks its images as provided, so that kubelets ask no registry for them.
async fn import(socket: &Path, file: &Path) -> Result<Vec<String>> {
    let file = file.to_string_lossy();
    let told = ctr(socket, &["images", "import", "--snapshotter", "overlayfs", &file]).await?;
    let names: Vec<String> = told
        .lines()
        .filter_map(|line| line.strip_prefix("unpacking ")?.split_whitespace().next().map(str::to_owned))
        .collect();
    for name in &names {
        ctr(socket, &["images", "label", name, PROVIDED]).await?;
    }
    Ok(names)
}

async fn ctr(socket: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("ctr")
        .arg("--address")
        .arg(socket)
        .args(["--namespace", NAMESPACE])
        .args(args)
        .output()
        .await
        .context("cannot run ctr: install the package containerd")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
