//! Images that are here: looked up by any of their names, read from the content store, unpacked to snapshots.
//!
//! An image is a chain of layers; each has a snapshot named after the digests of all layers up to it (its chain id), so
//! that images share them. What was read once is kept in memory by digest: content never changes.

use super::SNAPSHOTTER;
use super::accounts::{Accounts, read_in_layers};
use super::link::{Link, failed, found};
use super::locks::Locks;
use crate::runtime::reference::Reference;
use crate::runtime::{Image, PROVIDED, RuntimeError};
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
    ViewSnapshotRequest,
};
use containerd_client::services::v1::{
    ApplyRequest, CreateRequest, DeleteRequest, GetImageRequest, Image as Record, Info, ListImagesRequest,
    ReadContentRequest, UpdateRequest,
};
use containerd_client::types;
use coracle_daemon::clock;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tonic::Code;

/// Longest manifest or configuration.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;
/// Images kept in memory.
const KEPT_MAX: usize = 256;
/// A lease left behind by a kubelet that died ends by itself.
const LEASE_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// What an image says of itself.
pub struct Local {
    /// Digest of its configuration.
    pub id: String,
    /// Its configuration.
    pub config: ImageConfiguration,
    layers: Vec<Descriptor>,
    /// Bytes of all its parts, as they were fetched.
    size: u64,
    accounts: tokio::sync::OnceCell<Accounts>,
}

impl Local {
    /// Name of the snapshot of each layer with all below it.
    fn chain(&self) -> Vec<String> {
        chain_ids(self.config.rootfs().diff_ids())
    }

    /// The image's snapshot; `None` for an image without layers.
    pub fn snapshot(&self) -> String {
        self.chain().pop().unwrap_or_default()
    }
}

/// The images of one containerd.
pub struct Images {
    link: Link,
    kept: Mutex<HashMap<String, Arc<Local>>>,
    unpacking: Locks,
}

impl Images {
    pub fn new(link: Link) -> Self {
        Self { link, kept: Mutex::default(), unpacking: Locks::default() }
    }

    /// An image by name, tag, digest or id, with its record.
    pub async fn find(&self, name: &str) -> Result<Option<(Record, Arc<Local>)>, RuntimeError> {
        let Ok(reference) = Reference::parse(name) else { return self.by_id(name).await };
        let mut names = vec![reference.to_string()];
        if let (Some(digest), Some(_)) = (&reference.digest, &reference.tag) {
            names.push(format!("{}@{digest}", reference.repository()));
        }
        for name in names {
            let request = GetImageRequest { name: name.clone() };
            let reply = found(self.link.images().get(request).await);
            let record =
                reply.map_err(failed(format!("look up the image {name}")))?.and_then(|reply| reply.image);
            if let Some(record) = record {
                let local = self.local(&record).await?;
                return Ok(Some((record, local)));
            }
        }
        self.by_id(name).await
    }

    async fn by_id(&self, id: &str) -> Result<Option<(Record, Arc<Local>)>, RuntimeError> {
        let wanted = id.strip_prefix("sha256:").unwrap_or(id);
        if wanted.len() != 64 || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        for record in self.records().await? {
            let local = self.local(&record).await?;
            if local.id.ends_with(wanted) {
                return Ok(Some((record, local)));
            }
        }
        Ok(None)
    }

    async fn records(&self) -> Result<Vec<Record>, RuntimeError> {
        let reply = self.link.images().list(ListImagesRequest::default()).await;
        Ok(reply.map_err(failed("list images"))?.into_inner().images)
    }

    /// All images that are whole.
    pub async fn list(&self) -> Result<Vec<Image>, RuntimeError> {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for record in self.records().await? {
            match self.local(&record).await {
                Ok(local) => {
                    let image = images.entry(local.id.clone()).or_insert_with(|| Image {
                        id: local.id.clone(),
                        names: Vec::new(),
                        size: local.size,
                        provided: false,
                    });
                    image.provided |= provided(&record);
                    image.names.push(record.name);
                }
                // Such as one whose fetch was cut off; it must not hide the others.
                Err(error) => tracing::warn!(image = record.name, %error, "an image cannot be read"),
            }
        }
        Ok(images.into_values().collect())
    }

    /// The image with all its names.
    pub async fn describe(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        let Some((record, local)) = self.find(name).await? else { return Ok(None) };
        let all = self.list().await?;
        // Under another name the same image may well be one that was pulled.
        Ok(all
            .into_iter()
            .find(|image| image.id == local.id)
            .map(|image| Image { provided: provided(&record), ..image }))
    }

    /// Reads what a record points to.
    pub async fn local(&self, record: &Record) -> Result<Arc<Local>, RuntimeError> {
        let Some(target) = &record.target else {
            return Err(failed(format!("read the image {}", record.name))("it points to nothing"));
        };
        if let Some(local) = self.kept.lock().get(&target.digest) {
            return Ok(local.clone());
        }
        let local = Arc::new(self.read(target).await?);
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(target.digest.clone(), local.clone());
        Ok(local)
    }

