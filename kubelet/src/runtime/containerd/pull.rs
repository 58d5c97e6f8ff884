//! Images from registries: index, manifest, configuration and layers into containerd's content store, checked against
//! their digests by containerd; then the image's record, then its snapshots.
//!
//! Everything is fetched under a lease, and the record comes last: an image that is listed is whole.

use super::images::{Images, for_this_machine, is_index};
use super::link::{Link, failed};
use super::registry::Registry;
use crate::runtime::reference::Reference;
use crate::runtime::{RegistryAuth, RuntimeError};
use containerd_client::services::v1::{
    AbortRequest, AddResourceRequest, CreateImageRequest, Image as Record, Info, InfoRequest, Resource,
    UpdateImageRequest, UpdateRequest, WriteAction, WriteContentRequest,
};
use containerd_client::types;
use coracle_daemon::clock;
use futures::stream::{StreamExt, TryStreamExt};
use http::Response;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// Longest index or manifest, as with containerd.
const MANIFEST_BYTES_MAX: usize = 8 << 20;
/// Layers fetched at once.
const FETCHES_MAX: usize = 3;
/// A registry that sends nothing for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A document and what it is.
struct Document {
    descriptor: types::Descriptor,
    bytes: Vec<u8>,
}

/// Fetches an image. The texts of errors are for the pod's status.
pub async fn pull(
    images: &Images,
    link: &Link,
    name: &str,
    auth: Option<&RegistryAuth>,
) -> Result<(), RuntimeError> {
    let refused = |why: String| RuntimeError::Pull { image: name.to_owned(), why };
    let reference = Reference::parse(name)
        .map_err(|error| refused(format!("failed to parse image reference {name:?}: {error}")))?;
    let lease = images.lease().await?;
    let fetched = async {
        let pull =
            Pull { link: link.leased(&lease)?, lease: &lease, reference: &reference, refused: &refused };
        pull.all(auth).await
    };
    let fetched = fetched.await;
    let unpacked = match &fetched {
        Ok(record) => match images.local(record).await {
            Ok(local) => images.unpack(&local).await,
            Err(error) => Err(error),
        },
        Err(_) => Ok(()),
    };
    images.end_lease(lease).await;
    fetched?;
    unpacked
}

struct Pull<'a> {
    link: Link,
    lease: &'a str,
    reference: &'a Reference,
    refused: &'a (dyn Fn(String) -> RuntimeError + Sync),
}

