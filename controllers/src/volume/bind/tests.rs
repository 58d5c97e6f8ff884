//! Which volume a claim gets, and what the phases of both become.

use super::*;
use crate::testing::{at, object};
use serde_json::Value;

const NOW: &str = "2026-01-01T00:00:00Z";

fn claim(spec: &Value) -> PersistentVolumeClaim {
    let mut all =
        json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "2Gi" } } });
    let mut notes = json!({});
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
        if key == "volumeName" {
            notes[BIND_COMPLETED] = json!("yes");
        }
    }
    object(
        json!({ "metadata": { "name": "c", "namespace": "ns", "uid": "c", "annotations": notes }, "spec": all, "status": { "phase": "Pending" } }),
    )
}

/// `name size`, then fields of its spec.
fn volume(words: &str, spec: &Value) -> Arc<PersistentVolume> {
    let (name, size) = words.split_once(' ').expect("two words");
    let mut all = json!({ "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"] });
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    Arc::new(object(json!({ "metadata": { "name": name }, "spec": all })))
}

fn steps(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    class: Option<Value>,
) -> Vec<String> {
    let folders = Folders::new(std::path::Path::new("/x"));
    let setting = Setting {
        class: class.map(|class| Arc::new(object(class))),
        default_class: None,
        folders: Some(&folders),
        unscheduled: Vec::new(),
    };
    let plan = reconcile_claim(claim, volumes, &setting);
    let words = plan.actions().map(|action| match action {
        Action::Patch { key, patch, .. } if patch["spec"]["claimRef"].is_object() => {
            format!("take {}", key.name)
        }
        Action::Patch { patch, .. } if patch["spec"].is_object() => {
            format!("name {}", patch["spec"]["volumeName"])
        }
        Action::Patch { patch, .. } => format!("{}", patch["status"]["phase"]),
        Action::Ensure { body, .. } => format!("make {}", body["spec"]["hostPath"]["path"]),
        Action::Event { reason, .. } => (*reason).to_owned(),
        Action::Create { .. } | Action::Delete { .. } | Action::Apply { .. } => "?".into(),
    });
    words.map(|word| word.replace('"', "")).collect()
}

#[test]
fn the_smallest_volume_that_fits_is_taken() {
    let volumes = [
        volume("small 1Gi", &json!({})),
        volume("large 9Gi", &json!({})),
        volume("right 3Gi", &json!({})),
        volume("taken 2Gi", &json!({ "claimRef": { "namespace": "ns", "name": "other", "uid": "o" } })),
        volume("classy 2Gi", &json!({ "storageClassName": "fast" })),
        volume("shared 2Gi", &json!({ "accessModes": ["ReadOnlyMany"] })),
    ];
    assert_eq!(steps(&claim(&json!({})), &volumes, None), ["take right", "name right"]);
    assert_eq!(steps(&claim(&json!({})), &volumes[..1], None), ["FailedBinding"]);
}

#[test]
fn a_volume_reserved_for_the_claim_comes_first() {
    let reserved = json!({ "claimRef": { "namespace": "ns", "name": "c" } });
    let volumes = [volume("right 2Gi", &json!({})), volume("mine 9Gi", &reserved)];
    assert_eq!(steps(&claim(&json!({})), &volumes, None), ["take mine", "name mine"]);
}

#[test]
fn a_claim_that_agrees_with_its_volume_is_bound_and_one_without_is_lost() {
    let named = claim(&json!({ "volumeName": "v" }));
    let agreed = json!({ "claimRef": { "namespace": "ns", "name": "c", "uid": "c" } });
    assert_eq!(steps(&named, &[volume("v 2Gi", &agreed)], None), ["Bound"]);
    assert_eq!(steps(&named, &[], None), ["Lost", "ClaimLost"]);
    let other = json!({ "claimRef": { "namespace": "ns", "name": "d", "uid": "d" } });
    assert_eq!(steps(&named, &[volume("v 2Gi", &other)], None), ["Lost", "ClaimMisbound"]);
}

