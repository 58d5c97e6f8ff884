//! JSON Web Tokens of ServiceAccounts (RFC 7519 in compact form): three base64url parts, one signature, fixed claims.
//!
//! Invariants: a token's header cannot choose the algorithm; nothing of a token is believed before its signature fits.

use super::legacy;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_keys::VerifyingKey;
use serde::{Deserialize, Serialize};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// An object that a token names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Name.
    pub name: String,
    /// Unique id; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The private claims of a bound token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Of the ServiceAccount and of what the token is bound to.
    pub namespace: String,
    /// The node of the pod, or the node that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The Secret that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// Whom the token speaks for.
    pub serviceaccount: Reference,
    /// When a client should have asked for a new token, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// All claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// End, in seconds since 1970.
    pub exp: i64,
    /// Time of issue.
    #[serde(default)]
    pub iat: i64,
    /// Issuer.
    pub iss: String,
    /// Id of the token; empty in tokens of old issuers.
    #[serde(default)]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    /// Start.
    #[serde(default)]
    pub nbf: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

/// RFC 7519 allows a single audience to stand without its list.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audiences::deserialize(deserializer)? {
        Audiences::One(audience) => vec![audience],
        Audiences::Many(audiences) => audiences,
    })
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url, or a header or claims of another form.
    #[error("the token is malformed")]
    Malformed,
    /// No key of ours made it.
    #[error("the token's signature is invalid")]
    Signature,
    /// It is somebody else's.
    #[error("the token was issued by another issuer")]
    Issuer,
}

/// What a signed token claims.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// A token with an end.
    Bound(Box<Claims>),
    /// A token in a Secret.
    Legacy(legacy::Claims),
}

/// The claims of `token`, when one of `keys` signed it. Times, issuer and audiences are not looked at.
///
/// # Errors
/// See [`TokenError`].
pub fn verify(keys: &[VerifyingKey], token: &str) -> Result<Claimed, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
    let signature = decode(signature)?;
    let fits = |key: &&VerifyingKey| {
        key.algorithm() == header.alg && (header.kid.is_empty() || key.id() == header.kid)
    };
    if !keys.iter().filter(fits).any(|key| key.verifies(message.as_bytes(), &signature)) {
        return Err(TokenError::Signature);
    }
    let claims: serde_json::Value =
        serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Malformed)?;
    let claimed = if claims["iss"] == legacy::ISSUER {
        serde_json::from_value(claims).map(Claimed::Legacy)
    } else {
        serde_json::from_value(claims).map(|claims| Claimed::Bound(Box::new(claims)))
    };
    claimed.map_err(|_| TokenError::Malformed)
}

/// Who issued a token, as it says itself: nothing of it is verified.
#[must_use]
pub fn issuer(token: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut parts = token.split('.');
    let payload = parts.nth(1)?;
    parts.next()?;
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims["iss"].as_str().map(str::to_owned)
}
