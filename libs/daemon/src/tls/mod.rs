//! TLS from PEM files, the same for every listener and client: our CA, TLS 1.2 or later. A connection goes by what the files say
//! when it begins, so that certificates can be replaced while processes run.

mod clients;
mod fresh;
mod listening;
mod trust;

pub use clients::{Chains, chains};
pub use fresh::Fresh;
pub use listening::{Listening, has_cipher, listening};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, VerifierBuilderError};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{Accept, TlsAcceptor};
use trust::{Authorities, Servers, Shown, Trusted, provider};

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
    /// The CA file cannot verify the other side.
    #[error("cannot verify certificates with {}", path.display())]
    Verifier {
        /// The CA file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: VerifierBuilderError,
    },
}

/// What a listener asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Refuse a connection without a certificate of our CA.
    Required,
    /// Verify a certificate when there is one.
    Optional,
    /// Take any certificate whose key the client has, or none: what it is worth is told later, by [`chains`].
    Asked,
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
    let unread = |source| TlsError::Read { what: "certificates", path: path.to_owned(), source };
    let read: Vec<_> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(unread)?;
    if read.is_empty() { Err(unread(pem::Error::NoItemsFound)) } else { Ok(read) }
}

/// The trust anchors in a PEM file.
///
/// # Errors
/// The file cannot be read or holds something that is no certificate.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    anchors(path, certificates(path)?)
}

fn anchors(path: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate).map_err(|source| TlsError::Unusable { path: path.to_owned(), source })?;
    }
    Ok(store)
}

/// The server's side of TLS, as its files have it when a connection begins. Clones share it.
#[derive(Clone, Debug)]
pub struct Acceptor(Arc<Fresh<ServerConfig>>);

impl Acceptor {
    /// Agrees on keys with a client that has connected.
    pub fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Accept<S> {
        TlsAcceptor::from(self.0.get()).accept(stream)
    }
}

fn owned(paths: &[&Path]) -> Vec<PathBuf> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

/// A server's side, with clients of any of the CA files verified; `alpn` in order of preference (`b"h2"`, `b"http/1.1"`).
///
/// # Errors
/// A file cannot be read, or certificate and key do not fit.
pub fn server(
    identity: &Identity,
    clients: Option<(&[&Path], ClientAuth)>,
    alpn: &[&[u8]],
) -> Result<Acceptor, TlsError> {
    listening(&Listening { clients, alpn, ..Listening::new(identity) })
}

fn read_client_verifier(
    authorities: &[PathBuf],
    auth: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for path in authorities {
        store.extend(roots(path)?.roots);
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(store));
    let verifier = match auth {
        ClientAuth::Required => verifier,
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Asked => return clients::asking(authorities),
    };
    let path = authorities.first().cloned().unwrap_or_default();
    verifier.build().map_err(|source| TlsError::Verifier { path, source })
}

