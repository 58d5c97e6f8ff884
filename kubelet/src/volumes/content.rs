//! What configMap, secret, downwardAPI and projected volumes hold: files as values, computed from what the pod refers to.

use crate::launch::env::present;
use crate::launch::{ConfigError, Lookup, Surroundings, fields, text};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use std::collections::BTreeMap;

/// Upstream's default mode.
const MODE: i32 = 0o644;
/// How long a token lives when the pod does not say.
const TOKEN_SECONDS: i64 = 3600;

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, File>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub bytes: Vec<u8>,
    /// Permissions.
    pub mode: u32,
}

/// Which token a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenKey {
    /// For whom; empty is the apiserver.
    pub audience: String,
    /// How long it lives.
    pub seconds: i64,
}

impl TokenKey {
    fn of(source: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(TOKEN_SECONDS),
        }
    }
}

/// What files are made from.
pub struct Source<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its spec.
    pub spec: &'a PodSpec,
    /// Its address.
    pub ip: &'a str,
    /// ConfigMaps and Secrets.
    pub objects: &'a dyn Lookup,
    /// Tokens that were fetched.
    pub tokens: &'a BTreeMap<TokenKey, String>,
    /// The node.
    pub around: &'a Surroundings,
}

/// The tokens that a pod's volumes need.
pub fn tokens_of(spec: &PodSpec) -> Vec<TokenKey> {
    let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()).map(TokenKey::of).collect()
}

/// The files of a volume; `None` when it is of another kind.
///
/// # Errors
/// Something that it refers to is not there.
pub fn of_volume(source: &Source<'_>, volume: &Volume) -> Result<Option<Payload>, ConfigError> {
    let mut out = Payload::new();
    if let Some(map) = &volume.config_map {
        let (items, mode) = (map.items.as_deref(), map.default_mode.unwrap_or(MODE));
        source.add_config_map(&mut out, &map.name, map.optional, items, mode)?;
    } else if let Some(secret) = &volume.secret {
        let (items, mode) = (secret.items.as_deref(), secret.default_mode.unwrap_or(MODE));
        source.add_secret(&mut out, text(secret.secret_name.as_ref()), secret.optional, items, mode)?;
    } else if let Some(own) = &volume.downward_api {
        source.add_fields(&mut out, own.items.as_deref(), own.default_mode.unwrap_or(MODE))?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(MODE);
        for part in projected.sources.iter().flatten() {
            source.add_part(&mut out, part, mode)?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(out))
}

impl Source<'_> {
    fn add_part(&self, out: &mut Payload, part: &VolumeProjection, mode: i32) -> Result<(), ConfigError> {
        if let Some(map) = &part.config_map {
            self.add_config_map(out, &map.name, map.optional, map.items.as_deref(), mode)?;
        }
        if let Some(secret) = &part.secret {
            self.add_secret(out, &secret.name, secret.optional, secret.items.as_deref(), mode)?;
        }
        if let Some(own) = &part.downward_api {
            self.add_fields(out, own.items.as_deref(), mode)?;
        }
        if let Some(token) = &part.service_account_token {
            let value = self.tokens.get(&TokenKey::of(token)).ok_or_else(|| {
                ConfigError::Impossible("failed to fetch token: none was issued yet".to_owned())
            })?;
            // Whoever runs as another user than root could not read it otherwise; upstream does the same.
            let shared = self.spec.security_context.as_ref().and_then(|context| context.fs_group).is_some();
            let mode = if shared { 0o600 } else { mode };
            insert(out, &token.path, value.clone().into_bytes(), mode)?;
        }
        if part.cluster_trust_bundle.is_some() {
            return Err(ConfigError::Impossible("clusterTrustBundle volumes are not supported".to_owned()));
        }
        Ok(())
    }

    fn add_config_map(
        &self,
        out: &mut Payload,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
        mode: i32,
    ) -> Result<(), ConfigError> {
        let Some(map) = present("configmap", name, optional, self.objects.config_map(name))? else {
            return Ok(());
        };
        let texts = map.data.iter().flatten().map(|(key, value)| (key, value.as_bytes()));
        let bytes = map.binary_data.iter().flatten().map(|(key, value)| (key, value.0.as_slice()));
        add_keys(out, &texts.chain(bytes).collect(), items, optional, mode)
    }

    fn add_secret(
        &self,
        out: &mut Payload,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
        mode: i32,
    ) -> Result<(), ConfigError> {
        let Some(secret) = present("secret", name, optional, self.objects.secret(name))? else {
            return Ok(());
        };
        let bytes = secret.data.iter().flatten().map(|(key, value)| (key, value.0.as_slice()));
        add_keys(out, &bytes.collect(), items, optional, mode)
    }

    fn add_fields(
        &self,
        out: &mut Payload,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: i32,
    ) -> Result<(), ConfigError> {
        for item in items.unwrap_or_default() {
            let value = if let Some(field) = &item.field_ref {
                fields::of_pod(self.pod, &field.field_path, self.ip, self.around)?
            } else if let Some(selector) = &item.resource_field_ref {
                fields::of_container(self.spec, None, selector, self.around)?
            } else {
                continue;
            };
            insert(out, &item.path, value.into_bytes(), item.mode.unwrap_or(mode))?;
        }
        Ok(())
    }
}