    async fn read(&self, target: &types::Descriptor) -> Result<Local, RuntimeError> {
        let mut digest = target.digest.clone();
        if is_index(&MediaType::from(target.media_type.as_str())) {
            let index: ImageIndex = self.document(&digest).await?;
            let manifest = for_this_machine(index.manifests())
                .ok_or_else(|| failed("choose an image")("it has none for this machine's processor"))?;
            digest = manifest.digest().to_string();
        }
        let manifest: ImageManifest = self.document(&digest).await?;
        let id = manifest.config().digest().to_string();
        let config: ImageConfiguration = self.document(&id).await?;
        if config.rootfs().diff_ids().len() != manifest.layers().len() {
            return Err(failed(format!("read the image {id}"))("its configuration does not fit its layers"));
        }
        let size = manifest.layers().iter().map(Descriptor::size).sum::<u64>() + manifest.config().size();
        Ok(Local {
            id,
            config,
            layers: manifest.layers().clone(),
            size,
            accounts: tokio::sync::OnceCell::new(),
        })
    }

    /// A JSON document from the content store.
    pub async fn document<T: serde::de::DeserializeOwned>(&self, digest: &str) -> Result<T, RuntimeError> {
        let doing = || format!("read {digest} from the content store");
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let mut parts = self.link.content().read(request).await.map_err(failed(doing()))?.into_inner();
        let mut document = Vec::new();
        while let Some(part) = parts.message().await.map_err(failed(doing()))? {
            document.extend_from_slice(&part.data);
            if document.len() > DOCUMENT_BYTES_MAX {
                return Err(failed(doing())("it is too long"));
            }
        }
        serde_json::from_slice(&document).map_err(failed(doing()))
    }

    /// Makes the snapshots of an image's layers that are not there yet.
    pub async fn unpack(&self, local: &Local) -> Result<(), RuntimeError> {
        let _turn = self.unpacking.lock(&local.id).await;
        let lease = self.lease().await?;
        let link = self.link.leased(&lease)?;
        let (mut parent, mut done) = (String::new(), Ok(()));
        for ((layer, diff_id), name) in
            local.layers.iter().zip(local.config.rootfs().diff_ids()).zip(local.chain())
        {
            done = unpack_layer(&link, layer, diff_id, &parent, &name).await;
            if done.is_err() {
                break;
            }
            parent = name;
        }
        if done.is_ok() {
            // From now on the image itself keeps its snapshots.
            done = self.keep_snapshot(&local.id, &parent).await;
        }
        self.end_lease(lease).await;
        done
    }

    /// The garbage collector follows this label from an image's configuration to its snapshots.
    async fn keep_snapshot(&self, config: &str, snapshot: &str) -> Result<(), RuntimeError> {
        let label = format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}");
        let request = UpdateRequest {
            info: Some(Info {
                digest: config.to_owned(),
                labels: HashMap::from([(label.clone(), snapshot.to_owned())]),
                ..Info::default()
            }),
            update_mask: Some(prost_types::FieldMask { paths: vec![format!("labels.{label}")] }),
        };
        let updated = self.link.content().update(request).await;
        updated.map(drop).map_err(failed(format!("keep the snapshots of the image {config}")))
    }

    /// Keeps half-made things from the garbage collector.
    pub async fn lease(&self) -> Result<String, RuntimeError> {
        let id = format!("coracle-{}", uuid::Uuid::new_v4());
        let until = clock::now().saturating_add(LEASE_LIFE).map_err(failed("reckon a lease's end"))?;
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), clock::rfc3339_seconds(until))]);
        let request = CreateRequest { id: id.clone(), labels };
        self.link.leases().create(request).await.map_err(failed("take a lease in containerd"))?;
        Ok(id)
    }

    pub async fn end_lease(&self, id: String) {
        if let Err(error) = self.link.leases().delete(DeleteRequest { id, sync: false }).await {
            tracing::debug!(%error, "a lease was not given back; it ends by itself");
        }
    }

    /// The users and groups that an unpacked image knows.
    pub async fn accounts<'a>(&self, local: &'a Local) -> Result<&'a Accounts, RuntimeError> {
        local.accounts.get_or_try_init(|| self.read_accounts(local)).await
    }

    async fn read_accounts(&self, local: &Local) -> Result<Accounts, RuntimeError> {
        let doing = || format!("read the users of the image {}", local.id);
        let lease = self.lease().await?;
        let link = self.link.leased(&lease)?;
        let key = format!("accounts-{}", uuid::Uuid::new_v4());
        let request = ViewSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            parent: local.snapshot(),
            ..ViewSnapshotRequest::default()
        };
        let viewed = link.snapshots().view(request).await;
        let read = match viewed {
            Ok(view) => {
                let layers = layer_folders(&view.into_inner().mounts);
                let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key };
                let read = tokio::task::spawn_blocking(move || {
                    Ok(Accounts {
                        passwd: read_in_layers(&layers, "etc/passwd")?,
                        group: read_in_layers(&layers, "etc/group")?,
                    })
                });
                let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                link.snapshots().remove(remove).await.map_err(failed(doing()))?;
                read.map_err(failed(doing()))
            }
            Err(error) => Err(failed(doing())(error)),
        };
        self.end_lease(lease).await;
        read
    }
}

