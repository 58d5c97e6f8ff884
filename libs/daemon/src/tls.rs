//! TLS from PEM files, the same for every listener and client: our CA, TLS 1.2 or later, files re-read when they change.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
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
    let (chain, key) = identity.read()?;
    let builder = ServerConfig::builder();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((ca, auth)) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots(ca)?));
            let verifier =
                if auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier =
                verifier.build().map_err(|source| TlsError::Verifier { path: ca.to_owned(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
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
