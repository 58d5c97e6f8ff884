//! Authentication: client certificate or bearer token in, a user out; the issuer of ServiceAccount tokens.
//!
//!     leaf certificate ─► certificate ─┐
//!     Bearer JWT ───────► service_account ├─► UserInfo (+ system:authenticated)
//!     Bearer id.secret ─► bootstrap_token ┘
//!     nothing ──────────► system:anonymous, where allowed
//!
//! Invariants: bad credentials are a 401 and never anonymous; secrets are compared in constant time; a bound token dies
//! with what it is bound to.

mod bootstrap_token;
mod certificate;
mod jwt;
mod keys;
mod review;
mod service_account;
#[cfg(test)]
mod tests;
mod token_request;

pub use review::user_info;

use crate::reader::{Objects, Reader};
use crate::request::UserInfo;
use coracle_api::status::Status;
use keys::{SigningKey, VerifyingKey};
use service_account::{Refused, Verifier};
use std::path::PathBuf;
use std::sync::Arc;

/// Settings of authentication and of ServiceAccount tokens, named as kube-apiserver's flags.
#[derive(Clone, Debug, clap::Args)]
pub struct AuthenticationArgs {
    /// CA that signs client certificates.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// PEM public or private keys that verify ServiceAccount tokens.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// PEM private key that signs ServiceAccount tokens.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// `iss` of ServiceAccount tokens.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: String,
    /// Audiences that tokens may be for; the issuer when empty.
    #[arg(long)]
    pub api_audiences: Vec<String>,
    /// Let requests without credentials in as system:anonymous.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub anonymous_auth: bool,
}

/// Authenticates requests and issues tokens.
pub struct Authentication {
    reader: Arc<dyn Reader>,
    objects: Arc<dyn Objects>,
    anonymous: bool,
    issuer: String,
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
        let issuer = args.service_account_issuer.clone();
        let given = args.api_audiences.clone();
        Ok(Self {
            verifier: Verifier::new(public_keys.clone(), issuer.clone(), reader.clone(), objects.clone()),
            audiences: if given.is_empty() { vec![issuer.clone()] } else { given },
            anonymous: args.anonymous_auth,
            reader,
            objects,
            issuer,
            public_keys,
            signing,
        })
    }

    /// The user behind a request: its verified peer certificate (DER leaf) or its headers (bearer token, impersonation
    /// is handled after by [`crate::authorization`]).
    ///
    /// # Errors
    /// 401 for bad credentials, or for none where anonymous is off.
    pub async fn authenticate(
        &self,
        headers: &http::HeaderMap,
        peer: Option<&[u8]>,
    ) -> Result<UserInfo, Status> {
        if let Some(user) = peer.and_then(certificate::user) {
            return Ok(authenticated(user));
        }
        if let Some(token) = bearer_token(headers) {
            return match self.bearer(token, &self.audiences).await {
                Ok((user, _)) => Ok(user),
                Err(Refused::Store(status)) => Err(status),
                Err(refused) => {
                    tracing::debug!(%refused, "bearer token refused");
                    Err(Status::unauthorized())
                }
            };
        }
        if peer.is_some() || !self.anonymous {
            return Err(Status::unauthorized());
        }
        Ok(UserInfo {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..UserInfo::default()
        })
    }

    /// The user of a bearer token and those of `audiences` that it is for.
    async fn bearer(&self, token: &str, audiences: &[String]) -> Result<(UserInfo, Vec<String>), Refused> {
        if bootstrap_token::is_one(token) {
            let user = bootstrap_token::user(self.reader.as_ref(), token);
            let user = user.ok_or_else(|| Refused::Claims("invalid bearer token".to_owned()))?;
            return Ok((authenticated(user), Vec::new()));
        }
        let (user, audiences) = self.verifier.user(token, audiences).await?;
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
fn bearer_token(headers: &http::HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
