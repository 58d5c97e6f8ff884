//! Claims, volumes, classes, and the kinds of CSI.

use super::*;

fn claim(fields: &Value) -> Value {
    let mut object =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
    for (key, value) in fields.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

fn volume(fields: &Value) -> Value {
    let mut object = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}}});
    for (key, value) in fields.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

#[test]
fn claims_name_the_field_at_fault() {
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"accessModes": [], "resources": {}}),
            &[
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        ),
        (
            json!({"dataSource": {"kind": "Pod", "name": "n"}, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "n"}}),
            &[
                r#"spec.dataSource: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#,
                "spec: Invalid value: {}: must match dataSourceRef",
            ],
        ),
    ];
    for (fields, want) in rows {
        refuses("PersistentVolumeClaim", claim(fields), want);
    }
}

#[test]
fn bound_claims_grow_and_never_fall_below_what_they_have() {
    let stored = |asked: &str| {
        let mut object = claim(&json!({"resources": {"requests": {"storage": asked}}}));
        object["status"] = json!({"phase": "Bound", "capacity": {"storage": "2Gi"}});
        object
    };
    for (old, new, want) in [
        ("2Gi", "3Gi", None),
        ("4Gi", "3Gi", None),
        (
            "4Gi",
            "2Gi",
            Some("spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"),
        ),
    ] {
        refuses_write("PersistentVolumeClaim", "", stored(old), stored(new), want.as_slice());
    }
    let odd = json!({"status": {"allocatedResourceStatuses": {"storage": "x", "cpu": "NodeResizePending"}, "capacity": {"storage": "-1"}}});
    let mut new = claim(&json!({}));
    new["status"] = odd["status"].clone();
    refuses_write(
        "PersistentVolumeClaim",
        "status",
        claim(&json!({})),
        new,
        &[
            "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
            r#"status.allocatedResourceStatus: Unsupported value: "cpu": supported values: "storage""#,
            r#"status.allocatedResourceStatus: Unsupported value: storage: supported values: "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending""#,
        ],
    );
}

#[test]
fn volumes_have_one_source_that_is_whole() {
    let rows: &[(Value, &[&str])] = &[
        (json!({}), &["spec: Required value: must specify a volume type"]),
        (
            json!({"capacity": {}, "hostPath": {"path": "//"}, "persistentVolumeReclaimPolicy": "Recycle"}),
            &[
                "spec.capacity: Required value",
                r#"spec.capacity: Unsupported value: {}: supported values: "storage""#,
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            ],
        ),
        (
            json!({"csi": {"driver": "d", "controllerExpandSecretRef": {"name": "s"}}, "local": {"path": "/a"}}),
            &[
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
                "spec.csi: Forbidden: may not specify more than 1 volume type",
            ],
        ),
        (
            json!({"csi": {"driver": "d", "controllerExpandSecretRef": {"name": "s"}}}),
            &[
                "spec.csi.volumeHandle: Required value",
                "spec.csi.controllerExpandSecretRef.namespace: Required value",
            ],
        ),
        (
            json!({"iscsi": {"targetPortal": "p", "iqn": "x", "lun": 0, "secretRef": {}}}),
            &[
                r#"spec.iscsi.iqn: Invalid value: "x": must be valid format"#,
                "spec.iscsi.secretRef.name: Required value",
            ],
        ),
    ];
    for (fields, want) in rows {
        refuses("PersistentVolume", volume(fields), want);
    }
}

#[test]
fn affinities_of_volumes_follow_labels_that_left_beta() {
    let of = |key: &str| {
        volume(&json!({"local": {"path": "/a"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}]}}}))
    };
    let (beta, stable) = ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone");
    refuses_change("PersistentVolume", of(beta), of(stable), &[]);
    let told = r#"nodeAffinity: Invalid value: {"Required":{"NodeSelectorTerms":[{"MatchExpressions":[{"Key":"failure-domain.beta.kubernetes.io/zone","Operator":"In","Values":["a"]}],"MatchFields":null}]}}: field is immutable, except for updating from beta label to GA"#;
    refuses_change("PersistentVolume", of(stable), of(beta), &[told]);
}

#[test]
fn the_kinds_of_csi_name_the_field_at_fault() {
    refuses(
        "CSIDriver",
        json!({"metadata": {"name": "d"}, "spec": {"fsGroupPolicy": "x", "tokenRequests": [{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]}}),
        &[
            r#"spec.fsGroupPolicy: Unsupported value: "x": supported values: "File", "None", "ReadWriteOnceWithFSType""#,
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            r#"spec.tokenRequests[1].audience: Duplicate value: "a""#,
        ],
    );
    let long = "x".repeat(193);
    refuses(
        "CSINode",
        json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d", "nodeID": long, "topologyKeys": ["a", "a"]}]}}),
        &[
            &format!("spec.drivers[0].nodeID: Invalid value: \"{long}\": must be 192 characters or less"),
            r#"spec.drivers[0]: Duplicate value: "a""#,
        ],
    );
    let node = |id: &str| json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d", "nodeID": id, "topologyKeys": null}]}});
    let told = r#"spec.drivers: Invalid value: [{"Name":"d","NodeID":"b","TopologyKeys":null,"Allocatable":null}]: field is immutable"#;
    refuses_change("CSINode", node("a"), node("b"), &[told]);
    let attachment = |source: Value| json!({"metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": source}});
    refuses(
        "VolumeAttachment",
        attachment(
            json!({"inlineVolumeSpec": {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}, "volumeMode": "Block", "nodeAffinity": {}}}),
        ),
        &[
            "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.nodeAffinity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes",
        ],
    );
    refuses(
        "StorageClass",
        json!({"metadata": {"name": "c"}, "provisioner": "p", "allowedTopologies": [
            {"matchLabelExpressions": [{"key": "a", "values": ["x", "y"]}, {"key": "a", "values": ["x"]}]},
            {"matchLabelExpressions": [{"key": "a", "values": ["x"]}, {"key": "a", "values": ["y", "x"]}]}]}),
        &[
            r#"allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "a""#,
            r#"allowedTopologies[1].matchLabelExpressions[1].key: Duplicate value: "a""#,
            r#"allowedTopologies[1].matchLabelExpressions: Duplicate value: """#,
        ],
    );
}

#[test]
fn a_capacity_is_judged_again_when_it_changes_and_its_largest_volume_never() {
    let capacity = |class: &str, size: &str, largest: &str| json!({"storageClassName": class, "capacity": size, "maximumVolumeSize": largest});
    let negative = r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#;
    refuses("CSIStorageCapacity", capacity("fast", "1Gi", "-1"), &[]);
    refuses("CSIStorageCapacity", capacity("fast", "-1", "1Gi"), &[negative]);
    refuses_change(
        "CSIStorageCapacity",
        capacity("fast", "1Gi", "1Gi"),
        capacity("fast", "-1", "1Gi"),
        &[negative],
    );
}

#[test]
fn a_binding_mode_that_is_empty_is_given() {
    refuses(
        "StorageClass",
        json!({"provisioner": "a/b", "volumeBindingMode": ""}),
        &[
            r#"volumeBindingMode: Unsupported value: "": supported values: "Immediate", "WaitForFirstConsumer""#,
        ],
    );
}
