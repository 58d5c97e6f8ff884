//! Authentication: client certificate or bearer token in, a user out; the issuer of ServiceAccount tokens.
//!
//!     front proxy's ────► front_proxy ─┐ (its headers say who)
//!     leaf certificate ─► certificate ─┤
//!     Bearer of a file ─► token_file ─────┤
//!     Bearer JWT ───────► service_account ├─► UserInfo (+ system:authenticated)
//!     Bearer id.secret ─► bootstrap_token ┤
//!     Bearer of others ─► oidc, webhook ──┘
//!     nothing ──────────► system:anonymous, where allowed
//!
//! Invariants: bad credentials are a 401 and never anonymous; secrets are compared in constant time, or by digests; a bound token dies
//! with what it is bound to.

mod bootstrap_token;
mod certificate;
mod front_proxy;
pub mod identity;
mod jwt;
mod legacy;
mod oidc;
mod review;
mod service_account;
#[cfg(test)]
mod tests;
mod token_file;
mod token_request;
mod tokens;
mod webhook;
pub mod websocket;

pub use front_proxy::Peer;
pub use review::{check_review, user_info};

use crate::reader::{Objects, Reader};
use crate::request::UserInfo;
use anyhow::{Context, ensure};
use coracle_api::status::Status;
use coracle_daemon::tls::{Chains, Fresh, chains};
use coracle_keys::{self as keys, SigningKey, VerifyingKey};
use front_proxy::FrontProxies;
pub use oidc::OidcArgs;
use oidc::{Anonymous, Oidc};
use rustls::pki_types::CertificateDer;
use service_account::{Refused, Verifier};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use token_file::TokenFile;
use token_request::Lives;
use webhook::Webhook;
pub use webhook::WebhookArgs;

const ANONYMOUS: &str = "system:anonymous";

/// Settings of authentication and of ServiceAccount tokens, named as kube-apiserver's flags.
#[derive(Clone, Debug, clap::Args)]
pub struct AuthenticationArgs {
    /// CA that signs client certificates.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// CA that signs front proxies' certificates: who shows one says in headers (X-Remote-User …) who asks.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of those certificates; any when empty.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers that say who asks; the first that is there counts.
    #[arg(long, value_delimiter = ',', default_value = identity::USER)]
    pub requestheader_username_headers: Vec<String>,
    /// Headers that say the user's uid.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers that say the user's groups; all of them count.
    #[arg(long, value_delimiter = ',', default_value = identity::GROUP)]
    pub requestheader_group_headers: Vec<String>,
    /// What the names of headers begin with that say more of the user.
    #[arg(long, value_delimiter = ',', default_value = identity::EXTRA)]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// CSV file of tokens: token, user, uid and, if any, groups in quotes.
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// PEM public or private keys that verify ServiceAccount tokens.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// PEM private key that signs ServiceAccount tokens.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// `iss` of ServiceAccount tokens: of several the first is that of new ones, and all are accepted.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: Vec<String>,
    /// Where others find the keys of tokens, if not at this server.
    #[arg(long, default_value = "")]
    pub service_account_jwks_uri: String,
    /// How long a new token may be good, e.g. 24h0m0s; 0: as long as it is asked for.
    #[arg(long, default_value = "0s", value_parser = crate::flags::duration)]
    pub service_account_max_token_expiration: Duration,
    /// Let tokens of pods be good for a year, as some clients never read them again.
    #[arg(long, default_value = "true", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub service_account_extend_token_expiration: bool,
    /// Let Secrets of the type bootstrap.kubernetes.io/token be tokens.
    #[arg(long, default_value = "false", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub enable_bootstrap_token_auth: bool,
    /// Audiences that tokens may be for; the issuer when empty.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Let requests without credentials in as system:anonymous.
    #[arg(long, default_value = "true", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub anonymous_auth: bool,
    /// Tokens that another server knows.
    #[command(flatten)]
    pub webhook: WebhookArgs,
    /// Tokens of other issuers.
    #[command(flatten)]
    pub oidc: OidcArgs,
}

impl AuthenticationArgs {
    /// The common names that front proxies must have; a flag without a value is none.
    #[must_use]
    pub fn front_proxies(&self) -> Vec<String> {
        self.requestheader_allowed_names.iter().filter(|name| !name.is_empty()).cloned().collect()
    }
}

/// Authenticates requests and issues tokens.
pub struct Authentication {
    reader: Arc<dyn Reader>,
    objects: Arc<dyn Objects>,
    anonymous: Anonymous,
    oidc: Oidc,
    webhook: Option<Webhook>,
    token_file: Option<TokenFile>,
    /// What tells clients' certificates from others.
    clients: Option<Fresh<Chains>>,
    front_proxies: Option<FrontProxies>,
    /// Of new tokens.
    issuer: String,
    jwks_uri: String,
    bootstrap_tokens: bool,
    lives: Lives,
    /// What tokens for this server are meant for; never empty.
    audiences: Vec<String>,
    verifier: Verifier,
    public_keys: Vec<VerifyingKey>,
    signing: Option<SigningKey>,
}