impl Pull<'_> {
    async fn all(&self, auth: Option<&RegistryAuth>) -> Result<Record, RuntimeError> {
        let reference = self.reference;
        let unresolved = |why: String| {
            (self.refused)(format!(
                "failed to pull and unpack image \"{reference}\": failed to resolve reference \"{reference}\": {why}"
            ))
        };
        let registry = Registry::new(reference, auth).map_err(unresolved)?;
        let answer = registry.manifest(reference.version()).await.map_err(|why| {
            unresolved(if why == "not found" { format!("{reference}: not found") } else { why })
        })?;
        let top = document(answer, reference.digest.as_deref()).await.map_err(unresolved)?;
        let unfetched = |why: String| {
            (self.refused)(format!("failed to pull and unpack image \"{reference}\": failed to copy: {why}"))
        };
        let manifest = self.manifest(&registry, &top).await.map_err(unfetched)?;
        let parsed: ImageManifest =
            serde_json::from_slice(&manifest.bytes).map_err(|error| unfetched(error.to_string()))?;
        let parts: Vec<Descriptor> =
            std::iter::once(parsed.config()).chain(parsed.layers()).cloned().collect();
        let mut fetches = Vec::new();
        for part in &parts {
            fetches.push(self.blob(&registry, part));
        }
        futures::stream::iter(fetches)
            .buffer_unordered(FETCHES_MAX)
            .try_collect::<Vec<()>>()
            .await
            .map_err(unfetched)?;
        // References make the garbage collector keep what an image needs; so a manifest comes after its parts.
        let labels = parts.iter().enumerate().map(|(n, part)| reference_label(n, part.digest().as_ref()));
        self.keep(&manifest, labels.collect()).await.map_err(unfetched)?;
        if top.descriptor.digest != manifest.descriptor.digest {
            let labels = HashMap::from([reference_label(0, &manifest.descriptor.digest)]);
            self.keep(&top, labels).await.map_err(unfetched)?;
        }
        self.record(&top.descriptor).await
    }

    /// The manifest for this machine: what came, or what it points to.
    async fn manifest(&self, registry: &Registry, top: &Document) -> Result<Document, String> {
        if !is_index(&MediaType::from(top.descriptor.media_type.as_str())) {
            return Ok(Document { descriptor: top.descriptor.clone(), bytes: top.bytes.clone() });
        }
        let index: ImageIndex = serde_json::from_slice(&top.bytes).map_err(|error| error.to_string())?;
        let ours = for_this_machine(index.manifests()).ok_or_else(|| {
            format!("no match for platform in manifest {}: not found", top.descriptor.digest)
        })?;
        let digest = ours.digest().to_string();
        document(registry.manifest(&digest).await?, Some(&digest)).await
    }

    /// Fetches a blob unless it is here.
    async fn blob(&self, registry: &Registry, part: &Descriptor) -> Result<(), String> {
        let digest = part.digest().to_string();
        if self.here(&digest).await? {
            return Ok(());
        }
        let answer = registry.blob(&digest).await?;
        self.write(&digest, part.size(), HashMap::new(), Source::Answer(answer.into_body())).await
    }

    /// Whether content is here; from then on it stays.
    async fn here(&self, digest: &str) -> Result<bool, String> {
        let resource = Resource { id: digest.to_owned(), r#type: "content".to_owned() };
        let request = AddResourceRequest { id: self.lease.to_owned(), resource: Some(resource) };
        self.link.leases().add_resource(request).await.map_err(|status| status.message().to_owned())?;
        match self.link.content().info(InfoRequest { digest: digest.to_owned() }).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status.message().to_owned()),
        }
    }

    /// Stores a document with labels; one that is here gets the labels.
    async fn keep(&self, document: &Document, labels: HashMap<String, String>) -> Result<(), String> {
        let digest = &document.descriptor.digest;
        if self.here(digest).await? {
            let paths = labels.keys().map(|label| format!("labels.{label}")).collect();
            let request = UpdateRequest {
                info: Some(Info { digest: digest.clone(), labels, ..Info::default() }),
                update_mask: Some(prost_types::FieldMask { paths }),
            };
            let updated = self.link.content().update(request).await;
            return updated.map(drop).map_err(|status| status.message().to_owned());
        }
        let size = document.bytes.len() as u64;
        self.write(digest, size, labels, Source::Bytes(document.bytes.clone())).await
    }

    /// Streams content into containerd, which checks its digest before it counts as there.
    async fn write(
        &self,
        digest: &str,
        size: u64,
        labels: HashMap<String, String>,
        source: Source,
    ) -> Result<(), String> {
        let name = format!("coracle-{}-{digest}", uuid::Uuid::new_v4());
        let (sender, receiver) = mpsc::channel(4);
        let commit = Commit { name: name.clone(), digest: digest.to_owned(), size, labels };
        let sending = send(source, commit, sender);
        let writing = async {
            let mut replies =
                self.link.patient().content().write(ReceiverStream::new(receiver)).await?.into_inner();
            while replies.message().await?.is_some() {}
            Ok::<(), Status>(())
        };
        let (sent, written) = tokio::join!(sending, writing);
        match (sent, written) {
            (Ok(()), Ok(())) => Ok(()),
            // Another pull was faster.
            (_, Err(status)) if status.code() == Code::AlreadyExists => Ok(()),
            (sent, written) => {
                let _ = self.link.content().abort(AbortRequest { r#ref: name }).await;
                let status = written.err().map(|status| status.message().to_owned());
                Err(sent.err().or(status).unwrap_or_default())
            }
        }
    }

    /// The image's record, under its name; one named by tag is also found by digest.
    async fn record(&self, target: &types::Descriptor) -> Result<Record, RuntimeError> {
        let mut names = vec![self.reference.to_string()];
        if self.reference.digest.is_none() {
            names.push(format!("{}@{}", self.reference.repository(), target.digest));
        }
        let mut first = None;
        for name in names {
            let record = Record { name, target: Some(target.clone()), ..Record::default() };
            let doing = || format!("record the image {}", record.name);
            let request = CreateImageRequest { image: Some(record.clone()), source_date_epoch: None };
            match self.link.images().create(request).await {
                Err(status) if status.code() == Code::AlreadyExists => {
                    let request = UpdateImageRequest {
                        image: Some(record.clone()),
                        update_mask: Some(prost_types::FieldMask { paths: vec!["target".to_owned()] }),
                        source_date_epoch: None,
                    };
                    self.link.images().update(request).await.map_err(failed(doing()))?;
                }
                created => drop(created.map_err(failed(doing()))?),
            }
            first.get_or_insert(record);
        }
        first.ok_or_else(|| failed("record an image")("it has no name"))
    }
}

fn reference_label(n: usize, digest: &str) -> (String, String) {
    (format!("containerd.io/gc.ref.content.{n}"), digest.to_owned())
}

/// Reads an answer that must be a manifest or index.
async fn document(answer: Response<Incoming>, expected: Option<&str>) -> Result<Document, String> {
    let told = answer.headers().get(http::header::CONTENT_TYPE).and_then(|told| told.to_str().ok());
    let told = told.and_then(|told| told.split(';').next()).map(|told| told.trim().to_owned());
    let body = Limited::new(answer.into_body(), MANIFEST_BYTES_MAX);
    let read = clock::timeout(SILENCE_MAX, body.collect()).await.map_err(|error| error.to_string())?;
    let bytes = read.map_err(|error| error.to_string())?.to_bytes().to_vec();
    let digest = format!("sha256:{}", super::hex(&Sha256::digest(&bytes)));
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        return Err(format!("unexpected digest {digest}, expected {expected}"));
    }
    // The document itself knows better than whoever sent it.
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        media_type: Option<String>,
    }
    let kind: Kind = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let media_type = kind.media_type.or(told).unwrap_or_else(|| DOCKER_MANIFEST.to_owned());
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    Ok(Document {
        descriptor: types::Descriptor { media_type, digest, size, ..types::Descriptor::default() },
        bytes,
    })
}

