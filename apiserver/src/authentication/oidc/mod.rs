//! OpenID Connect: tokens of other issuers. A JWT in, the user that its claims are mapped to out.
//!
//! Invariants: nothing of a token is believed before its issuer's signature fits; the algorithm is one that is allowed.

mod config;
mod expression;
mod keys;
#[cfg(test)]
mod tests;

pub use config::{Anonymous, OidcArgs};

use super::jwt::TOKEN_BYTES_MAX;
use super::service_account::Refused;
use super::tokens::{self, Answered, Remembered};
use crate::outbound::remote::Remote;
use crate::request::UserInfo;
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::{Jwt, Mapping};
use coracle_daemon::clock;
use expression::Expression;
use keys::{Keys, Signed};
use serde_json::{Map, Value, json};
use std::time::Duration;
use url::Url;

const LIMIT: Duration = Duration::from_secs(30);
/// How long a good token is not looked at again.
const GOOD: Duration = Duration::from_secs(10);
/// How far an issuer's clock may be ahead.
const EARLY_SECONDS: i64 = 300;

/// A claim with its prefix, or an expression.
enum Source {
    Claim { name: String, prefix: String },
    Made(Expression),
}

impl Source {
    fn new(mapping: &Mapping) -> anyhow::Result<Option<Self>> {
        if !mapping.expression.is_empty() {
            return Ok(Some(Self::Made(Expression::new(&mapping.expression)?)));
        }
        let claim = Some(mapping.claim.clone()).filter(|claim| !claim.is_empty());
        Ok(claim.map(|name| Self::Claim { name, prefix: mapping.prefix.clone().unwrap_or_default() }))
    }
}

/// One issuer.
pub struct Issuer {
    settings: Jwt,
    keys: Keys,
    rules: Vec<(Rule, String)>,
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Expression)>,
    user_rules: Vec<(Expression, String)>,
    remembered: Remembered,
}

enum Rule {
    Claim(String, String),
    Made(Expression),
}

/// What is configured.
pub struct Oidc {
    issuers: Vec<Issuer>,
    /// What the file says of requests without credentials.
    pub anonymous: Option<Anonymous>,
}

impl Oidc {
    /// By the flags.
    ///
    /// # Errors
    /// A flag or file cannot be used.
    pub fn new(args: &OidcArgs) -> anyhow::Result<Self> {
        let file = args.file()?;
        let mut issuers = Vec::new();
        for jwt in file.jwt {
            let url = jwt.issuer.url.clone();
            issuers.push(Issuer::new(jwt).with_context(|| format!("cannot use issuer {url:?}"))?);
        }
        Ok(Self { issuers, anonymous: file.anonymous })
    }

    /// The issuer of that URL.
    #[must_use]
    pub fn issuer(&self, url: &str) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.settings.issuer.url == url)
    }
}

impl Issuer {
    fn new(settings: Jwt) -> anyhow::Result<Self> {
        let of = &settings.issuer;
        let discovery = if of.discovery_url.is_empty() {
            format!("{}/.well-known/openid-configuration", of.url.trim_end_matches('/'))
        } else {
            of.discovery_url.clone()
        };
        let discovery = Url::parse(&discovery)?;
        let bundle = Some(of.certificate_authority.as_bytes()).filter(|bundle| !bundle.is_empty());
        let keys = Keys::new(of.url.clone(), discovery.clone(), Remote::new(discovery, bundle, LIMIT)?);
        let mappings = &settings.claim_mappings;
        let mut rules = Vec::new();
        for rule in &settings.claim_validation_rules {
            let made = if rule.expression.is_empty() {
                Rule::Claim(rule.claim.clone(), rule.required_value.clone())
            } else {
                Rule::Made(Expression::new(&rule.expression)?)
            };
            rules.push((made, rule.message.clone()));
        }
        let mut extra = Vec::new();
        for one in &mappings.extra {
            extra.push((one.key.clone(), Expression::new(&one.value_expression)?));
        }
        let mut user_rules = Vec::new();
        for rule in &settings.user_validation_rules {
            user_rules.push((Expression::new(&rule.expression)?, rule.message.clone()));
        }
        Ok(Self {
            keys,
            rules,
            username: Source::new(&mappings.username)?.context("claimMappings.username: Required value")?,
            groups: Source::new(&mappings.groups)?,
            uid: Source::new(&mappings.uid)?,
            extra,
            user_rules,
            remembered: Remembered::new(GOOD, Duration::ZERO),
            settings,
        })
    }

