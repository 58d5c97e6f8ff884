//! PersistentVolumeClaims bound to folders of this node: `hostPath` and `local` volumes.

use super::{Paths, VolumeError};
use crate::launch::text;
use coracle_client::errors;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::Api;
use std::path::PathBuf;

/// The path of each claim that the pod mounts, by volume.
///
/// # Errors
/// A claim is missing, not bound, or bound to a volume that is no folder of the node.
pub async fn paths(client: &kube::Client, pod: &Pod) -> Result<Paths, VolumeError> {
    let mut all = Paths::new();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for volume in volumes {
        if let Some(claim) = claim_name(pod, volume) {
            let path = of_claim(client, text(pod.metadata.namespace.as_ref()), &claim).await;
            let path = path.map_err(|why| VolumeError::Failed { volume: volume.name.clone(), why })?;
            all.insert(volume.name.clone(), path);
        }
    }
    Ok(all)
}

fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    volume.ephemeral.as_ref().map(|_| format!("{}-{}", text(pod.metadata.name.as_ref()), volume.name))
}

async fn of_claim(client: &kube::Client, namespace: &str, name: &str) -> Result<PathBuf, String> {
    let told = |what: String| {
        move |error: kube::Error| {
            if errors::is_not_found(&error) {
                format!("{what} not found")
            } else {
                format!("{what}: {error}")
            }
        }
    };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get(name).await.map_err(told(format!("persistentvolumeclaim {name:?}")))?;
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.and_then(|spec| spec.volume_name).filter(|_| bound);
    let Some(volume) = volume else { return Err(format!("PVC {namespace}/{name} is not bound")) };
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let found = volumes.get(&volume).await.map_err(told(format!("persistentvolume {volume:?}")))?;
    let spec = found.spec.unwrap_or_default();
    let path = spec.host_path.map(|source| source.path).or(spec.local.map(|source| source.path));
    path.map(PathBuf::from).ok_or_else(|| format!("persistentvolume {volume:?} is no folder of a node"))
}
