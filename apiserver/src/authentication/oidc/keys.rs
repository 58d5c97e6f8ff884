//! An issuer's keys: found by discovery, kept, and asked for again when a token names one that is not known.

use crate::outbound::remote::Remote;
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_daemon::clock::Instant;
use ring::signature::{self, RsaPublicKeyComponents};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use url::Url;

/// Between two times that the issuer is asked, however many unknown keys are named meanwhile.
const ASK_EVERY: Duration = Duration::from_secs(10);
const KEYS_MAX: usize = 100;

/// One key of a JWKS.
struct Key {
    id: String,
    form: Form,
}

enum Form {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point, and the curve's name.
    Ec(Vec<u8>, String),
}

impl Key {
    /// `None` for keys of other kinds, and those that sign nothing.
    fn read(jwk: &Value) -> Option<Self> {
        let text = |key: &str| jwk[key].as_str().unwrap_or_default();
        let number = |key: &str| URL_SAFE_NO_PAD.decode(text(key)).ok().filter(|bytes| !bytes.is_empty());
        if !matches!(text("use"), "" | "sig") {
            return None;
        }
        let form = match text("kty") {
            "RSA" => Form::Rsa { n: number("n")?, e: number("e")? },
            "EC" => Form::Ec([vec![4], number("x")?, number("y")?].concat(), text("crv").to_owned()),
            _ => return None,
        };
        Some(Self { id: text("kid").to_owned(), form })
    }

    fn verifies(&self, algorithm: &str, message: &[u8], signed: &[u8]) -> bool {
        match &self.form {
            Form::Rsa { n, e } => {
                let how = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(how, message, signed).is_ok()
            }
            Form::Ec(point, curve) => {
                let how: &dyn signature::VerificationAlgorithm = match (algorithm, curve.as_str()) {
                    ("ES256", "P-256") => &signature::ECDSA_P256_SHA256_FIXED,
                    ("ES384", "P-384") => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => return false,
                };
                signature::UnparsedPublicKey::new(how, point).verify(message, signed).is_ok()
            }
        }
    }
}

#[derive(Default)]
struct Known {
    keys: Arc<Vec<Key>>,
    /// Why the issuer's last answer is of no use.
    fault: Option<String>,
}

impl Known {
    fn signed(&self, token: &Signed<'_>) -> bool {
        let named = |key: &&Key| token.key.is_empty() || key.id.is_empty() || key.id == token.key;
        let mut keys = self.keys.iter().filter(named);
        keys.any(|key| key.verifies(token.algorithm, token.message, token.signature))
    }
}

/// The keys of one issuer.
pub struct Keys {
    issuer: String,
    discovery: Url,
    remote: Remote,
    known: ArcSwap<Known>,
    /// When the issuer was last asked; held while it is, so that one asks for all. Who signs with a known key never waits.
    asked: Mutex<Option<Instant>>,
}

/// A token's parts that a signature is about.
pub struct Signed<'a> {
    pub algorithm: &'a str,
    pub key: &'a str,
    pub message: &'a [u8],
    pub signature: &'a [u8],
}

impl Keys {
    /// Of an issuer whose discovery document is there.
    pub fn new(issuer: String, discovery: Url, remote: Remote) -> Self {
        Self { issuer, discovery, remote, known: ArcSwap::default(), asked: Mutex::default() }
    }

    /// Whether the issuer signed it.
    ///
    /// # Errors
    /// It did not, or cannot be asked.
    pub async fn verify(&self, token: &Signed<'_>) -> Result<(), String> {
        if self.known.load().signed(token) {
            return Ok(());
        }
        let mut asked = self.asked.lock().await;
        // Another may have asked meanwhile.
        if self.known.load().signed(token) {
            return Ok(());
        }
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            // Also when whoever waits for it goes away.
            *asked = Some(Instant::now());
            let next = match self.fetch().await {
                Ok(keys) => Known { keys: Arc::new(keys), fault: None },
                Err(why) => Known { keys: self.known.load().keys.clone(), fault: Some(why) },
            };
            self.known.store(Arc::new(next));
            *asked = Some(Instant::now());
            if self.known.load().signed(token) {
                return Ok(());
            }
        }
        drop(asked);
        Err(match &self.known.load().fault {
            Some(why) => {
                format!("oidc: authenticator for issuer {:?} is not initialized: {why}", self.issuer)
            }
            None => "oidc: verify token: failed to verify signature: failed to verify id token signature"
                .to_owned(),
        })
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let document = self.remote.read(&self.discovery).await.map_err(|error| error.to_string())?;
        let told = document["issuer"].as_str().unwrap_or_default();
        if told != self.issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {told:?}",
                self.issuer
            ));
        }
        let place = document["jwks_uri"].as_str().unwrap_or_default();
        let place = Url::parse(place).map_err(|error| format!("jwks_uri {place:?}: {error}"))?;
        if place.scheme() != "https" {
            return Err(format!("jwks_uri {:?} is not https", place.as_str()));
        }
        let set = self.remote.read(&place).await.map_err(|error| error.to_string())?;
        Ok(set["keys"].as_array().into_iter().flatten().take(KEYS_MAX).filter_map(Key::read).collect())
    }
}
