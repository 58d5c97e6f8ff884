//! `coracle store backup`: the state of one moment, from any member that answers, checked by reading it back.

use super::file;
use crate::database::HASH;
use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use coracle_daemon::clock;
use coracle_daemon::tls::Identity;
use coracle_etcd::channel::{client_tls, endpoint};
use coracle_etcd::proto::SnapshotRequest;
use coracle_etcd::proto::maintenance_client::MaintenanceClient;
use rustls::ClientConfig;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A member that sends nothing for longer is given up.
const BLOB_MAX: Duration = Duration::from_secs(60);

/// `coracle store backup`
#[derive(ClapArgs, Clone, Debug)]
pub struct BackupArgs {
    /// The file to write, which must not be there yet
    pub file: PathBuf,
    /// Members to ask, one after the other until one answers
    #[arg(long, env = "ETCDCTL_ENDPOINTS", value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub endpoints: Vec<String>,
    /// Authority that the members' certificates must come from
    #[arg(long, env = "ETCDCTL_CACERT")]
    pub cacert: Option<PathBuf>,
    /// Certificate to show to members
    #[arg(long, env = "ETCDCTL_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Key of --cert
    #[arg(long, env = "ETCDCTL_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
}

/// The file in the making; dropping it removes it.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Half a backup is worth nothing; one that is left over is refused as such.
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) async fn run(args: BackupArgs) -> Result<String> {
    let target = args.file.clone();
    if std::fs::symlink_metadata(&target).is_ok() {
        bail!("{} is there already; a backup overwrites nothing", target.display());
    }
    let mut name = target.file_name().context("the file has no name")?.to_owned();
    name.push(".part");
    let path = target.with_file_name(name);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.with_context(|| format!("cannot create {}", path.display()))?;
    let part = Part(path);
    let from = fetch(&args, &mut file).await?;
    let finish = move || -> Result<String> {
        file.sync_all().with_context(|| format!("cannot write {}", part.0.display()))?;
        drop(file);
        let machine = file::read(&part.0, true).context("what the member sent is no whole snapshot")?;
        // Unlike a rename, a link never replaces what has come to be there meanwhile.
        std::fs::hard_link(&part.0, &target)
            .with_context(|| format!("cannot create {}", target.display()))?;
        sync_parent(&target)?;
        let (keys, revision) = (machine.keys(), machine.revision());
        Ok(format!("saved {} of {from}: revision {revision}, {keys} keys", target.display()))
    };
    tokio::task::spawn_blocking(finish).await?
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = std::fs::File::open(parent).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot write {}", parent.display()))
}

fn tls(args: &BackupArgs) -> Result<Option<Arc<ClientConfig>>> {
    let Some(ca) = &args.cacert else { return Ok(None) };
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(Identity { cert: cert.clone(), key: key.clone() }),
        _ => None,
    };
    Ok(Some(client_tls(ca, identity.as_ref())?))
}

/// Writes what the first member that answers sends, and tells which that is.
async fn fetch(args: &BackupArgs, file: &mut std::fs::File) -> Result<String> {
    let (tls, mut tried) = (tls(args)?, Vec::new());
    for address in &args.endpoints {
        // etcdctl takes endpoints without a scheme, too.
        let scheme = if args.cacert.is_some() { "https" } else { "http" };
        let url = if address.contains("://") { address.clone() } else { format!("{scheme}://{address}") };
        let (endpoint, connector) = endpoint(&url, tls.as_ref()).context("--endpoints")?;
        match endpoint.connect_timeout(CONNECT_MAX).connect_with_connector(connector).await {
            Ok(channel) => {
                stream(channel, file)
                    .await
                    .with_context(|| format!("{url} did not send all of its state"))?;
                return Ok(url);
            }
            Err(error) => tried.push(format!("{url}: {:#}", anyhow::Error::new(error))),
        }
    }
    bail!("no member answers: {}", tried.join("; "))
}

async fn stream(channel: Channel, file: &mut std::fs::File) -> Result<()> {
    let mut client = MaintenanceClient::new(channel);
    let asked = client.snapshot(SnapshotRequest {});
    let mut blobs = clock::timeout(BLOB_MAX, asked).await.context("no answer")??.into_inner();
    let mut remaining = HASH;
    while let Some(part) = clock::timeout(BLOB_MAX, blobs.message()).await.context("nothing more came")?? {
        file.write_all(&part.blob).context("cannot write the file")?;
        remaining = part.remaining_bytes;
    }
    anyhow::ensure!(remaining == 0, "{remaining} bytes are missing");
    Ok(())
}
