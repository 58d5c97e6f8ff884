//! Certificates of clients: asked for by a listener that lets in whoever has the key of one, and told apart later.
//!
//! An API server answers who shows a certificate that it does not know, in HTTP. It also takes certificates of version 1, as
//! `openssl x509 -req` makes them, which `webpki` does not read; an authority must have signed such a one itself.

use super::trust::provider;
use super::{ClientAuth, Fresh, TlsError, certificates, owned, read_client_verifier};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

fn read<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let read = X509Certificate::from_der(certificate);
    read.map(|(_, read)| read).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Tells whose certificates those of some CA files are.
#[derive(Debug)]
pub struct Chains {
    verifier: Arc<dyn ClientCertVerifier>,
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

/// What tells clients' certificates of any of these CA files from others.
///
/// # Errors
/// A file cannot be read, or there is no CA.
pub fn chains(authorities: &[&Path]) -> Result<Fresh<Chains>, TlsError> {
    let paths = owned(authorities);
    Fresh::new(paths.clone(), move || {
        let read = paths.iter().map(|path| certificates(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Chains {
            verifier: read_client_verifier(&paths, ClientAuth::Required)?,
            authorities: read.into_iter().flatten().collect(),
            provider: provider(),
        }))
    })
}

impl Chains {
    /// Whether one of the authorities stands behind a client's certificates, leaf first, at a time.
    #[must_use]
    pub fn know(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let [leaf, rest @ ..] = chain else { return false };
        self.verifier.verify_client_cert(leaf, rest, now).is_ok() || self.know_old(leaf, now)
    }

    /// The same of a certificate of version 1: it says of nothing what it may be used for.
    fn know_old(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
        let Ok(leaf) = read(leaf) else { return false };
        let valid = leaf.validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let in_time = (valid.not_before.timestamp()..=valid.not_after.timestamp()).contains(&now);
        let signed = |authority: &X509Certificate<'_>| {
            let key = &authority.public_key().subject_public_key.data;
            self.provider.signature_verification_algorithms.all.iter().any(|algorithm| {
                let (body, signature) = (leaf.tbs_certificate.as_ref(), &leaf.signature_value.data);
                algorithm.verify_signature(key, body, signature).is_ok()
            })
        };
        leaf.version() == X509Version::V1
            && in_time
            && self
                .authorities
                .iter()
                .filter_map(|authority| read(authority).ok())
                .any(|authority| authority.subject().as_raw() == leaf.issuer().as_raw() && signed(&authority))
    }
}

/// Lets in whoever has the key of the certificate that it shows, or shows none.
#[derive(Debug)]
struct Asking {
    verifier: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

/// A listener's side that asks for certificates of these authorities and takes any.
pub(super) fn asking(authorities: &[PathBuf]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let verifier = read_client_verifier(authorities, ClientAuth::Optional)?;
    Ok(Arc::new(Asking { verifier, provider: provider() }))
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verifier.verify_tls12_signature(message, certificate, signed) {
            Err(Error::InvalidCertificate(_)) => {}
            verified => return verified,
        }
        let old = read(certificate)?;
        let key = &old.public_key().subject_public_key.data;
        let known = self.provider.signature_verification_algorithms.mapping.iter();
        let mut algorithms = known.filter(|(scheme, _)| *scheme == signed.scheme).flat_map(|(_, all)| *all);
        if algorithms.any(|algorithm| algorithm.verify_signature(key, message, signed.signature()).is_ok()) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.verifier.verify_tls13_signature(message, certificate, signed) {
            Err(Error::InvalidCertificate(_)) => {}
            verified => return verified,
        }
        let old = read(certificate)?;
        let key = SubjectPublicKeyInfoDer::from(old.public_key().raw);
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Identity, Listening, listening};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ClientConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::version::{TLS12, TLS13};
    use std::time::Duration;
    use tokio_rustls::TlsConnector;

    // Made by `openssl x509 -req`, which writes version 1: `old` for CN=old of the authority `ca`, from 2026 to 2126.
    const CA: &str = include_str!("testdata/ca.pem");
    const OLD: &str = include_str!("testdata/old.pem");
    const OLD_KEY: &str = include_str!("testdata/old-key.pem");

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn pem(text: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(text.as_bytes()).expect("a certificate")
    }

    #[test]
    fn certificates_of_version_1_are_those_of_the_authority_that_signed_them_while_they_last() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca");
        std::fs::write(&path, CA).expect("written");
        let (soon, late) = (at(1_800_000_000), at(5_000_000_000));
        let own = chains(&[&path]).expect("chains").get();
        assert!(own.know(&[pem(OLD)], soon));
        assert!(!own.know(&[pem(OLD)], late), "out of its time");
        assert!(!own.know(&[], soon));
        // Another authority of the same name has not signed it.
        let mut other = CertificateParams::default();
        other.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        other.distinguished_name = rcgen::DistinguishedName::new();
        other.distinguished_name.push(rcgen::DnType::CommonName, "ca");
        let other = other.self_signed(&KeyPair::generate().expect("a key")).expect("signs");
        std::fs::write(&path, other.pem()).expect("written");
        assert!(!chains(&[&path]).expect("chains").get().know(&[pem(OLD)], soon));
    }

    #[tokio::test]
    async fn whoever_has_the_key_of_any_certificate_is_let_in_and_nobody_who_has_not() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().expect("a key"));
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let server = params.signed_by(&key, &issuer).expect("signs").pem();
        let identity = Identity { cert: file("cert", &server), key: file("key", &key.serialize_pem()) };
        let ca = file("ca", CA);
        let clients = Some((&[ca.as_path()][..], ClientAuth::Asked));
        let server = listening(&Listening { clients, ..Listening::new(&identity) }).expect("a listener");
        let stranger = params.signed_by(&key, &issuer).expect("signs").pem();
        for (certificate, key, want) in [
            (OLD, OLD_KEY.to_owned(), true),
            (stranger.as_str(), key.serialize_pem(), true),
            (OLD, key.serialize_pem(), false),
        ] {
            for version in [&TLS12, &TLS13] {
                let client = ClientConfig::builder_with_protocol_versions(&[version])
                    .dangerous()
                    .with_custom_certificate_verifier(super::super::any_server())
                    .with_client_cert_resolver(Arc::new(Shows(certificate.to_owned(), key.clone())));
                let (here, there) = tokio::io::duplex(1 << 16);
                let name = ServerName::try_from("localhost").expect("a name");
                let (_, accepted) = tokio::join!(
                    TlsConnector::from(Arc::new(client)).connect(name, here),
                    server.accept(there)
                );
                assert_eq!(accepted.is_ok(), want, "{version:?}");
            }
        }
    }

    /// Shows a certificate whether the key is its own or not.
    #[derive(Debug)]
    struct Shows(String, String);

    impl rustls::client::ResolvesClientCert for Shows {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
            let key = PrivateKeyDer::from_pem_slice(self.1.as_bytes()).expect("a key");
            let key = provider().key_provider.load_private_key(key).expect("a key");
            Some(Arc::new(rustls::sign::CertifiedKey::new(vec![pem(&self.0)], key)))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }
}