#[test]
fn a_class_says_who_makes_the_volume_and_when() {
    let of_class = claim(&json!({ "storageClassName": "fast" }));
    assert_eq!(steps(&of_class, &[], None), ["ProvisioningFailed"]);
    let class = |provisioner: &str, mode: &str| {
        Some(json!({ "metadata": { "name": "fast" }, "provisioner": provisioner, "volumeBindingMode": mode }))
    };
    assert_eq!(steps(&of_class, &[], class("else", "Immediate")), ["ExternalProvisioning"]);
    assert_eq!(
        steps(&of_class, &[], class(PROVISIONER, "Immediate")),
        ["make /x/pvc-c", "ProvisioningSucceeded"]
    );
    let block = claim(&json!({ "storageClassName": "fast", "volumeMode": "Block" }));
    assert_eq!(steps(&block, &[], class(PROVISIONER, "Immediate")), ["ProvisioningFailed"]);
    let waits = || class(PROVISIONER, "WaitForFirstConsumer");
    let free = [volume("free 2Gi", &json!({ "storageClassName": "fast" }))];
    assert_eq!(steps(&of_class, &free, waits()), ["WaitForFirstConsumer"], "the scheduler chooses");
    let mut selected = of_class.clone();
    selected.metadata.annotations.get_or_insert_default().insert(SELECTED_NODE.into(), "n".into());
    assert_eq!(
        steps(&selected, &free, waits()),
        ["make /x/pvc-c", "ProvisioningSucceeded"],
        "it has passed the free one over"
    );
    let reserved =
        json!({ "storageClassName": "fast", "claimRef": { "namespace": "ns", "name": "c", "uid": "c" } });
    assert_eq!(steps(&of_class, &[volume("mine 2Gi", &reserved)], waits()), ["name mine"]);
}

#[test]
fn a_claim_that_waits_says_for_whom() {
    let message = |pods: &[&str]| match tell_waiting(
        &claim(&json!({})),
        &pods.iter().map(|pod| (*pod).to_owned()).collect::<Vec<_>>(),
    ) {
        Action::Event { message, .. } => message,
        _ => String::new(),
    };
    assert_eq!(message(&[]), "waiting for first consumer to be created before binding");
    assert_eq!(message(&["a"]), "waiting for pod a to be scheduled");
    assert_eq!(message(&["a", "b"]), "waiting for pods a,b to be scheduled");
}

#[test]
fn a_volume_is_available_bound_then_released() {
    let phase = |spec: &Value, claim: Option<&PersistentVolumeClaim>| {
        let plan = reconcile_volume(&volume("v 2Gi", spec), claim, at(NOW));
        let phase = plan.actions().find_map(|action| match action {
            Action::Patch { patch, .. } => patch["status"]["phase"].as_str().map(str::to_owned),
            _ => None,
        });
        phase.unwrap_or_default()
    };
    let held = json!({ "claimRef": { "namespace": "ns", "name": "c", "uid": "c" } });
    assert_eq!(phase(&json!({}), None), "Available");
    assert_eq!(phase(&held, Some(&claim(&json!({ "volumeName": "v" })))), "Bound");
    assert_eq!(phase(&held, None), "Released");
    assert_eq!(phase(&held, Some(&claim(&json!({ "volumeName": "other" })))), "Released");
}

#[test]
fn a_claim_that_names_no_class_gets_the_default_once_there_is_one() {
    let class = |name: &str, note: &str, since: &str| {
        let meta = json!({ "name": name, "annotations": { IS_DEFAULT: note }, "creationTimestamp": since });
        Arc::new(object::<StorageClass>(json!({ "metadata": meta, "provisioner": PROVISIONER })))
    };
    let classes = [
        class("newest", "false", "2026-01-03T00:00:00Z"),
        class("newer", "true", "2026-01-02T00:00:00Z"),
        class("old", "true", NOW),
    ];
    let default_class = default_class(&classes);
    assert_eq!(default_class.as_deref(), Some("newer"));
    let setting = Setting { class: None, default_class, folders: None, unscheduled: Vec::new() };
    let named = |claim: &PersistentVolumeClaim| {
        let plan = reconcile_claim(claim, &[], &setting);
        plan.actions().find_map(|action| match action {
            Action::Patch { patch, .. } => patch["spec"]["storageClassName"].as_str().map(str::to_owned),
            _ => None,
        })
    };
    assert_eq!(named(&claim(&json!({}))).as_deref(), Some("newer"));
    assert_eq!(named(&claim(&json!({ "storageClassName": "" }))), None, "that claim wants none");
}

#[test]
fn only_what_was_made_for_a_claim_that_is_gone_is_discarded() {
    let held = json!({ "uid": "c", "namespace": "ns", "name": "c" });
    let discarded = |by: &str, policy: &str, claim: Option<&PersistentVolumeClaim>| {
        let volume = object(json!({
            "metadata": { "name": "pvc-c", "annotations": { PROVISIONED_BY: by } },
            "spec": { "claimRef": held, "persistentVolumeReclaimPolicy": policy },
        }));
        is_discarded(&volume, claim)
    };
    assert!(discarded(PROVISIONER, "Delete", None));
    assert!(!discarded(PROVISIONER, "Retain", None) && !discarded("else", "Delete", None));
    assert!(!discarded(PROVISIONER, "Delete", Some(&claim(&json!({ "volumeName": "pvc-c" })))));
}
