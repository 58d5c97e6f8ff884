//! Issuers of OpenID Connect: the `--oidc-…` flags for one, or the `AuthenticationConfiguration` file for several.

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Flags, named as kube-apiserver's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OidcArgs {
    /// URL of the OpenID issuer; only https.
    #[arg(long, requires = "oidc_client_id", conflicts_with = "authentication_config")]
    pub oidc_issuer_url: Option<String>,
    /// Audience that its tokens must be for.
    #[arg(long, requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// CA of the issuer's server; this machine's authorities when not given.
    #[arg(long)]
    pub oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user's name.
    #[arg(long, default_value = "sub")]
    pub oidc_username_claim: String,
    /// Put before it; the issuer's URL and `#` when not given and the claim is not email; `-` for nothing.
    #[arg(long, default_value = "")]
    pub oidc_username_prefix: String,
    /// Claim that is the user's groups.
    #[arg(long, default_value = "")]
    pub oidc_groups_claim: String,
    /// Put before each of them.
    #[arg(long, default_value = "")]
    pub oidc_groups_prefix: String,
    /// KEY=VALUE that a token must claim; may be given several times.
    #[arg(long)]
    pub oidc_required_claim: Vec<String>,
    /// Algorithms that tokens may be signed with.
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    pub oidc_signing_algs: Vec<String>,
    /// AuthenticationConfiguration (apiserver.config.k8s.io/v1).
    #[arg(long)]
    pub authentication_config: Option<PathBuf>,
}

/// All algorithms that are known.
pub const ALGORITHMS: [&str; 8] = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"];

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct File {
    api_version: String,
    kind: String,
    /// Issuers.
    pub jwt: Vec<Jwt>,
    /// Whether requests without credentials are let in.
    pub anonymous: Option<Anonymous>,
}

/// See [`File::anonymous`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Anonymous {
    /// At all.
    pub enabled: bool,
    /// And only on these paths, if any are given.
    pub conditions: Vec<PathCondition>,
}

/// See [`Anonymous::conditions`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathCondition {
    /// The whole path.
    pub path: String,
}

/// One issuer, and what its tokens mean here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Jwt {
    /// See [`Issuer`].
    pub issuer: Issuer,
    /// What tokens must claim.
    pub claim_validation_rules: Vec<ClaimRule>,
    /// What a user is made of.
    pub claim_mappings: Mappings,
    /// What users must be.
    pub user_validation_rules: Vec<UserRule>,
    /// Not in the file: from flags.
    #[serde(skip)]
    pub algorithms: Vec<String>,
}

/// Who issues tokens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Issuer {
    /// `iss` of its tokens.
    pub url: String,
    /// Where its discovery document is, if not below `url`.
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM.
    pub certificate_authority: String,
    /// A token must be for one of them.
    pub audiences: Vec<String>,
    audience_match_policy: String,
}

/// A rule about claims.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimRule {
    /// This claim must be `required_value`.
    pub claim: String,
    /// See `claim`.
    pub required_value: String,
    /// Or this must be true of `claims`.
    pub expression: String,
    /// What is told otherwise.
    pub message: String,
}

/// A rule about the user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserRule {
    /// Must be true of `user`.
    pub expression: String,
    /// What is told otherwise.
    pub message: String,
}

/// What of a user comes from where.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mappings {
    /// Required.
    pub username: Mapping,
    /// None when empty.
    pub groups: Mapping,
    /// None when empty.
    pub uid: Mapping,
    /// More.
    pub extra: Vec<Extra>,
}

/// A claim with a prefix, or an expression.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// A claim's name.
    pub claim: String,
    /// Put before it.
    pub prefix: Option<String>,
    /// Over `claims`.
    pub expression: String,
}

/// One extra attribute.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extra {
    /// Its key, in a domain.
    pub key: String,
    /// Over `claims`.
    pub value_expression: String,
}

impl OidcArgs {
    /// What is configured.
    ///
    /// # Errors
    /// A flag or the file cannot be used.
    pub fn file(&self) -> anyhow::Result<File> {
        if let Some(path) = &self.authentication_config {
            return read(path);
        }
        let Some(url) = &self.oidc_issuer_url else { return Ok(File::default()) };
        let authority = match &self.oidc_ca_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => String::new(),
        };
        for algorithm in &self.oidc_signing_algs {
            ensure!(ALGORITHMS.contains(&algorithm.as_str()), "oidc: unsupported signing alg: {algorithm:?}");
        }
        let claim = &self.oidc_username_claim;
        let prefix = match self.oidc_username_prefix.as_str() {
            "" if claim != "email" => format!("{url}#"),
            "-" => String::new(),
            prefix => prefix.to_owned(),
        };
        let mut rules = Vec::new();
        for rule in &self.oidc_required_claim {
            let Some((claim, value)) = rule.split_once('=') else {
                bail!("oidc-required-claim {rule:?} must be KEY=VALUE");
            };
            rules.push(ClaimRule {
                claim: claim.to_owned(),
                required_value: value.to_owned(),
                ..ClaimRule::default()
            });
        }
        let jwt = Jwt {
            issuer: Issuer {
                url: url.clone(),
                certificate_authority: authority,
                audiences: self.oidc_client_id.clone().into_iter().collect(),
                ..Issuer::default()
            },
            claim_validation_rules: rules,
            claim_mappings: Mappings {
                username: Mapping { claim: claim.clone(), prefix: Some(prefix), ..Mapping::default() },
                groups: Mapping {
                    claim: self.oidc_groups_claim.clone(),
                    prefix: Some(self.oidc_groups_prefix.clone()),
                    ..Mapping::default()
                },
                ..Mappings::default()
            },
            algorithms: self.oidc_signing_algs.clone(),
            ..Jwt::default()
        };
        check(&jwt).context("oidc")?;
        Ok(File { jwt: vec![jwt], ..File::default() })
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("cannot use --authentication-config {}", path.display()))
}

