//! Which volume a claim gets, and the phases of both.
//!
//! A binding is two writes: the volume names the claim, then the claim names the volume. Either may be lost, and is made
//! good by the next look, for the volume that names a claim is always taken first.

use super::folders::{Folders, PREFIX};
use crate::plan::{Action, Deletion, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, Plan, status_patch};
use coracle_api::quantity::Quantity;
use coracle_client::{EventType, Key, ObjectId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::{Selector, SelectorExt};
use serde_json::json;
use std::sync::Arc;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The scheduler's word for where the volume of a claim that waits for its consumer is to be.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Storage classes of this provisioner get folders of this machine.
const PROVISIONER: &str = "coracle.dev/folder";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// What a claim is decided with, besides the volumes.
pub struct Setting<'a> {
    /// The claim's class, if it exists.
    pub class: Option<Arc<StorageClass>>,
    /// The class of claims that name none, not even an empty one.
    pub default_class: Option<String>,
    /// Where volumes of our own are made; `None` where none are.
    pub folders: Option<&'a Folders>,
    /// Pods that name the claim and have no node yet.
    pub unscheduled: Vec<String>,
}

pub fn class_of(claim: &PersistentVolumeClaim) -> String {
    claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default()
}

/// The claim that a volume names.
pub fn claim_key(volume: &PersistentVolume) -> Option<Key> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::new(claim.namespace.clone().unwrap_or_default(), claim.name.clone().unwrap_or_default()))
}

/// Whether the volume names this claim, or one of its name that it was reserved for.
fn names(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let uid = reference.and_then(|reference| reference.uid.as_deref()).unwrap_or_default();
    claim_key(volume) == Some(Key::of(&claim.metadata))
        && (uid.is_empty() || claim.metadata.uid.as_deref() == Some(uid))
}

fn is_noted(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, note: &str) -> bool {
    meta.annotations.as_ref().is_some_and(|notes| notes.contains_key(note))
}

pub fn reconcile_claim(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    setting: &Setting<'_>,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = claim.spec.as_ref().filter(|_| claim.metadata.deletion_timestamp.is_none()) else {
        return plan;
    };
    if let Some(name) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        let volume = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name));
        plan.then(with_volume(claim, volume.map(Arc::as_ref)));
        return plan;
    }
    if let (None, Some(class)) = (&spec.storage_class_name, &setting.default_class) {
        // It was made before there was a default; with the next look it is like any other.
        let meta = json!({ "resourceVersion": claim.metadata.resource_version });
        let patch = json!({ "metadata": meta, "spec": { "storageClassName": class } });
        let key = Key::of(&claim.metadata);
        plan.then([Action::Patch { resource: &PERSISTENT_VOLUME_CLAIM, key, subresource: "", patch }]);
        return plan;
    }
    let waits = setting
        .class
        .as_ref()
        .is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let reserved = volumes.iter().find(|volume| names(volume, claim));
    if waits && reserved.is_none() && !is_noted(&claim.metadata, SELECTED_NODE) {
        plan.then([tell_waiting(claim, &setting.unscheduled)]);
        return plan;
    }
    // The scheduler has seen that no volume fits and can be reached from the node that it selected.
    match reserved.or_else(|| if waits { None } else { fitting(claim, spec, volumes) }) {
        Some(volume) => {
            plan.then(take(volume, claim));
            plan.then([name_volume(claim, volume)]);
        }
        None => {
            plan.then(without_volume(claim, spec, setting));
        }
    }
    plan
}

fn tell_waiting(claim: &PersistentVolumeClaim, pods: &[String]) -> Action {
    let (reason, message) = match pods {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
    };
    tell(claim, EventType::Normal, reason, message)
}

/// The smallest free volume that is what the claim asks for.
fn fitting<'a>(
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    volumes: &'a [Arc<PersistentVolume>],
) -> Option<&'a Arc<PersistentVolume>> {
    let asked = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage"));
    let asked = asked.and_then(|text| Quantity::parse(&text.0).ok()).unwrap_or(Quantity::ZERO);
    let selector = spec.selector.as_ref().map(|selector| Selector::try_from(selector.clone()).ok());
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let size = |volume: &PersistentVolume| {
        let capacity = volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?;
        Quantity::parse(&capacity.0).ok()
    };
    let fits = |volume: &&Arc<PersistentVolume>| {
        let Some(own) = volume.spec.as_ref().filter(|_| volume.metadata.deletion_timestamp.is_none()) else {
            return false;
        };
        let labels = volume.metadata.labels.clone().unwrap_or_default();
        let modes = own.access_modes.clone().unwrap_or_default();
        own.claim_ref.is_none()
            && own.storage_class_name.clone().unwrap_or_default() == class_of(claim)
            && mode(&own.volume_mode) == mode(&spec.volume_mode)
            && spec.access_modes.iter().flatten().all(|wanted| modes.contains(wanted))
            && selector
                .as_ref()
                .is_none_or(|selector| selector.as_ref().is_some_and(|selector| selector.matches(&labels)))
            && size(volume).is_some_and(|size| size >= asked)
    };
    volumes.iter().filter(fits).min_by_key(|volume| (size(volume), volume.metadata.name.clone()))
}

