//! `EncryptionConfiguration` (apiserver.config.k8s.io/v1): read and checked, with Kubernetes' words for what is wrong.

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::status::{FieldError, GroupResource};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    resources: Vec<Rule>,
}

/// Which resources, and how they are kept: the first provider writes, all read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `secrets`, `deployments.apps`, `*.`, `*.apps` or `*.*`.
    #[serde(default)]
    pub resources: Vec<String>,
    /// In the order in which they are tried.
    #[serde(default)]
    pub providers: Vec<Provider>,
}

/// Exactly one of these.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// AES-GCM.
    pub aesgcm: Option<Keys>,
    /// AES-CBC.
    pub aescbc: Option<Keys>,
    /// XSalsa20 and Poly1305.
    pub secretbox: Option<Keys>,
    /// As it is.
    pub identity: Option<Empty>,
    /// A key management service.
    pub kms: Option<Kms>,
}

/// `{}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Keys in order; the first writes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// See [`Key`].
    #[serde(default)]
    pub keys: Vec<Key>,
}

/// A key that stands in the file.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A part of the stored prefix.
    #[serde(default)]
    pub name: String,
    /// Base64.
    #[serde(default)]
    secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Key({:?})", self.name)
    }
}

impl Key {
    /// The key's bytes; empty where they are no base64, which [`read`] refuses.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.secret).unwrap_or_default()
    }
}

/// A plugin on a socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kms {
    /// `v2`; `v1` when absent, which is no longer taken.
    api_version: Option<String>,
    /// A part of the stored prefix.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    cachesize: Option<i64>,
    /// `unix:///PATH`.
    #[serde(default)]
    pub endpoint: String,
    timeout: Option<String>,
}

impl Kms {
    /// How long a call may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.timeout.as_deref().and_then(positive).unwrap_or(Duration::from_secs(3))
    }
}

fn positive(text: &str) -> Option<Duration> {
    crate::flags::duration(text).ok().filter(|limit| !limit.is_zero())
}

/// Group and plural of a name in the file; `*` stands for any.
#[must_use]
pub fn named(text: &str) -> GroupResource {
    let (resource, group) = text.split_once('.').unwrap_or((text, ""));
    GroupResource::new(group, resource)
}

/// The rules of a file.
///
/// # Errors
/// It cannot be read, or breaks a rule.
pub fn read(text: &str) -> anyhow::Result<Vec<Rule>> {
    ensure!(!text.trim().is_empty(), "encryption provider configuration file is empty");
    let file: File =
        serde_yaml_ng::from_str(text).context("error decoding encryption provider configuration")?;
    if file.kind != "EncryptionConfiguration" || file.api_version != "apiserver.config.k8s.io/v1" {
        bail!("got unexpected config type: {}, Kind={}", file.api_version, file.kind);
    }
    let faults = faults(&file.resources);
    if !faults.is_empty() {
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        bail!("{}", if told.len() == 1 { told.concat() } else { format!("[{}]", told.join(", ")) });
    }
    Ok(file.resources)
}

fn at_least_one(at: &str, what: &str) -> FieldError {
    FieldError::required(at, format!("at least one {what} is required"))
}

fn faults(rules: &[Rule]) -> Vec<FieldError> {
    if rules.is_empty() {
        return vec![at_least_one("resources", "resources")];
    }
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        let resources = format!("resources[{index}].resources");
        let providers = format!("resources[{index}].providers");
        if rule.resources.is_empty() {
            faults.push(at_least_one(&resources, &resources));
        }
        overlaps(&rule.resources, &resources, &mut faults);
        for (at, name) in rule.resources.iter().enumerate() {
            if let Some(why) = misnamed(name) {
                faults.push(FieldError::invalid(format!("{resources}[{at}]"), &json!(name), why));
            }
        }
        if rule.providers.is_empty() {
            faults.push(at_least_one(&providers, &providers));
        }
        for (at, provider) in rule.providers.iter().enumerate() {
            provider_faults(provider, &format!("{providers}[{at}]"), &mut names, &mut faults);
        }
    }
    faults
}

fn overlaps(names: &[String], at: &str, faults: &mut Vec<FieldError>) {
    let parsed: Vec<GroupResource> = names.iter().map(|name| named(name)).collect();
    let any = GroupResource::new("*", "*");
    let (mut twice, mut masked) = (false, false);
    for (i, one) in parsed.iter().enumerate() {
        for other in parsed.iter().skip(i + 1) {
            let star = one.resource == "*" || other.resource == "*";
            twice |= one == other;
            masked |= one != other && (*one == any || *other == any || (one.group == other.group && star));
        }
    }
    let value = json!(names);
    if twice {
        faults.push(FieldError::invalid(at, &value, "the same resource cannot be specified multiple times"));
    }
    if masked {
        faults.push(FieldError::invalid(at, &value, "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"));
    }
}

