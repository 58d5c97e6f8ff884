//! TLS from PEM files, the same for every listener and client: our CA, TLS 1.2 or later, files re-read when they change.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is missing, unreadable or not PEM.
    #[error("cannot read {what} from {}", path.display())]
    Read {
        /// What was wanted of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The parts do not fit together, or the CA file holds no certificate.
    #[error("cannot use {} for TLS", path.display())]
    Unusable {
        /// The certificate or CA file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
    /// The CA file cannot verify clients.
    #[error("cannot verify clients with {}", path.display())]
    Verifier {
        /// The CA file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// What a listener asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Refuse a connection without a certificate of our CA.
    Required,
    /// Verify a certificate when there is one.
    Optional,
}

/// A certificate chain with its key, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

impl Identity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::Read {
            what: "a private key",
            path: self.key.clone(),
            source,
        })?;
        Ok((certificates(&self.cert)?, key))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|source| TlsError::Read {
        what: "certificates",
        path: path.to_owned(),
        source,
    })
}

/// The trust anchors in a PEM file.
///
/// # Errors
/// The file cannot be read or holds something that is no certificate.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|source| TlsError::Unusable { path: path.to_owned(), source })?;
    }
    Ok(store)
}

/// A server's configuration; `alpn` in order of preference (`b"h2"`, `b"http/1.1"`).
///
/// # Errors
/// A file cannot be read, or certificate and key do not fit.
pub fn server(
    identity: &Identity,
    clients: Option<(&Path, ClientAuth)>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let clients = clients.map(|(ca, auth)| client_verifier(&[ca], auth)).transpose()?;
    server_that_verifies(identity, clients, alpn)
}

/// What tells clients' certificates of any of these CAs from others.
///
/// # Errors
/// A file cannot be read, or there is no CA.
pub fn client_verifier(
    authorities: &[&Path],
    auth: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for path in authorities {
        store.extend(roots(path)?.roots);
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(store));
    let verifier = if auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
    let path = authorities.first().map(|path| (*path).to_owned()).unwrap_or_default();
    verifier.build().map_err(|source| TlsError::Verifier { path, source })
}

/// A server's configuration with clients verified by `clients`; see [`server`].
///
/// # Errors
/// A file cannot be read, or certificate and key do not fit.
pub fn server_that_verifies(
    identity: &Identity,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = identity.read()?;
    let builder = ServerConfig::builder();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Unusable { path: identity.cert.clone(), source })?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client's configuration: trusts `ca` only, and shows `identity` when given one.
///
/// # Errors
/// A file cannot be read, or certificate and key do not fit.
pub fn client(ca: &Path, identity: Option<&Identity>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder().with_root_certificates(roots(ca)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity.read()?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::Unusable { path: identity.cert.clone(), source })?
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Takes any server's certificate: for those who ask whether a server answers, not who it is, and where a user asks for it.
#[must_use]
pub fn any_server() -> Arc<dyn ServerCertVerifier> {
    let provider = CryptoProvider::get_default().cloned();
    Arc::new(AnyServer(provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))))
}

/// Checks signatures, but not whose they are.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// Whether a client with that configuration comes to terms with a server whose certificate nobody has signed.
    async fn agrees(client: ClientConfig) -> bool {
        let dir = tempfile::tempdir().expect("a folder");
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let identity = Identity { cert: dir.path().join("crt"), key: dir.path().join("key") };
        std::fs::write(&identity.cert, own.cert.pem()).expect("written");
        std::fs::write(&identity.key, own.signing_key.serialize_pem()).expect("written");
        let acceptor = TlsAcceptor::from(server(&identity, None, &[]).expect("a server"));
        let (here, there) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("elsewhere").expect("a name");
        let (asked, _) =
            tokio::join!(TlsConnector::from(Arc::new(client)).connect(name, here), acceptor.accept(there));
        asked.is_ok()
    }

    #[tokio::test]
    async fn a_stranger_is_trusted_only_by_those_who_trust_anybody() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let trusting = ClientConfig::builder().dangerous().with_custom_certificate_verifier(any_server());
        assert!(agrees(trusting.with_no_client_auth()).await);
        let wary = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        assert!(!agrees(wary.with_no_client_auth()).await);
    }
}