/// Where content comes from.
enum Source {
    Bytes(Vec<u8>),
    Answer(Incoming),
}

/// What is said at the end of content.
struct Commit {
    name: String,
    digest: String,
    size: u64,
    labels: HashMap<String, String>,
}

async fn send(source: Source, commit: Commit, to: mpsc::Sender<WriteContentRequest>) -> Result<(), String> {
    let total = i64::try_from(commit.size).map_err(|error| error.to_string())?;
    let mut offset = 0_i64;
    let mut write = async |data: Vec<u8>| {
        let length = i64::try_from(data.len()).map_err(|error| error.to_string())?;
        if offset + length > total {
            return Err(format!("{} is longer than the {total} bytes announced", commit.digest));
        }
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: commit.name.clone(),
            total,
            expected: commit.digest.clone(),
            offset,
            data,
            labels: HashMap::new(),
        };
        offset += length;
        // containerd said why, should it have stopped listening.
        to.send(request).await.map_err(|_| String::new())
    };
    match source {
        Source::Bytes(bytes) => write(bytes).await?,
        Source::Answer(mut body) => {
            while let Some(frame) =
                clock::timeout(SILENCE_MAX, body.frame()).await.map_err(|error| error.to_string())?
            {
                if let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() {
                    write(data.to_vec()).await?;
                }
            }
        }
    }
    let request = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: commit.name,
        total,
        expected: commit.digest,
        offset,
        data: Vec::new(),
        labels: commit.labels,
    };
    to.send(request).await.map_err(|_| String::new())
}
