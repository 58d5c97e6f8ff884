//! Whose certificate a client takes and which it shows: what the files say now.

use super::Fresh;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The process's cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let provider = CryptoProvider::get_default().cloned();
    provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// Authorities, and the certificates that are trusted as they are: one that signed itself, as `openssl req -x509` makes it, is an
/// authority's by its own word and serves all the same.
#[derive(Debug)]
pub(super) struct Authorities {
    /// `None` where there is no authority at all.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// `certificates` with what they anchor.
    pub fn new(anchors: RootCertStore, certificates: Vec<CertificateDer<'static>>) -> Self {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), provider()).build();
        Self { verifier: verifier.ok(), certificates }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(verifier) = &self.verifier else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        match verifier.verify_server_cert(leaf, chain, name, ocsp, now) {
            // Its time has been looked at before.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.certificates.iter().any(|known| known == leaf) =>
            {
                verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }
}

/// Whom a client trusts: by files, or for good.
#[derive(Debug)]
pub(super) enum Trusted {
    Files(Fresh<Authorities>),
    Given(Authorities),
}

/// Takes the certificates that a CA file's authorities have signed, or anybody's; checks signatures in any case.
#[derive(Debug)]
pub(super) struct Servers {
    pub provider: Arc<CryptoProvider>,
    /// `None` takes anybody's.
    pub trusted: Option<Trusted>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trusted {
            Some(Trusted::Files(files)) => files.get().verify(leaf, chain, name, ocsp, now),
            Some(Trusted::Given(given)) => given.verify(leaf, chain, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Shows a client's certificate.
#[derive(Debug)]
pub(super) struct Shown(pub Fresh<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
