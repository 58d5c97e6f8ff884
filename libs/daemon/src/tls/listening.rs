//! A listener's side of TLS: which certificate is shown before which name, which versions and ciphers are spoken.

use super::{Acceptor, ClientAuth, Fresh, Identity, TlsError, owned, provider, read_client_verifier};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::Path;
use std::sync::Arc;

const ONLY_1_3: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub struct Listening<'a> {
    /// What is shown to those who ask for no other name.
    pub identity: &'a Identity,
    /// Other certificates, before their names; `*.example.com` stands for every name right below.
    pub named: Vec<(Vec<String>, Identity)>,
    /// CA files of clients.
    pub clients: Option<(&'a [&'a Path], ClientAuth)>,
    /// Protocols in order of preference (`b"h2"`, `b"http/1.1"`).
    pub alpn: &'a [&'a [u8]],
    /// The ciphers of TLS 1.2, in rustls' names; all where there is no list. Those of 1.3 are always spoken.
    pub ciphers: Option<Vec<String>>,
    /// Whether TLS 1.2 is not spoken.
    pub only_1_3: bool,
}

impl<'a> Listening<'a> {
    /// With a certificate, and nothing asked.
    #[must_use]
    pub fn new(identity: &'a Identity) -> Self {
        Self { identity, named: Vec::new(), clients: None, alpn: &[], ciphers: None, only_1_3: false }
    }
}

fn cipher_name(suite: rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite())
}

/// Whether there is a cipher of that name.
#[must_use]
pub fn has_cipher(name: &str) -> bool {
    provider().cipher_suites.iter().any(|suite| cipher_name(*suite) == name)
}

/// The certificates of a listener.
#[derive(Debug)]
struct Certificates {
    usual: Arc<CertifiedKey>,
    named: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

impl Certificates {
    fn of(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let found =
            self.named.iter().find(|(names, _)| names.iter().any(|own| own.eq_ignore_ascii_case(name)));
        found.map(|(_, key)| key)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().unwrap_or_default();
        let below = asked.split_once('.').map(|(_, rest)| format!("*.{rest}")).unwrap_or_default();
        let found = self.of(asked).or_else(|| self.of(&below));
        Some(found.unwrap_or(&self.usual).clone())
    }
}

fn certified(identity: &Identity, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = identity.read()?;
    let certified = CertifiedKey::from_der(chain, key, provider);
    certified.map(Arc::new).map_err(|source| TlsError::Unusable { path: identity.cert.clone(), source })
}

/// The listener's side, as its files have it when a connection begins.
///
/// # Errors
/// A file cannot be read, or certificate and key do not fit.
pub fn listening(of: &Listening<'_>) -> Result<Acceptor, TlsError> {
    let clients = of.clients.map(|(authorities, auth)| (owned(authorities), auth));
    let identities = std::iter::once(of.identity).chain(of.named.iter().map(|(_, identity)| identity));
    let mut paths: Vec<_> =
        identities.flat_map(|identity| [identity.cert.clone(), identity.key.clone()]).collect();
    paths.extend(clients.iter().flat_map(|(authorities, _)| authorities.clone()));
    let (identity, named) = (of.identity.clone(), of.named.clone());
    let alpn: Vec<Vec<u8>> = of.alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let mut spoken = provider().as_ref().clone();
    if let Some(ciphers) = &of.ciphers {
        spoken
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || ciphers.contains(&cipher_name(*suite)));
    }
    let has_1_2 = spoken.cipher_suites.iter().any(|suite| suite.tls13().is_none());
    let versions = if of.only_1_3 || !has_1_2 { ONLY_1_3 } else { rustls::ALL_VERSIONS };
    let spoken = Arc::new(spoken);
    let make = move || {
        let unusable = |source| TlsError::Unusable { path: identity.cert.clone(), source };
        let builder = ServerConfig::builder_with_provider(spoken.clone());
        let builder = builder.with_protocol_versions(versions).map_err(unusable)?;
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some((authorities, auth)) => {
                builder.with_client_cert_verifier(read_client_verifier(authorities, *auth)?)
            }
        };
        let named = named.iter().map(|(names, identity)| Ok((names.clone(), certified(identity, &spoken)?)));
        let certificates = Certificates {
            usual: certified(&identity, &spoken)?,
            named: named.collect::<Result<_, TlsError>>()?,
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols.clone_from(&alpn);
        Ok(Arc::new(config))
    };
    Ok(Acceptor(Arc::new(Fresh::new(paths, make)?)))
}