    /// The user of a token of this issuer, and those of `audiences` that are `own`, this server.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn user(
        &self,
        token: &str,
        audiences: &[String],
        own: &[String],
    ) -> Result<(UserInfo, Vec<String>), Refused> {
        let judged = async { Ok(self.judged(token, audiences, own).await) };
        self.remembered.or(token, audiences, judged).await
    }

    async fn judged(&self, token: &str, audiences: &[String], own: &[String]) -> Answered {
        let fitting = tokens::fitting(audiences, own)?;
        let claims = self.claims(token).await?;
        self.check(&claims, clock::now().as_second())?;
        Ok((self.mapped(&claims)?, fitting))
    }

    /// The claims of a token that this issuer signed.
    async fn claims(&self, token: &str) -> Result<Value, String> {
        let malformed = || "oidc: malformed jwt".to_owned();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed());
        }
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
        let algorithm = header["alg"].as_str().unwrap_or_default();
        if !self.settings.algorithms.iter().any(|allowed| allowed == algorithm) {
            let allowed = &self.settings.algorithms;
            return Err(format!(
                "oidc: id token signed with unsupported algorithm, expected {allowed:?} got {algorithm:?}"
            ));
        }
        let signature = decode(signature)?;
        let key = header["kid"].as_str().unwrap_or_default();
        self.keys
            .verify(&Signed { algorithm, key, message: message.as_bytes(), signature: &signature })
            .await?;
        let claims: Value = serde_json::from_slice(&decode(payload)?).map_err(|_| malformed())?;
        if claims.is_object() { Ok(claims) } else { Err(malformed()) }
    }

    fn check(&self, claims: &Value, now: i64) -> Result<(), String> {
        let issuer = &self.settings.issuer;
        if claims["iss"] != issuer.url.as_str() {
            return Err(format!(
                "oidc: id token issued by a different provider, expected {:?} got {}",
                issuer.url, claims["iss"]
            ));
        }
        let for_us = |audience: &Value| issuer.audiences.iter().any(|own| *audience == own.as_str());
        if !for_us(&claims["aud"]) && !claims["aud"].as_array().is_some_and(|all| all.iter().any(for_us)) {
            return Err(format!("oidc: expected audience in {:?} got {}", issuer.audiences, claims["aud"]));
        }
        #[expect(clippy::cast_possible_truncation, reason = "seconds, saturating")]
        let seconds =
            |name: &str| claims[name].as_i64().or_else(|| claims[name].as_f64().map(|at| at as i64));
        if seconds("exp").is_none_or(|end| end < now) {
            return Err("oidc: token is expired".to_owned());
        }
        if seconds("nbf").is_some_and(|start| start > now + EARLY_SECONDS) {
            return Err("oidc: current time before the nbf (not before) time".to_owned());
        }
        for (rule, message) in &self.rules {
            match rule {
                Rule::Claim(name, wanted) => match claims[name].as_str() {
                    None => return Err(format!("oidc: required claim {name} not present in ID token")),
                    Some(found) if found != wanted => {
                        return Err(format!(
                            "oidc: required claim {name} value does not match. Got = {found}, want = {wanted}"
                        ));
                    }
                    Some(_) => {}
                },
                Rule::Made(expression) => {
                    if !expression.holds("claims", claims)? {
                        return Err(format!("oidc: claim validation failed: {message}"));
                    }
                }
            }
        }
        Ok(())
    }

    fn mapped(&self, claims: &Value) -> Result<UserInfo, String> {
        let name = match &self.username {
            Source::Claim { name, prefix } => {
                let found = claims[name].as_str();
                let found = found
                    .ok_or_else(|| format!("oidc: parse username claims {name:?}: claim not present"))?;
                // An address that nobody has verified names nobody.
                if name == "email" && claims.get("email_verified").is_some_and(|verified| *verified != true) {
                    return Err("oidc: email not verified".to_owned());
                }
                format!("{prefix}{found}")
            }
            Source::Made(expression) => expression.text("claims", claims)?,
        };
        if name.is_empty() {
            return Err("oidc: username claim is empty".to_owned());
        }
        let groups = match &self.groups {
            None => Vec::new(),
            Some(Source::Made(expression)) => expression.texts("claims", claims)?,
            Some(Source::Claim { name, prefix }) => {
                listed(claims, name)?.into_iter().map(|group| format!("{prefix}{group}")).collect()
            }
        };
        let uid = match &self.uid {
            None => String::new(),
            Some(Source::Made(expression)) => expression.text("claims", claims)?,
            Some(Source::Claim { name, .. }) => claims[name].as_str().unwrap_or_default().to_owned(),
        };
        let mut user = UserInfo { name, uid, groups, ..UserInfo::default() };
        for (key, expression) in &self.extra {
            let values = expression.texts("claims", claims)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.check_user(&user)?;
        Ok(user)
    }

    fn check_user(&self, user: &UserInfo) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let mut shown = Map::new();
        shown.insert("username".to_owned(), json!(user.name));
        shown.insert("uid".to_owned(), json!(user.uid));
        shown.insert("groups".to_owned(), json!(user.groups));
        shown.insert("extra".to_owned(), json!(user.extra));
        let shown = Value::Object(shown);
        for (expression, message) in &self.user_rules {
            if !expression.holds("user", &shown)? {
                return Err(format!("oidc: user validation failed: {message}"));
            }
        }
        Ok(())
    }
}

/// A claim that is a text or a list of texts.
fn listed(claims: &Value, name: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("oidc: parse groups claim {name:?}: not a string or list of strings");
    match &claims[name] {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(all) => {
            all.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}