fn add_keys(
    out: &mut Payload,
    data: &BTreeMap<&String, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<(), ConfigError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return data.iter().try_for_each(|(key, bytes)| insert(out, key, bytes.to_vec(), mode));
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => insert(out, &item.path, bytes.to_vec(), item.mode.unwrap_or(mode))?,
            None if optional == Some(true) => {}
            None => {
                let text = format!("references non-existent config key: {}", item.key);
                return Err(ConfigError::Impossible(text));
            }
        }
    }
    Ok(())
}

/// A path from the API is never trusted to stay inside the volume.
fn insert(out: &mut Payload, path: &str, bytes: Vec<u8>, mode: i32) -> Result<(), ConfigError> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|part| part.is_empty() || part == "." || part.starts_with(".."));
    if bad {
        return Err(ConfigError::Impossible(format!("invalid path {path:?}")));
    }
    let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
    out.insert(path.to_owned(), File { bytes, mode });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::{env, fields::tests::around};
    use serde_json::{Value, json};

    fn files(volume: &Value) -> Result<Vec<String>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "labels": { "a": "1" } },
            "spec": { "containers": [{ "name": "c" }], "volumes": [volume] },
        }))
        .unwrap();
        let spec = pod.spec.as_ref().unwrap();
        let tokens =
            BTreeMap::from([(TokenKey { audience: String::new(), seconds: 3600 }, "TOKEN".to_owned())]);
        let source = Source {
            pod: &pod,
            spec,
            ip: "10.1.1.1",
            objects: &env::tests::Fixed,
            tokens: &tokens,
            around: &around(),
        };
        let payload =
            of_volume(&source, &spec.volumes.as_ref().unwrap()[0]).map_err(|error| error.to_string())?;
        let line = |(path, file): (&String, &File)| {
            format!("{path}:{:o}:{}", file.mode, String::from_utf8_lossy(&file.bytes))
        };
        Ok(payload.unwrap().iter().map(line).collect())
    }

    #[test]
    fn volumes_hold_what_they_refer_to() {
        let projected = json!({ "name": "v", "projected": { "defaultMode": 0o400, "sources": [
            { "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } },
            { "configMap": { "name": "c", "items": [{ "key": "k", "path": "sub/k" }] } },
            { "secret": { "name": "s" } },
            { "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
        ] } });
        for (volume, expected) in [
            (json!({ "name": "v", "configMap": { "name": "c" } }), vec!["k:644:v", "l:644:w"]),
            (
                json!({ "name": "v", "secret": { "secretName": "s", "defaultMode": 0o600 } }),
                vec!["p:600:secret"],
            ),
            (json!({ "name": "v", "secret": { "secretName": "none", "optional": true } }), vec![]),
            (
                json!({ "name": "v", "configMap": { "name": "c", "items": [{ "key": "k", "path": "x", "mode": 0o640 }] } }),
                vec!["x:640:v"],
            ),
            (projected, vec!["labels:400:a=\"1\"", "p:400:secret", "sub/k:400:v", "token:400:TOKEN"]),
        ] {
            assert_eq!(files(&volume).unwrap(), expected, "{volume}");
        }
    }

    #[test]
    fn what_cannot_be_held_is_told() {
        for (volume, expected) in [
            (json!({ "name": "v", "configMap": { "name": "x" } }), "configmap \"x\" not found"),
            (
                json!({ "name": "v", "configMap": { "name": "c", "items": [{ "key": "x", "path": "x" }] } }),
                "references non-existent config key: x",
            ),
            (
                json!({ "name": "v", "configMap": { "name": "c", "items": [{ "key": "k", "path": "../x" }] } }),
                "invalid path \"../x\"",
            ),
        ] {
            assert_eq!(files(&volume).unwrap_err(), expected);
        }
    }
}