/// A client's configuration: trusts `ca` only, and shows `identity` when given one.
///
/// # Errors
/// A file cannot be read, or certificate and key do not fit.
pub fn client(ca: &Path, identity: Option<&Identity>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let path = ca.to_owned();
    let trusted = Fresh::new(vec![ca.to_owned()], move || {
        let given = certificates(&path)?;
        Ok(Arc::new(Authorities::new(anchors(&path, given.clone())?, given)))
    })?;
    let servers = Servers { provider: provider(), trusted: Some(Trusted::Files(trusted)) };
    let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(shown(identity)?),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Shows servers a client's certificate, as its files have it when a connection begins.
///
/// # Errors
/// A file cannot be read, or certificate and key do not fit.
pub fn shown(identity: &Identity) -> Result<Arc<dyn ResolvesClientCert>, TlsError> {
    let identity = identity.clone();
    let certified = Fresh::new(vec![identity.cert.clone(), identity.key.clone()], move || {
        let (chain, key) = identity.read()?;
        let certified = CertifiedKey::from_der(chain, key, &provider());
        certified.map(Arc::new).map_err(|source| TlsError::Unusable { path: identity.cert.clone(), source })
    })?;
    Ok(Arc::new(Shown(certified)))
}

/// Takes the certificates of servers that these authorities have signed, and these themselves.
#[must_use]
pub fn signed_by(authorities: Vec<CertificateDer<'static>>) -> Arc<dyn ServerCertVerifier> {
    let mut anchors = RootCertStore::empty();
    anchors.add_parsable_certificates(authorities.iter().cloned());
    let trusted = Some(Trusted::Given(Authorities::new(anchors, authorities)));
    Arc::new(Servers { provider: provider(), trusted })
}

/// Takes any server's certificate: for those who ask whether a server answers, not who it is, and where a user asks for it.
#[must_use]
pub fn any_server() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Servers { provider: provider(), trusted: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::ServerName;
    use tokio_rustls::TlsConnector;

    /// A new authority, and a certificate of it that serves and asks as `localhost`.
    fn renew(folder: &Path) {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).expect("signs").pem();
        let key = KeyPair::generate().expect("a key");
        let cert = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let cert = cert.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signs").pem();
        for (name, text) in [("ca", ca_pem), ("cert", cert), ("key", key.serialize_pem())] {
            std::fs::write(folder.join(name), text).expect("written");
        }
    }

    fn identity(folder: &Path) -> Identity {
        Identity { cert: folder.join("cert"), key: folder.join("key") }
    }

    /// Whether both come to terms.
    async fn agree(client: &Arc<ClientConfig>, server: &Acceptor) -> bool {
        let (here, there) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("localhost").expect("a name");
        let (asked, accepted) =
            tokio::join!(TlsConnector::from(client.clone()).connect(name, here), server.accept(there));
        asked.is_ok() && accepted.is_ok()
    }

    #[tokio::test]
    async fn a_stranger_is_trusted_only_by_those_who_trust_anybody() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        renew(folder.path());
        let server = server(&identity(folder.path()), None, &[]).expect("a server");
        let trusting = ClientConfig::builder().dangerous().with_custom_certificate_verifier(any_server());
        assert!(agree(&Arc::new(trusting.with_no_client_auth()), &server).await);
        let wary = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        assert!(!agree(&Arc::new(wary.with_no_client_auth()), &server).await);
    }

    #[tokio::test]
    async fn who_signed_itself_is_trusted_as_what_it_is_whether_it_calls_itself_an_authority_or_not() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        // (whether it is an authority by its own word, whose name it holds, whether it is trusted)
        for (authority, name, want) in
            [(false, "localhost", true), (true, "localhost", true), (true, "other", false)]
        {
            let key = KeyPair::generate().expect("a key");
            let mut cert = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
            if authority {
                cert.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            let cert = cert.self_signed(&key).expect("signs");
            std::fs::write(folder.path().join("cert"), cert.pem()).expect("written");
            std::fs::write(folder.path().join("key"), key.serialize_pem()).expect("written");
            let server = server(&identity(folder.path()), None, &[]).expect("a server");
            let by_file = client(&folder.path().join("cert"), None, &[]).expect("a client");
            assert_eq!(agree(&by_file, &server).await, want, "{authority} {name}");
            let trusting = signed_by(vec![cert.der().clone()]);
            let given = ClientConfig::builder().dangerous().with_custom_certificate_verifier(trusting);
            assert_eq!(agree(&Arc::new(given.with_no_client_auth()), &server).await, want);
            // Another of the same name is a stranger.
            renew(folder.path());
            let other = client(&folder.path().join("ca"), None, &[]).expect("a client");
            std::fs::write(folder.path().join("cert"), cert.pem()).expect("written");
            assert!(!agree(&other, &server).await);
        }
    }

    #[test]
    fn a_file_without_certificates_is_told_as_such() {
        let folder = tempfile::tempdir().expect("a folder");
        renew(folder.path());
        std::fs::write(folder.path().join("cert"), "garbage").expect("written");
        let refused = server(&identity(folder.path()), None, &[]).expect_err("no certificate");
        assert!(matches!(refused, TlsError::Read { source: pem::Error::NoItemsFound, .. }), "{refused:?}");
    }

    #[tokio::test]
    async fn both_sides_follow_their_files_when_authorities_and_certificates_are_replaced() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (ours, theirs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        renew(ours.path());
        for name in ["ca", "cert", "key"] {
            std::fs::copy(ours.path().join(name), theirs.path().join(name)).expect("copied");
        }
        let authority = ours.path().join("ca");
        let server =
            server(&identity(ours.path()), Some((&[authority.as_path()], ClientAuth::Required)), &[])
                .expect("a server");
        let own = identity(theirs.path());
        let client = client(&theirs.path().join("ca"), Some(&own), &[]).expect("a client");
        assert!(agree(&client, &server).await);
        renew(ours.path());
        assert!(!agree(&client, &server).await, "the other side's are of an authority that is no more");
        // One file after the other, as they come.
        for name in ["ca", "cert"] {
            std::fs::copy(ours.path().join(name), theirs.path().join(name)).expect("copied");
            assert!(!agree(&client, &server).await, "the key is still to come");
        }
        std::fs::copy(ours.path().join("key"), theirs.path().join("key")).expect("copied");
        assert!(agree(&client, &server).await);
    }
}