/// The configuration in a text.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> anyhow::Result<File> {
    let mut file: File = serde_yaml_ng::from_str(text)?;
    let known = ["v1", "v1beta1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
    ensure!(
        file.kind == "AuthenticationConfiguration" && known.contains(&file.api_version),
        "no kind {:?} is registered for version {:?}",
        file.kind,
        file.api_version
    );
    let mut seen = Vec::new();
    for (index, jwt) in file.jwt.iter_mut().enumerate() {
        jwt.algorithms = ALGORITHMS.map(str::to_owned).to_vec();
        check(jwt).with_context(|| format!("jwt[{index}]"))?;
        ensure!(
            !seen.contains(&jwt.issuer.url),
            "jwt[{index}].issuer.url: Duplicate value: {:?}",
            jwt.issuer.url
        );
        seen.push(jwt.issuer.url.clone());
    }
    Ok(file)
}

fn check(jwt: &Jwt) -> anyhow::Result<()> {
    let Issuer { url, discovery_url, audiences, audience_match_policy, .. } = &jwt.issuer;
    ensure!(!url.is_empty(), "issuer.url: Required value: URL is required");
    for (field, url) in [("url", url), ("discoveryURL", discovery_url)] {
        ensure!(
            url.is_empty() || url.starts_with("https://"),
            "issuer.{field}: Invalid value: {url:?}: URL scheme must be https"
        );
    }
    ensure!(
        discovery_url.is_empty() || discovery_url != url,
        "issuer.discoveryURL: Invalid value: {url:?}: discoveryURL must be different from URL"
    );
    ensure!(
        !audiences.is_empty(),
        "issuer.audiences: Required value: at least one issuer.audiences is required"
    );
    ensure!(
        audiences.len() < 2 || audience_match_policy == "MatchAny",
        "issuer.audienceMatchPolicy: Invalid value: {audience_match_policy:?}: audienceMatchPolicy must be MatchAny for multiple audiences"
    );
    for (index, rule) in jwt.claim_validation_rules.iter().enumerate() {
        ensure!(
            rule.claim.is_empty() != rule.expression.is_empty(),
            "claimValidationRules[{index}]: Required value: exactly one of claim or expression is required"
        );
    }
    let Mappings { username, groups, uid, extra } = &jwt.claim_mappings;
    ensure!(
        !username.claim.is_empty() || !username.expression.is_empty(),
        "claimMappings.username: Required value: claim or expression is required"
    );
    for (name, mapping) in [("username", username), ("groups", groups), ("uid", uid)] {
        ensure!(
            mapping.claim.is_empty() || mapping.expression.is_empty(),
            "claimMappings.{name}: Invalid value: claim and expression can't both be set"
        );
        ensure!(
            mapping.claim.is_empty() || name == "uid" || mapping.prefix.is_some(),
            "claimMappings.{name}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"
        );
        ensure!(
            mapping.expression.is_empty() || mapping.prefix.is_none(),
            "claimMappings.{name}.prefix: Invalid value: prefix can't be set when expression is set"
        );
    }
    check_email(jwt)?;
    check_extra(extra)
}

/// A name that is an e-mail address must be of one that its owner has shown to have.
fn check_email(jwt: &Jwt) -> anyhow::Result<()> {
    let Mappings { username, extra, .. } = &jwt.claim_mappings;
    let uses = |expression: &str| username.expression.contains(expression);
    let verified =
        jwt.claim_validation_rules.iter().any(|rule| rule.expression.contains("claims.email_verified"))
            || extra.iter().any(|extra| extra.value_expression.contains("claims.email_verified"));
    ensure!(
        !uses("claims.email") || uses("claims.email_verified") || verified,
        "claimMappings.username.expression: Invalid value: claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression"
    );
    Ok(())
}

fn check_extra(extra: &[Extra]) -> anyhow::Result<()> {
    for (index, extra) in extra.iter().enumerate() {
        ensure!(
            extra.key.contains('/') && extra.key == extra.key.to_lowercase(),
            "claimMappings.extra[{index}].key: Invalid value: {:?}: must be a lowercase domain-prefixed path",
            extra.key
        );
        let own = ["kubernetes.io", "k8s.io"].iter().any(|domain| {
            extra.key.split('/').next().is_some_and(|of| of == *domain || of.ends_with(&format!(".{domain}")))
        });
        ensure!(
            !own,
            "claimMappings.extra[{index}].key: Invalid value: {:?}: k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
            extra.key
        );
    }
    Ok(())
}