impl Authentication {
    /// Reads keys and files.
    ///
    /// # Errors
    /// A file is missing or unusable.
    pub fn new(
        args: &AuthenticationArgs,
        reader: Arc<dyn Reader>,
        objects: Arc<dyn Objects>,
    ) -> anyhow::Result<Self> {
        let signing =
            args.service_account_signing_key_file.as_deref().map(SigningKey::from_file).transpose()?;
        let mut public_keys: Vec<VerifyingKey> = Vec::new();
        for path in &args.service_account_key_file {
            public_keys.extend(keys::verifying_keys(path)?);
        }
        if let Some(key) = &signing
            && !public_keys.iter().any(|public| public.id() == key.public().id())
        {
            public_keys.push(key.public().clone());
        }
        let issuers = args.service_account_issuer.clone();
        let oidc = Oidc::new(&args.oidc)?;
        // Its tokens would be taken for the other issuer's.
        for issuer in &issuers {
            ensure!(
                oidc.issuer(issuer).is_none(),
                "issuer.url: Invalid value: {issuer:?}: URL must not overlap with disallowed issuers: [{}]",
                issuers.join(" ")
            );
        }
        let by_flag = Anonymous { enabled: args.anonymous_auth, ..Anonymous::default() };
        let given = args.api_audiences.clone();
        Ok(Self {
            issuer: issuers.first().cloned().unwrap_or_default(),
            jwks_uri: args.service_account_jwks_uri.clone(),
            bootstrap_tokens: args.enable_bootstrap_token_auth,
            lives: Lives::new(args)?,
            audiences: if given.is_empty() { issuers.clone() } else { given },
            verifier: Verifier::new(public_keys.clone(), issuers, reader.clone(), objects.clone()),
            anonymous: oidc.anonymous.clone().unwrap_or(by_flag),
            oidc,
            webhook: Webhook::new(&args.webhook)?,
            token_file: args.token_auth_file.as_deref().map(TokenFile::read).transpose()?,
            clients: args
                .client_ca_file
                .as_deref()
                .map(|path| chains(&[path]))
                .transpose()
                .context("cannot use --client-ca-file")?,
            front_proxies: FrontProxies::new(args)?,
            reader,
            objects,
            public_keys,
            signing,
        })
    }

    /// Whose certificates a connection has shown, leaf first; its other end has the key.
    #[must_use]
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer {
        front_proxy::tell(chain, self.clients.as_ref(), self.front_proxies.as_ref())
    }

    /// The user behind a request: what a front proxy says, the peer's certificate, or its headers (bearer token;
    /// impersonation is handled after by [`crate::authorization`]).
    ///
    /// # Errors
    /// 401 for bad credentials, or for none where anonymous is off.
    pub async fn authenticate(&self, headers: &http::HeaderMap, peer: &Peer) -> Result<UserInfo, Status> {
        let shown = peer.leaf.as_deref().and_then(certificate::Leaf::user);
        if let (Some(proxies), Some(proxy), true) = (&self.front_proxies, shown, peer.is_front_proxy)
            && proxies.allow(&proxy.name)
            && let Some(user) = proxies.user(headers)
        {
            return Ok(authenticated(user));
        }
        if let Some(user) = shown.filter(|_| peer.is_client) {
            return Ok(authenticated(user.clone()));
        }
        let offered = match bearer_token(headers) {
            Some(token) => Some(token.to_owned()),
            None => websocket::token(headers).map_err(|why| {
                tracing::debug!(why, "subprotocols refused");
                Status::unauthorized()
            })?,
        };
        if let Some(token) = offered {
            return match self.bearer(&token, &self.audiences).await {
                Ok((user, _)) => Ok(user),
                Err(Refused::Store(status)) => Err(status),
                Err(refused) => {
                    tracing::debug!(%refused, "bearer token refused");
                    Err(Status::unauthorized())
                }
            };
        }
        if peer.is_refused() || !self.anonymous.enabled {
            return Err(Status::unauthorized());
        }
        Ok(UserInfo {
            name: ANONYMOUS.to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..UserInfo::default()
        })
    }

    /// The user, unless the request has no credentials and is for a path where that is not enough.
    ///
    /// # Errors
    /// 401.
    pub fn lets_in(&self, user: UserInfo, path: &str) -> Result<UserInfo, Status> {
        let conditions = &self.anonymous.conditions;
        let bound = user.name == ANONYMOUS && !conditions.is_empty();
        if bound && !conditions.iter().any(|condition| condition.path == path) {
            return Err(Status::unauthorized());
        }
        Ok(user)
    }

    /// The user of a bearer token and those of `audiences` that it is for.
    async fn bearer(&self, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), Refused> {
        if let Some(user) = self.token_file.as_ref().and_then(|file| file.user(token)) {
            let fitting = tokens::fitting(audiences, &self.audiences).map_err(Refused::Claims)?;
            return Ok((authenticated(user.clone()), fitting));
        }
        // What merely looks like one may be known to others.
        if self.bootstrap_tokens
            && let Some(user) = bootstrap_token::user(self.reader.as_ref(), token)
        {
            // They do not say whom they are for: this server.
            let fitting = tokens::fitting(audiences, &self.audiences).map_err(Refused::Claims)?;
            return Ok((authenticated(user), fitting));
        }
        let own = &self.audiences;
        let mut answer = match jwt::issuer(token).and_then(|issuer| self.oidc.issuer(&issuer)) {
            Some(issuer) => issuer.user(token, audiences, own).await,
            None => self.verifier.user(token, audiences, own).await,
        };
        if let (Err(Refused::Token(_) | Refused::Claims(_)), Some(webhook)) = (&answer, &self.webhook) {
            answer = webhook.user(token, audiences, own).await;
        }
        let (user, audiences) = answer?;
        Ok((authenticated(user), audiences))
    }
}

fn authenticated(mut user: UserInfo) -> UserInfo {
    const GROUP: &str = "system:authenticated";
    if !user.groups.iter().any(|group| group == GROUP) {
        user.groups.push(GROUP.to_owned());
    }
    user
}

/// The token of an `Authorization: Bearer …` header.
#[must_use]
pub fn bearer_token(headers: &http::HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