/// Writes the claim into the volume, unless it is there.
fn take(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Action> {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.is_some_and(|reference| reference.uid.is_some() && reference.uid == claim.metadata.uid) {
        return None;
    }
    let mut meta = json!({ "resourceVersion": volume.metadata.resource_version });
    if reference.is_none() {
        meta["annotations"] = json!({ BOUND_BY_CONTROLLER: "yes" });
    }
    let patch = json!({ "metadata": meta, "spec": { "claimRef": reference_to(claim) } });
    Some(Action::Patch {
        resource: &PERSISTENT_VOLUME,
        key: Key::of(&volume.metadata),
        subresource: "",
        patch,
    })
}

fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

fn name_volume(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Action {
    let notes = json!({ BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes" });
    let patch = json!({
        "metadata": { "resourceVersion": claim.metadata.resource_version, "annotations": notes },
        "spec": { "volumeName": volume.metadata.name },
    });
    Action::Patch {
        resource: &PERSISTENT_VOLUME_CLAIM,
        key: Key::of(&claim.metadata),
        subresource: "",
        patch,
    }
}

/// What to do with a claim that names its volume: both must agree, then the claim is bound.
fn with_volume(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> Vec<Action> {
    let mut status = claim.status.clone().unwrap_or_default();
    let was = status.phase.clone();
    let lost = |reason, message: &str| {
        let mut status = claim.status.clone().unwrap_or_default();
        status.phase = Some("Lost".into());
        let written = status_patch(&PERSISTENT_VOLUME_CLAIM, &claim.metadata, &claim.status, &status);
        let event =
            (was.as_deref() != Some("Lost")).then(|| tell(claim, EventType::Warning, reason, message.into()));
        written.into_iter().chain(event).collect::<Vec<_>>()
    };
    let completed = is_noted(&claim.metadata, BIND_COMPLETED);
    let Some(volume) = volume else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return if completed { lost("ClaimLost", message) } else { Vec::new() };
    };
    let spec = volume.spec.clone().unwrap_or_default();
    if spec.claim_ref.is_some() && !names(volume, claim) {
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        return if completed { lost("ClaimMisbound", message) } else { Vec::new() };
    }
    let mut actions: Vec<_> = take(volume, claim).into_iter().collect();
    if !completed {
        let meta = json!({ "resourceVersion": claim.metadata.resource_version, "annotations": { BIND_COMPLETED: "yes" } });
        let key = Key::of(&claim.metadata);
        let patch = json!({ "metadata": meta });
        actions.push(Action::Patch { resource: &PERSISTENT_VOLUME_CLAIM, key, subresource: "", patch });
        return actions;
    }
    status.phase = Some("Bound".into());
    status.access_modes = spec.access_modes;
    status.capacity = spec.capacity;
    actions.extend(status_patch(&PERSISTENT_VOLUME_CLAIM, &claim.metadata, &claim.status, &status));
    actions
}

/// What to do with a claim that no volume fits: make one, or say who should.
fn without_volume(
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    setting: &Setting<'_>,
) -> Vec<Action> {
    let name = class_of(claim);
    if name.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        return vec![tell(claim, EventType::Normal, "FailedBinding", message.into())];
    }
    let Some(class) = &setting.class else {
        let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
        return vec![tell(claim, EventType::Warning, "ProvisioningFailed", message)];
    };
    if class.provisioner != PROVISIONER {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
            class.provisioner
        );
        return vec![tell(claim, EventType::Normal, "ExternalProvisioning", message)];
    }
    let volume = volume_of(claim);
    let folder = setting.folders.and_then(|folders| folders.of(&volume));
    let trouble = match &folder {
        _ if spec.volume_mode.as_deref() == Some("Block") => "block volumes are not supported",
        None => "no folder for volumes is set",
        Some(folder) => {
            let made = provision(claim, spec, class, &folder.to_string_lossy());
            let message = format!("Successfully provisioned volume {volume} using {PROVISIONER}");
            return vec![made, tell(claim, EventType::Normal, "ProvisioningSucceeded", message)];
        }
    };
    let message = format!("Failed to provision volume with StorageClass {name:?}: {trouble}");
    vec![tell(claim, EventType::Warning, "ProvisioningFailed", message)]
}

/// The volume that is made for a claim.
pub fn volume_of(claim: &PersistentVolumeClaim) -> String {
    format!("{PREFIX}{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// The newest class that is marked as the default.
pub fn default_class(classes: &[Arc<StorageClass>]) -> Option<String> {
    let marked = |class: &&Arc<StorageClass>| {
        let notes = class.metadata.annotations.as_ref();
        notes.and_then(|notes| notes.get(IS_DEFAULT)).is_some_and(|value| value == "true")
    };
    let newest = |class: &&Arc<StorageClass>| class.metadata.creation_timestamp.as_ref().map(|at| at.0);
    classes.iter().filter(marked).max_by_key(newest)?.metadata.name.clone()
}

/// Whether a plan makes a volume, whose folder must be there before.
pub fn makes_volume(plan: &Plan) -> bool {
    let makes = |action: &Action| matches!(action, Action::Ensure { resource, .. } if **resource == PERSISTENT_VOLUME);
    plan.steps.iter().flatten().any(makes)
}

/// A volume of our own kind for one claim, reserved for it.
fn provision(
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    class: &StorageClass,
    folder: &str,
) -> Action {
    let name = volume_of(claim);
    let storage =
        spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage").cloned());
    let body = json!({
        "metadata": { "name": name, "annotations": { PROVISIONED_BY: PROVISIONER, BOUND_BY_CONTROLLER: "yes" } },
        "spec": {
            "capacity": { "storage": storage }, "accessModes": spec.access_modes, "volumeMode": spec.volume_mode,
            "storageClassName": class_of(claim), "claimRef": reference_to(claim), "mountOptions": class.mount_options,
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "hostPath": { "path": folder, "type": "DirectoryOrCreate" },
        },
    });
    Action::Ensure { resource: &PERSISTENT_VOLUME, body }
}

fn tell(claim: &PersistentVolumeClaim, kind: EventType, reason: &'static str, message: String) -> Action {
    Action::Event { about: ObjectId::of(claim), kind, reason, message }
}

/// The volume's phase, and its end when it was made for a claim that is gone.
pub fn reconcile_volume(
    volume: &PersistentVolume,
    claim: Option<&PersistentVolumeClaim>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &volume.spec else { return plan };
    let mut status = volume.status.clone().unwrap_or_default();
    let phase = phase(volume, spec, claim);
    if status.phase.as_deref() != Some(phase) {
        status.phase = Some(phase.into());
        status.last_phase_transition_time = Some(Time(now));
    }
    plan.then(status_patch(&PERSISTENT_VOLUME, &volume.metadata, &volume.status, &status));
    if is_discarded(volume, claim) && volume.metadata.deletion_timestamp.is_none() {
        plan.then([Action::Delete {
            resource: &PERSISTENT_VOLUME,
            key: Key::of(&volume.metadata),
            uid: volume.metadata.uid.clone(),
            how: Deletion::default(),
            owner: None,
        }]);
    }
    plan
}

/// Whether the volume is one of ours whose claim is gone for good, and what is in it goes as well.
pub fn is_discarded(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> bool {
    let Some(spec) = &volume.spec else { return false };
    let ours = volume.metadata.annotations.as_ref().and_then(|notes| notes.get(PROVISIONED_BY));
    phase(volume, spec, claim) == "Released"
        && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")
        && ours.is_some_and(|name| name == PROVISIONER)
}

fn phase(
    volume: &PersistentVolume,
    spec: &PersistentVolumeSpec,
    claim: Option<&PersistentVolumeClaim>,
) -> &'static str {
    let reference = spec.claim_ref.as_ref();
    if reference.is_none_or(|reference| reference.uid.as_deref().unwrap_or_default().is_empty()) {
        return "Available";
    }
    let Some(claim) = claim.filter(|claim| names(volume, claim)) else { return "Released" };
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    // A claim that names none yet is about to name this one.
    if named.is_empty() || Some(&named) == volume.metadata.name.as_ref() { "Bound" } else { "Released" }
}

#[cfg(test)]
mod tests;
