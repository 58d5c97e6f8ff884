//! ServiceAccount: every pod runs as one, and finds its token, CA and namespace in a projected volume.

use super::{Attributes, Context};
use coracle_api::meta;
use coracle_api::status::Status;
use coracle_daemon::{clock, random};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
const DEFAULT: &str = "default";
/// A new namespace gets its default account from a controller: a pod may come first and waits a little, as upstream.
const DEFAULT_TRIES: u32 = 10;
const DEFAULT_WAIT: Duration = Duration::from_millis(100);

/// Fills `serviceAccountName`, `imagePullSecrets`, the volume and its mounts of a new pod.
pub async fn mutate(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if !attributes.creates("pods") {
        return Ok(());
    }
    if pod["metadata"]["annotations"][MIRROR].is_string() {
        return mirror_pod(attributes, pod);
    }
    let named = pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty());
    let name = named.unwrap_or(DEFAULT).to_owned();
    pod["spec"]["serviceAccountName"] = json!(name);
    pod["spec"]["serviceAccount"] = json!(name);
    let namespace = &attributes.request.namespace;
    let Some(account) = account(context, namespace, &name).await? else {
        let cause =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(attributes.forbidden(pod, &cause));
    };
    let automount = [&pod["spec"], account.as_ref()]
        .iter()
        .find_map(|object| object["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if automount {
        mount_token(&mut pod["spec"]);
    }
    let has_own = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty());
    if !has_own && account["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty()) {
        pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    Ok(())
}

async fn account(context: &Context, namespace: &str, name: &str) -> Result<Option<Arc<Value>>, Status> {
    let tries = if name == DEFAULT { DEFAULT_TRIES } else { 1 };
    for attempt in 0..tries {
        if attempt > 0 {
            clock::sleep(DEFAULT_WAIT).await;
        }
        if let Some(account) = context.find("", "serviceaccounts", namespace, name).await? {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

/// A mirror pod only shows what a kubelet runs from a file: it may not use the API.
fn mirror_pod(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Err(attributes.forbidden(pod, "a mirror pod may not reference service accounts"));
    }
    let volumes = pod["spec"]["volumes"].as_array();
    for volume in volumes.into_iter().flatten() {
        let sources = volume["projected"]["sources"].as_array();
        if sources.into_iter().flatten().any(|source| source["serviceAccountToken"].is_object()) {
            let cause = "a mirror pod may not use ServiceAccountToken volume projections";
            return Err(attributes.forbidden(pod, cause));
        }
    }
    Ok(())
}

fn mount_token(spec: &mut Value) {
    let existing = spec["volumes"].as_array().into_iter().flatten().find_map(|volume| {
        volume["name"].as_str().filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned)
    });
    let has_volume = existing.is_some();
    let name = existing.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random::name_suffix(5)));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter(|container| container.is_object()) {
            let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            container["volumeMounts"] = json!(mounts);
            needed = true;
        }
    }
    if needed && !has_volume {
        let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
        volumes.push(token_volume(&name));
        spec["volumes"] = json!(volumes);
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        // 3607 tells the issuer of tokens that nobody chose it (see TokenRequest).
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Whether a pod mirrors one of a kubelet's own.
pub fn is_mirror(pod: &Value) -> bool {
    !meta::name(pod).is_empty() && pod["metadata"]["annotations"][MIRROR].is_string()
}