fn misnamed(name: &str) -> Option<&'static str> {
    let of = named(name);
    if name.chars().any(char::is_uppercase) {
        return Some("resource name should not contain capital letters");
    }
    if name == "*" {
        return Some(
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        );
    }
    if ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"].contains(&name) {
        return Some("resources which do not have REST API/s cannot be encrypted");
    }
    match (of.group.as_str(), of.resource.as_str()) {
        ("events.k8s.io", _) => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        ("extensions", _) => Some("'extensions' group has been removed and cannot be used for encryption"),
        ("*", resource) if resource != "*" => {
            Some("encrypting the same resource across groups is not supported")
        }
        _ => None,
    }
}

fn provider_faults(
    provider: &Provider,
    at: &str,
    names: &mut BTreeSet<String>,
    faults: &mut Vec<FieldError>,
) {
    let Provider { aesgcm, aescbc, secretbox, identity, kms } = provider;
    let given = [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
    let wrong = |why: &str| FieldError::invalid(at, &Value::Null, why);
    match given.iter().filter(|given| **given).count() {
        0 => faults.push(wrong("provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")),
        1 => {}
        _ => faults.push(wrong("more than one provider specified in a single element, should split into different list elements")),
    }
    let lists = [
        ("aesgcm", aesgcm, &[16, 24, 32][..]),
        ("aescbc", aescbc, &[16, 24, 32]),
        ("secretbox", secretbox, &[32]),
    ];
    for (name, keys, lengths) in lists {
        if let Some(keys) = keys {
            key_faults(&keys.keys, &format!("{at}.{name}.keys"), lengths, faults);
        }
    }
    if let Some(kms) = kms {
        kms_faults(kms, &format!("{at}.kms"), names, faults);
    }
}

fn key_faults(keys: &[Key], at: &str, lengths: &[usize], faults: &mut Vec<FieldError>) {
    if keys.is_empty() {
        faults.push(at_least_one(at, "keys"));
    }
    for (index, key) in keys.iter().enumerate() {
        let missing = |field: &str| {
            FieldError::required(
                format!("{at}[{index}].{field}"),
                format!("{field} is a mandatory field for a key"),
            )
        };
        if key.name.is_empty() {
            faults.push(missing("name"));
        }
        if key.secret.is_empty() {
            faults.push(missing("secret"));
            continue;
        }
        // What is wrong with a key is told without the key.
        let wrong =
            |why: String| FieldError::invalid(format!("{at}[{index}].secret"), &json!("REDACTED"), why);
        match STANDARD.decode(&key.secret) {
            Err(_) => faults.push(wrong("secrets must be base64 encoded".to_owned())),
            Ok(bytes) if !lengths.contains(&bytes.len()) => {
                let wanted: Vec<String> = lengths.iter().map(ToString::to_string).collect();
                faults.push(wrong(format!(
                    "secret is not of the expected length, got {}, expected one of [{}]",
                    bytes.len(),
                    wanted.join(" ")
                )));
            }
            Ok(_) => {}
        }
    }
}

fn kms_faults(kms: &Kms, at: &str, names: &mut BTreeSet<String>, faults: &mut Vec<FieldError>) {
    let mut wrong = |field: &str, value: Value, why: String| {
        faults.push(FieldError::invalid(format!("{at}.{field}"), &value, why));
    };
    let name = &kms.name;
    if name.contains(':') {
        wrong("name", json!(name), format!("invalid KMS provider name {name}, must not contain ':'"));
    }
    if !name.is_empty() && !names.insert(name.clone()) {
        wrong("name", json!(name), format!("duplicate KMS provider name {name}, names must be unique"));
    }
    if let Some(timeout) = kms.timeout.as_ref().filter(|timeout| positive(timeout).is_none()) {
        wrong("timeout", json!(timeout), "timeout should be a positive value".to_owned());
    }
    if kms.endpoint.is_empty() {
        wrong("endpoint", json!(""), "endpoint is a mandatory field for a kms".to_owned());
    } else if !kms.endpoint.starts_with("unix://") {
        let scheme = kms.endpoint.split_once(':').map_or("", |(scheme, _)| scheme);
        let why = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
        wrong("endpoint", json!(kms.endpoint), why);
    }
    if let Some(size) = kms.cachesize {
        wrong("cachesize", json!(size), "cachesize is not supported in v2".to_owned());
    }
    match kms.api_version.as_deref() {
        Some("v2") => {}
        // As Kubernetes without its KMSv1 feature gate.
        None | Some("v1") => {
            wrong(
                "apiVersion",
                json!("v1"),
                "KMSv1 is deprecated and disabled, use KMSv2 instead".to_owned(),
            );
        }
        Some(other) => {
            let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
            wrong("apiVersion", json!(other), why.to_owned());
        }
    }
    if name.is_empty() {
        faults.push(FieldError::required(format!("{at}.name"), "name is a mandatory field for a provider"));
    }
}
