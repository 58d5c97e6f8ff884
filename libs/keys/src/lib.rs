//! Keys of the cluster: PEM in, signatures, tokens, JWKs and certificates out.
//!
//! The algorithm follows from the key (P-256: ES256, RSA: RS256) and never from a token's header. A key's id is the
//! base64url SHA-256 of its SubjectPublicKeyInfo, as kube-apiserver computes it.

pub mod certificate;
mod der;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::{BIT_STRING, NULL, OCTET_STRING, OID_EC_PUBLIC_KEY, OID_P256, OID_RSA, SEQUENCE, der};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

fn spki(algorithm: &[&[u8]], key: &[u8]) -> Vec<u8> {
    der(SEQUENCE, &[&der(SEQUENCE, algorithm), &der(BIT_STRING, &[&[0], key])])
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Es256,
    Rs256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// A key that verifies.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    /// The point (EC) or the DER of `RSAPublicKey`.
    raw: Vec<u8>,
    id: String,
    jwk: Value,
}

impl VerifyingKey {
    /// From the DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// It is none, or of no kind that is supported.
    pub fn from_spki(spki: &[u8]) -> anyhow::Result<Self> {
        let (_, info) =
            SubjectPublicKeyInfo::from_der(spki).map_err(|error| anyhow!("not a public key: {error}"))?;
        let raw = info.subject_public_key.data.to_vec();
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(spki));
        let (algorithm, mut jwk) = match info
            .parsed()
            .map_err(|error| anyhow!("not a public key: {error}"))?
        {
            PublicKey::EC(point) if point.data().len() == 65 => {
                let (x, y) = point.data()[1..].split_at(32);
                let jwk = json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)});
                (Algorithm::Es256, jwk)
            }
            PublicKey::RSA(rsa) => {
                let trimmed =
                    |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes.strip_prefix(&[0]).unwrap_or(bytes));
                (
                    Algorithm::Rs256,
                    json!({"kty": "RSA", "n": trimmed(rsa.modulus), "e": trimmed(rsa.exponent)}),
                )
            }
            _ => bail!("only ECDSA P-256 and RSA keys are supported"),
        };
        jwk["use"] = json!("sig");
        jwk["kid"] = json!(id);
        jwk["alg"] = json!(algorithm.name());
        Ok(Self { algorithm, raw, id, jwk })
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `alg` of tokens that this key verifies.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// The key as a JSON Web Key.
    #[must_use]
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Whether `signature` over `message` is this key's.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let how: &dyn signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        };
        signature::UnparsedPublicKey::new(how, &self.raw).verify(message, signature).is_ok()
    }
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A key that signs.
pub struct SigningKey {
    pair: Pair,
    public: VerifyingKey,
}

impl SigningKey {
    fn ec(pkcs8: &[u8]) -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            pkcs8,
            &SystemRandom::new(),
        )
        .map_err(|error| anyhow!("unusable ECDSA P-256 key: {error}"))?;
        let public =
            VerifyingKey::from_spki(&spki(&[OID_EC_PUBLIC_KEY, OID_P256], pair.public_key().as_ref()))?;
        Ok(Self { pair: Pair::Ec(pair), public })
    }

    fn rsa(pair: Result<RsaKeyPair, ring::error::KeyRejected>) -> anyhow::Result<Self> {
        let pair = pair.map_err(|error| anyhow!("unusable RSA key: {error}"))?;
        let public = VerifyingKey::from_spki(&spki(&[OID_RSA, NULL], pair.public_key().as_ref()))?;
        Ok(Self { pair: Pair::Rsa(pair), public })
    }

    fn from_section(kind: SectionKind, bytes: &[u8]) -> Option<anyhow::Result<Self>> {
        match kind {
            SectionKind::EcPrivateKey => {
                let algorithm = der(SEQUENCE, &[OID_EC_PUBLIC_KEY, OID_P256]);
                Some(Self::ec(&der(
                    SEQUENCE,
                    &[&[0x02, 0x01, 0x00], &algorithm, &der(OCTET_STRING, &[bytes])],
                )))
            }
            SectionKind::RsaPrivateKey => Some(Self::rsa(RsaKeyPair::from_der(bytes))),
            SectionKind::PrivateKey if bytes.windows(OID_RSA.len()).any(|part| part == OID_RSA) => {
                Some(Self::rsa(RsaKeyPair::from_pkcs8(bytes)))
            }
            SectionKind::PrivateKey => Some(Self::ec(bytes)),
            _ => None,
        }
    }

    /// The first private key of a PEM file.
    ///
    /// # Errors
    /// The file cannot be read or has no usable key.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let key = sections(path)?.into_iter().find_map(|(kind, bytes)| Self::from_section(kind, &bytes));
        key.unwrap_or_else(|| Err(anyhow!("no private key in it")))
            .with_context(|| format!("cannot sign with {}", path.display()))
    }

    /// The half that verifies.
    #[must_use]
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// The JSON Web Token (RFC 7519) that says `claims`.
    ///
    /// # Errors
    /// The system's source of randomness failed.
    pub fn token(&self, claims: &impl Serialize) -> Result<String, ring::error::Unspecified> {
        let header = json!({"alg": self.public.algorithm(), "kid": self.public.id()});
        let claims = serde_json::to_vec(claims).map_err(|_| ring::error::Unspecified)?;
        let mut token =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// The signature of `message`.
    ///
    /// # Errors
    /// The system's source of randomness failed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut out = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut out)?;
                Ok(out)
            }
        }
    }
}

fn sections(path: &Path) -> anyhow::Result<Vec<(SectionKind, Vec<u8>)>> {
    let sections = <(SectionKind, Vec<u8>)>::pem_file_iter(path).and_then(Iterator::collect);
    sections.with_context(|| format!("cannot read keys from {}", path.display()))
}

/// Every public key in a PEM file, those of private keys included.
///
/// # Errors
/// The file cannot be read, or holds no key or one that cannot be used.
pub fn verifying_keys(path: &Path) -> anyhow::Result<Vec<VerifyingKey>> {
    let keys: anyhow::Result<Vec<_>> = sections(path)?
        .into_iter()
        .filter_map(|(kind, bytes)| match kind {
            SectionKind::PublicKey => Some(VerifyingKey::from_spki(&bytes)),
            _ => SigningKey::from_section(kind, &bytes).map(|key| Ok(key?.public)),
        })
        .collect();
    let keys = keys.with_context(|| format!("cannot verify with {}", path.display()))?;
    if keys.is_empty() {
        bail!("{} holds no public or private key", path.display());
    }
    Ok(keys)
}
