//! Which authorizers are asked, in which order: `--authorization-mode` and its flags, or `--authorization-config`.

use super::webhook::{Settings, Webhook};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Flags, named as kube-apiserver's.
#[derive(Clone, Debug, clap::Args)]
pub struct AuthorizationArgs {
    /// Authorizers, asked in this order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny.
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC")]
    pub authorization_mode: Vec<String>,
    /// Kubeconfig of the server that Webhook asks.
    #[arg(long)]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReviews that it is sent.
    #[arg(long, default_value = "v1beta1")]
    pub authorization_webhook_version: String,
    /// How long it is remembered that something is allowed, e.g. 5m0s.
    #[arg(long, default_value = "5m0s", value_parser = crate::flags::duration)]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long it is remembered that something is not.
    #[arg(long, default_value = "30s", value_parser = crate::flags::duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
    /// AuthorizationConfiguration (apiserver.config.k8s.io/v1), instead of the flags above.
    #[arg(long)]
    pub authorization_config: Option<PathBuf>,
}

/// One authorizer.
#[derive(Clone)]
pub enum Mode {
    /// What kubelets may.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Another server.
    Webhook(Arc<Webhook>),
    /// Everything.
    AlwaysAllow,
    /// Nothing.
    AlwaysDeny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    authorizers: Vec<Authorizer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorizer {
    r#type: String,
    #[serde(default)]
    name: String,
    webhook: Option<WebhookFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookFile {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    #[serde(default)]
    timeout: String,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    #[serde(default)]
    connection_info: Value,
    #[serde(default)]
    match_conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    expression: String,
}

impl AuthorizationArgs {
    /// Whether the flag lets everybody do everything.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.authorization_config.is_none()
            && self.authorization_mode.iter().any(|mode| mode == "AlwaysAllow")
    }

    /// The authorizers.
    ///
    /// # Errors
    /// A flag or file cannot be used.
    pub fn modes(&self) -> anyhow::Result<Vec<Mode>> {
        if let Some(path) = &self.authorization_config {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            return structured(&text).with_context(|| {
                format!("failed to load AuthorizationConfiguration from file {}", path.display())
            });
        }
        let mut modes = Vec::new();
        for (index, name) in self.authorization_mode.iter().enumerate() {
            ensure!(
                !self.authorization_mode[..index].contains(name),
                "authorization-mode {:?} has mode specified more than once",
                self.authorization_mode
            );
            modes.push(match plain(name) {
                Some(mode) => mode,
                None if name == "Webhook" => {
                    let Some(path) = &self.authorization_webhook_config_file else {
                        bail!("authorization-mode Webhook's authorization config file not passed");
                    };
                    let settings = Settings {
                        version: self.authorization_webhook_version.clone(),
                        limit: Duration::from_secs(30),
                        authorized: self.authorization_webhook_cache_authorized_ttl,
                        unauthorized: self.authorization_webhook_cache_unauthorized_ttl,
                        deny_on_failure: false,
                        conditions: Vec::new(),
                    };
                    Mode::Webhook(Arc::new(Webhook::new(path, settings)?))
                }
                None if name == "ABAC" => bail!(
                    "authorization-mode ABAC is not part of this server; say it in roles, or let a webhook authorize"
                ),
                None => bail!("authorization-mode {name:?} is not a valid mode"),
            });
        }
        ensure!(!modes.is_empty(), "at least one authorization-mode must be passed");
        Ok(modes)
    }
}

fn plain(name: &str) -> Option<Mode> {
    Some(match name {
        "Node" => Mode::Node,
        "RBAC" => Mode::Rbac,
        "AlwaysAllow" => Mode::AlwaysAllow,
        "AlwaysDeny" => Mode::AlwaysDeny,
        _ => return None,
    })
}

fn structured(text: &str) -> anyhow::Result<Vec<Mode>> {
    let file: File = serde_yaml_ng::from_str(text)?;
    let known = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
    ensure!(
        file.kind == "AuthorizationConfiguration" && known.contains(&file.api_version.as_str()),
        "no kind {:?} is registered for version {:?}",
        file.kind,
        file.api_version
    );
    ensure!(
        !file.authorizers.is_empty(),
        "authorizers: Required value: at least one authorization mode must be defined"
    );
    let mut names = Vec::new();
    let mut modes = Vec::new();
    for (index, authorizer) in file.authorizers.into_iter().enumerate() {
        let at = format!("authorizers[{index}]");
        ensure!(!authorizer.name.is_empty(), "{at}.name: Required value");
        ensure!(!names.contains(&authorizer.name), "{at}.name: Duplicate value: {:?}", authorizer.name);
        names.push(authorizer.name);
        modes.push(match (authorizer.r#type.as_str(), authorizer.webhook) {
            ("Webhook", Some(webhook)) => asked(webhook).with_context(|| format!("{at}.webhook"))?,
            ("Webhook", None) => bail!("{at}.webhook: Required value: required when type=Webhook"),
            (_, Some(_)) => bail!("{at}.webhook: Invalid value: may only be specified when type=Webhook"),
            (name, None) => plain(name).with_context(|| format!("{at}.type: Unsupported value: {name:?}"))?,
        });
    }
    Ok(modes)
}

fn asked(file: WebhookFile) -> anyhow::Result<Mode> {
    let time = |name: &str, text: Option<&str>, otherwise: u64| match text {
        None | Some("") => Ok(Duration::from_secs(otherwise)),
        Some(text) => {
            crate::flags::duration(text).with_context(|| format!("{name}: Invalid value: {text:?}"))
        }
    };
    let limit = time("timeout", Some(&file.timeout), 0)?;
    ensure!(
        !limit.is_zero() && limit <= Duration::from_secs(30),
        "timeout: Invalid value: must be > 0s and <= 30s"
    );
    let deny_on_failure = match file.failure_policy.as_str() {
        "Deny" => true,
        "NoOpinion" => false,
        other => {
            bail!("failurePolicy: Unsupported value: {other:?}: supported values: \"NoOpinion\", \"Deny\"")
        }
    };
    ensure!(
        file.match_conditions.is_empty() || file.match_condition_subject_access_review_version == "v1",
        "matchConditionSubjectAccessReviewVersion: Required value"
    );
    let connection = &file.connection_info;
    ensure!(
        connection["type"] == "KubeConfigFile",
        "connectionInfo.type: Unsupported value: {}: supported values: \"KubeConfigFile\"",
        connection["type"]
    );
    let Some(path) = connection["kubeConfigFile"].as_str() else {
        bail!("connectionInfo.kubeConfigFile: Required value");
    };
    let settings = Settings {
        version: file.subject_access_review_version,
        limit,
        authorized: time("authorizedTTL", file.authorized_ttl.as_deref(), 300)?,
        unauthorized: time("unauthorizedTTL", file.unauthorized_ttl.as_deref(), 30)?,
        deny_on_failure,
        conditions: file.match_conditions.into_iter().map(|condition| condition.expression).collect(),
    };
    Ok(Mode::Webhook(Arc::new(Webhook::new(path.as_ref(), settings)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_configuration_is_refused() {
        let with = |authorizers: &str| {
            format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: {authorizers}"
            )
        };
        let hook = |more: &str| {
            with(&format!(
                "[{{type: Webhook, name: w, webhook: {{timeout: 3s, subjectAccessReviewVersion: v1, connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /none}}, {more}}}}}]"
            ))
        };
        let cases = [
            (with("[]"), "at least one authorization mode must be defined"),
            (with("[{type: RBAC}]"), "authorizers[0].name: Required value"),
            (
                with("[{type: RBAC, name: a}, {type: Node, name: a}]"),
                "authorizers[1].name: Duplicate value: \"a\"",
            ),
            (with("[{type: Roles, name: a}]"), "authorizers[0].type: Unsupported value: \"Roles\""),
            (
                with("[{type: Webhook, name: a}]"),
                "authorizers[0].webhook: Required value: required when type=Webhook",
            ),
            (hook("failurePolicy: Perhaps"), "failurePolicy: Unsupported value: \"Perhaps\""),
            (
                hook("failurePolicy: Deny, matchConditions: [{expression: 'true'}]"),
                "matchConditionSubjectAccessReviewVersion: Required value",
            ),
            (hook("failurePolicy: Deny"), "cannot read /none"),
        ];
        for (text, why) in cases {
            let told = structured(&text).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(told.contains(why), "{text}: {told}");
        }
        assert_eq!(
            structured(&with("[{type: Node, name: n}, {type: RBAC, name: r}]")).map(|modes| modes.len()).ok(),
            Some(2)
        );
    }
}