fn provided(record: &Record) -> bool {
    record.labels.get(PROVIDED).is_some_and(|value| value == "true")
}

async fn unpack_layer(
    link: &Link,
    layer: &Descriptor,
    diff_id: &str,
    parent: &str,
    name: &str,
) -> Result<(), RuntimeError> {
    let doing = || format!("unpack the layer {}", layer.digest());
    let snapshotter = SNAPSHOTTER.to_owned();
    let stat = StatSnapshotRequest { snapshotter: snapshotter.clone(), key: name.to_owned() };
    if found(link.snapshots().stat(stat).await).map_err(failed(doing()))?.is_some() {
        return Ok(());
    }
    let key = format!("unpack-{} {name}", uuid::Uuid::new_v4());
    let prepare = PrepareSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: key.clone(),
        parent: parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    let mounts = link.snapshots().prepare(prepare).await.map_err(failed(doing()))?.into_inner().mounts;
    let apply = ApplyRequest {
        diff: Some(types::Descriptor {
            media_type: layer.media_type().to_string(),
            digest: layer.digest().to_string(),
            size: i64::try_from(layer.size()).unwrap_or(i64::MAX),
            ..types::Descriptor::default()
        }),
        mounts,
        ..ApplyRequest::default()
    };
    // A large layer takes longer than a usual call.
    let applied = link.patient().diff().apply(apply).await;
    let checked = match applied.map(|reply| reply.into_inner().applied.unwrap_or_default()) {
        Ok(applied) if applied.digest == diff_id => Ok(()),
        Ok(applied) => Err(failed(doing())(format!("it holds {}, not {diff_id}", applied.digest))),
        Err(error) => Err(failed(doing())(error)),
    };
    let commit = CommitSnapshotRequest {
        snapshotter: snapshotter.clone(),
        name: name.to_owned(),
        key: key.clone(),
        ..CommitSnapshotRequest::default()
    };
    let committed = match checked {
        Ok(()) => link.snapshots().commit(commit).await.map(drop),
        Err(error) => {
            discard(link, key).await;
            return Err(error);
        }
    };
    match committed {
        // Another image with the same layer was faster.
        Err(status) if status.code() == Code::AlreadyExists => {
            discard(link, key).await;
            Ok(())
        }
        committed => committed.map_err(failed(doing())),
    }
}

async fn discard(link: &Link, key: String) {
    let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key };
    if let Err(error) = link.snapshots().remove(request).await {
        tracing::debug!(%error, "a half-made snapshot stays until the garbage collector comes");
    }
}

/// Whether a descriptor leads to manifests rather than being one.
pub fn is_index(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageIndex)
        || matches!(media_type, MediaType::Other(name) if name == "application/vnd.docker.distribution.manifest.list.v2+json")
}

/// The manifest for Linux on this machine's processor; one without a platform fits any.
pub fn for_this_machine(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    manifests
        .iter()
        .find(|manifest| {
            manifest.platform().as_ref().is_some_and(|platform| {
                platform.os().to_string() == "linux" && platform.architecture().to_string() == architecture
            })
        })
        .or_else(|| manifests.iter().find(|manifest| manifest.platform().is_none()))
}

/// The OCI image specification's chain ids.
fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let digest = Sha256::digest(format!("{below} {diff_id}"));
                format!("sha256:{}", super::hex(&digest))
            }
        });
    }
    chain
}

/// The folders that overlayfs lays over each other, the uppermost first.
pub fn layer_folders(mounts: &[types::Mount]) -> Vec<std::path::PathBuf> {
    let Some(mount) = mounts.first() else { return Vec::new() };
    if mount.r#type == "bind" {
        return vec![mount.source.clone().into()];
    }
    mount
        .options
        .iter()
        .find_map(|option| option.strip_prefix("lowerdir="))
        .map(|folders| folders.split(':').map(Into::into).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_id_covers_all_layers_below() {
        let diff_ids = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        let expected = format!("sha256:{}", super::super::hex(&Sha256::digest("sha256:a sha256:b")));
        assert_eq!(chain_ids(&diff_ids), ["sha256:a".to_owned(), expected]);
    }

    #[test]
    fn layers_are_found_in_both_kinds_of_mount() {
        let bind = types::Mount { r#type: "bind".into(), source: "/s/1/fs".into(), ..Default::default() };
        assert_eq!(layer_folders(&[bind]), [std::path::PathBuf::from("/s/1/fs")]);
        let overlay = types::Mount {
            r#type: "overlay".into(),
            options: vec!["index=off".into(), "lowerdir=/b:/a".into()],
            ..Default::default()
        };
        assert_eq!(layer_folders(&[overlay]).len(), 2);
    }
}
