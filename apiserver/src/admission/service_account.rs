//! ServiceAccount: every pod runs as one, and finds its token, CA and namespace in a projected volume.

use super::{Attributes, Context, UPDATE};
use coracle_api::meta;
use coracle_api::status::Status;
use coracle_daemon::{clock, random};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const DEFAULT: &str = "default";
/// A new namespace gets its default account from a controller: a pod may come first and waits a little, as upstream.
const DEFAULT_TRIES: u32 = 10;
const DEFAULT_WAIT: Duration = Duration::from_millis(100);

/// Fills `serviceAccountName`, `imagePullSecrets`, the volume and its mounts of a new pod.
pub async fn mutate(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if !attributes.creates("pods") {
        return Ok(());
    }
    if meta::is_mirror(pod) {
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
    if enforces(&account) {
        references(&account, &pod["spec"]).map_err(|cause| attributes.forbidden(pod, &cause))?;
    }
    Ok(())
}

/// Holds ephemeral containers to the Secrets of the pod's account, where that is asked for.
pub async fn validate(context: &Context, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if attributes.operation != UPDATE || !attributes.is("pods/ephemeralcontainers") {
        return Ok(());
    }
    let (namespace, name) = (&attributes.request.namespace, pod["spec"]["serviceAccountName"].as_str());
    let Some(account) =
        account(context, namespace, name.unwrap_or_default()).await?.filter(|own| enforces(own))
    else {
        return Ok(());
    };
    of_containers(&pod["spec"]["ephemeralContainers"], "ephemeral container", &account)
        .map_err(|cause| Status::new(500, "", cause))
}

/// Whether pods may refer to no other Secrets than those of their account.
fn enforces(account: &Value) -> bool {
    let asked = account["metadata"]["annotations"][ENFORCE].as_str();
    asked.and_then(meta::parse_bool).unwrap_or(false)
}

fn has(account: &Value, list: &str, name: &Value) -> bool {
    account[list].as_array().is_some_and(|list| list.iter().any(|own| own["name"] == *name))
}

/// What of a pod refers to Secrets that its account does not.
fn references(account: &Value, spec: &Value) -> Result<(), String> {
    let own = meta::name(account);
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let secret = &volume["secret"];
        let name = secret["secretName"].as_str().unwrap_or_default();
        if secret.is_object() && !has(account, "secrets", &json!(name)) {
            return Err(format!(
                "volume with secret.secretName=\"{name}\" is not allowed because service account {own} does not reference that secret"
            ));
        }
    }
    of_containers(&spec["initContainers"], "init container", account)?;
    of_containers(&spec["containers"], "container", account)?;
    for (at, secret) in spec["imagePullSecrets"].as_array().into_iter().flatten().enumerate() {
        let name = secret["name"].as_str().unwrap_or_default();
        if !has(account, "imagePullSecrets", &json!(name)) {
            return Err(format!(
                "imagePullSecrets[{at}].name=\"{name}\" is not allowed because service account {own} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

fn of_containers(containers: &Value, what: &str, account: &Value) -> Result<(), String> {
    for container in containers.as_array().into_iter().flatten() {
        let env = container["env"].as_array().into_iter().flatten();
        let named = env.map(|env| {
            (
                &env["valueFrom"]["secretKeyRef"],
                format!("envVar {}", env["name"].as_str().unwrap_or_default()),
            )
        });
        let from = container["envFrom"].as_array().into_iter().flatten();
        let all = named.chain(from.map(|from| (&from["secretRef"], "envFrom".to_owned())));
        for (reference, place) in all.filter(|(reference, _)| reference.is_object()) {
            let name = reference["name"].as_str().unwrap_or_default();
            if !has(account, "secrets", &json!(name)) {
                return Err(format!(
                    "{what} {} with {place} referencing secret.secretName=\"{name}\" is not allowed because service account {} does not reference that secret",
                    container["name"].as_str().unwrap_or_default(),
                    meta::name(account)
                ));
            }
        }
    }
    Ok(())
}

/// Whether something names a Secret.
fn names_secret(value: &Value) -> bool {
    const REFERENCES: [&str; 4] = ["secret", "secretRef", "secretKeyRef", "nodePublishSecretRef"];
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    match value {
        Value::Array(items) => items.iter().any(names_secret),
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let named = (REFERENCES.contains(&key.as_str()) && is_text(&value["name"]))
                || (key == "secretName" && is_text(value))
                || (key == "imagePullSecrets"
                    && value.as_array().is_some_and(|list| list.iter().any(|one| is_text(&one["name"]))));
            named || names_secret(value)
        }),
        _ => false,
    }
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
    if names_secret(&pod["spec"]) {
        return Err(attributes.forbidden(pod, "a mirror pod may not reference secrets"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_strict_account_refer_to_its_own_secrets_only() {
        let account = json!({"metadata": {"name": "sa", "annotations": {ENFORCE: "true"}},
            "secrets": [{"name": "known"}], "imagePullSecrets": [{"name": "pull"}]});
        let no = |what: &str| {
            format!(
                "{what} referencing secret.secretName=\"x\" is not allowed because service account sa does not reference that secret"
            )
        };
        let env = |name: &str| json!([{"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name}}}]}]);
        let rows = [
            (json!({"containers": env("known"), "imagePullSecrets": [{"name": "pull"}]}), None),
            (json!({"containers": env("x")}), Some(no("container c with envVar A"))),
            (json!({"initContainers": env("x")}), Some(no("init container c with envVar A"))),
            (
                json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "x"}}]}]}),
                Some(no("container c with envFrom")),
            ),
            (
                json!({"volumes": [{"secret": {"secretName": "x"}}]}),
                Some("volume with secret.secretName=\"x\" is not allowed because service account sa does not reference that secret".to_owned()),
            ),
            (
                json!({"imagePullSecrets": [{"name": "x"}]}),
                Some("imagePullSecrets[0].name=\"x\" is not allowed because service account sa does not reference that imagePullSecret".to_owned()),
            ),
        ];
        assert!(enforces(&account) && !enforces(&json!({"metadata": {}})));
        for (spec, want) in rows {
            assert_eq!(references(&account, &spec).err(), want, "{spec}");
        }
    }

    #[test]
    fn secrets_are_seen_wherever_they_are_named() {
        for (spec, want) in [
            (json!({"volumes": [{"secret": {"secretName": "s"}}]}), true),
            (json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "s"}}]}}]}), true),
            (json!({"containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}), true),
            (json!({"imagePullSecrets": [{"name": "s"}]}), true),
            (json!({"imagePullSecrets": [], "containers": [{"name": "secret"}]}), false),
            (json!({"volumes": [{"configMap": {"name": "s"}}]}), false),
        ] {
            assert_eq!(names_secret(&spec), want, "{spec}");
        }
    }
}
