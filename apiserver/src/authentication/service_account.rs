//! ServiceAccount tokens: verifies a JWT and that all it is bound to still lives.

use super::jwt::{self, Claimed, Claims, Reference};
use super::tokens;
use crate::reader::{Objects, Reader};
use crate::request::UserInfo;
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::clock;
use coracle_daemon::panics::Mutex;
use coracle_keys::VerifyingKey;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// How far the clocks of issuer and verifier may differ, in seconds; also how long a deleted object's tokens live on.
const LEEWAY_SECONDS: i64 = 60;
/// Verified tokens that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// Why a well-signed token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Malformed or not ours.
    #[error(transparent)]
    Token(#[from] jwt::TokenError),
    /// Times, issuer, subject, audience or bound objects do not hold.
    #[error("{0}")]
    Claims(String),
    /// The store did not answer: not the client's fault.
    #[error(transparent)]
    Store(#[from] Status),
}

fn refused(why: impl Into<String>) -> Refused {
    Refused::Claims(why.into())
}

/// Verifies tokens; remembers good signatures.
pub struct Verifier {
    keys: Vec<VerifyingKey>,
    issuers: Vec<String>,
    reader: Arc<dyn Reader>,
    objects: Arc<dyn Objects>,
    /// SHA-256 of a token to its claims: a signature that was good stays good, everything else is checked each time.
    remembered: Mutex<HashMap<[u8; 32], Arc<Claimed>>>,
}

impl Verifier {
    /// Over the given keys and issuers.
    pub fn new(
        keys: Vec<VerifyingKey>,
        issuers: Vec<String>,
        reader: Arc<dyn Reader>,
        objects: Arc<dyn Objects>,
    ) -> Self {
        Self { keys, issuers, reader, objects, remembered: Mutex::default() }
    }

    fn claims(&self, token: &str) -> Result<Arc<Claimed>, jwt::TokenError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.remembered.lock().get(&digest) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(jwt::verify(&self.keys, token)?);
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, claims.clone());
        Ok(claims)
    }

    /// The user of `token` and those of `audiences` that it is for. A token in a Secret is for `own`, this server.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn user(
        &self,
        token: &str,
        audiences: &[String],
        own: &[String],
    ) -> Result<(UserInfo, Vec<String>), Refused> {
        match self.claims(token)?.as_ref() {
            Claimed::Bound(claims) => self.bound(claims, audiences).await,
            Claimed::Legacy(claims) => {
                let fitting = tokens::fitting(audiences, own).map_err(Refused::Claims)?;
                Ok((claims.user(token, &self.reader, &self.objects).await?, fitting))
            }
        }
    }

    async fn bound(&self, claims: &Claims, audiences: &[String]) -> Result<(UserInfo, Vec<String>), Refused> {
        let now = clock::now().as_second();
        if !self.issuers.contains(&claims.iss) {
            return Err(jwt::TokenError::Issuer.into());
        }
        if claims.exp.saturating_add(LEEWAY_SECONDS) < now {
            return Err(refused("service account token has expired"));
        }
        if claims.nbf > now + LEEWAY_SECONDS {
            return Err(refused("service account token is not valid yet"));
        }
        let bound = &claims.bound;
        let name = format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name);
        if claims.sub != name {
            return Err(refused("the token's subject is not its service account"));
        }
        let fitting = tokens::fitting(audiences, &claims.aud).map_err(Refused::Claims)?;
        for (plural, object) in [
            ("serviceaccounts", Some(&bound.serviceaccount)),
            ("secrets", bound.secret.as_ref()),
            ("pods", bound.pod.as_ref()),
        ] {
            if let Some(object) = object {
                self.must_live(plural, &bound.namespace, object, now).await?;
            }
        }
        // A pod's token tells its node, but it is the pod that it is bound to.
        if let (Some(node), None) = (&bound.node, &bound.pod) {
            self.must_live("nodes", "", node, now).await?;
        }
        Ok((user(claims, name), fitting))
    }

    async fn must_live(
        &self,
        plural: &str,
        namespace: &str,
        wanted: &Reference,
        now: i64,
    ) -> Result<(), Refused> {
        let of = GroupResource::new("", plural);
        let fault = |object: Option<&Value>| fault(plural, namespace, wanted, object, now);
        if fault(self.reader.get(&of, namespace, &wanted.name).as_deref()).is_none() {
            return Ok(());
        }
        // The cache may lag: the object may be newer than it.
        let fresh = self.objects.get_fresh(&of, namespace, &wanted.name).await?;
        fault(fresh.as_ref()).map_or(Ok(()), |why| Err(refused(why)))
    }
}

/// Why a token is no good whose object is like this now.
fn fault(
    plural: &str,
    namespace: &str,
    wanted: &Reference,
    object: Option<&Value>,
    now: i64,
) -> Option<String> {
    let is_account = plural == "serviceaccounts";
    let (name, kind) = (&wanted.name, plural.trim_end_matches('s'));
    match object {
        None if is_account => Some(format!("serviceaccounts {name:?} not found")),
        Some(own) if meta::uid(own) != wanted.uid => {
            let (uid, claimed) = (meta::uid(own), &wanted.uid);
            Some(if is_account {
                format!("service account UID ({uid}) does not match claim ({claimed})")
            } else {
                format!("{kind} UID ({uid}) does not match service account {kind} ref claim ({claimed})")
            })
        }
        Some(own) if is_account && long_deleted(own, now) => {
            Some(format!("service account {namespace}/{name} has been deleted"))
        }
        Some(own) if !long_deleted(own, now) => None,
        _ => Some("service account token has been invalidated".to_owned()),
    }
}

fn long_deleted(object: &Value, now: i64) -> bool {
    let deleted = meta::field(object, "deletionTimestamp").parse::<jiff::Timestamp>();
    deleted.is_ok_and(|deleted| deleted.as_second() + LEEWAY_SECONDS < now)
}

fn user(claims: &Claims, name: String) -> UserInfo {
    let bound = &claims.bound;
    let mut user = UserInfo {
        name,
        uid: bound.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", bound.namespace),
        ],
        ..UserInfo::default()
    };
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    for (what, object) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(object) = object {
            tell(&format!("{what}-name"), &object.name);
            tell(&format!("{what}-uid"), &object.uid);
        }
    }
    if !claims.jti.is_empty() {
        tell("credential-id", &format!("JTI={}", claims.jti));
    }
    user
}
