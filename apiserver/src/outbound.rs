//! Connections to servers that the cluster's objects name: webhooks and aggregated APIs.
//!
//! In: a Service or host, and a CA bundle. Out: where to connect, and how to trust what answers there.
//!
//! Invariant: an address that comes from an EndpointSlice is never this machine's own. A Service of type ExternalName names
//! any host: whoever may make those is trusted with it, as in Kubernetes.

pub mod credentials;
pub mod endpoints;
#[cfg(test)]
pub mod fake;
mod records;
pub mod relay;
pub mod remembered;
pub mod remote;

pub use endpoints::is_proxyable;
pub use relay::{Destination, Relay, RelayError};

use crate::reader::Reader;
use base64::Engine;
use coracle_api::status::GroupResource;
use coracle_daemon::panics::Mutex;
use coracle_daemon::random;
use coracle_daemon::tls::{self, Identity};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Configurations that are kept.
const KEPT_MAX: usize = 100;

/// The bytes of a `caBundle`; `None` for an absent one.
///
/// # Errors
/// It is no base64.
pub fn bundle(value: &Value) -> Result<Option<Vec<u8>>, String> {
    let text = value.as_str().filter(|text| !text.is_empty());
    let decoded = text.map(|text| base64::prelude::BASE64_STANDARD.decode(text));
    decoded.transpose().map_err(|error| format!("unable to load root certificates: {error}"))
}

/// Everywhere that a Service's port is served now.
///
/// # Errors
/// There is no such Service or port.
pub fn addresses(
    reader: &dyn Reader,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<(String, u16)>, String> {
    let service = reader.get(&GroupResource::new("", "services"), namespace, name);
    if let Some(spec) = service.as_ref().map(|service| &service["spec"])
        && spec["type"] == "ExternalName"
    {
        return Ok(vec![(spec["externalName"].as_str().unwrap_or_default().to_owned(), port)]);
    }
    let mut found = endpoints::ready(reader, namespace, name, &port.to_string())?;
    found.retain(|(host, _)| is_proxyable(host));
    Ok(found)
}

/// One of them.
///
/// # Errors
/// There is no such Service or port, or nobody serves it.
pub fn service(reader: &dyn Reader, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
    let mut found = addresses(reader, namespace, name, port)?;
    if found.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    let chosen = usize::try_from(random::below(found.len() as u64)).unwrap_or(0);
    Ok(found.swap_remove(chosen))
}

/// An error of a connection in Go's words.
#[must_use]
pub fn told(error: &RelayError) -> String {
    match error {
        RelayError::Connect { to, source } => {
            let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls {
                Some(error) => format!("tls: failed to verify certificate: {}", untrusted(error)),
                None if source.kind() == io::ErrorKind::ConnectionRefused => {
                    format!("dial tcp {to}: connect: connection refused")
                }
                None => format!("dial tcp {to}: {source}"),
            }
        }
        RelayError::Http { .. } => "EOF".to_owned(),
        RelayError::Form(_) => error.to_string(),
    }
}

fn untrusted(error: &rustls::Error) -> String {
    use rustls::CertificateError as Fault;
    match error {
        rustls::Error::InvalidCertificate(Fault::UnknownIssuer | Fault::BadSignature) => {
            "x509: certificate signed by unknown authority".to_owned()
        }
        rustls::Error::InvalidCertificate(Fault::Expired | Fault::ExpiredContext { .. }) => {
            "x509: certificate has expired or is not yet valid".to_owned()
        }
        other => format!("x509: {other}"),
    }
}

/// TLS configurations by CA bundle, made once.
#[derive(Default)]
pub struct Trust {
    identity: Option<Identity>,
    /// The same, read.
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    known: Mutex<HashMap<Option<Vec<u8>>, Arc<ClientConfig>>>,
    anybody: Mutex<Option<Arc<ClientConfig>>>,
}

impl Trust {
    /// That shows `identity` to servers.
    #[must_use]
    pub fn with_identity(identity: Option<Identity>) -> Self {
        Self { identity, ..Self::default() }
    }

    /// That shows this certificate.
    #[must_use]
    pub fn with_certificate(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { certificate: Some((chain, key)), ..Self::default() }
    }

    /// Trusting this PEM bundle only; this machine's authorities without one.
    ///
    /// # Errors
    /// The bundle holds no certificate, or the identity cannot be read.
    pub fn config(&self, bundle: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
        let key = bundle.map(<[u8]>::to_vec);
        if let Some(config) = self.known.lock().get(&key) {
            return Ok(config.clone());
        }
        let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(trusting(bundle)?);
        let config = Arc::new(self.finish(builder)?);
        let mut known = self.known.lock();
        if known.len() > KEPT_MAX {
            known.clear();
        }
        known.insert(key, config.clone());
        Ok(config)
    }

    /// Trusting anybody, as `insecureSkipTLSVerify` asks for.
    ///
    /// # Errors
    /// The identity cannot be read.
    pub fn insecure(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = self.anybody.lock().as_ref() {
            return Ok(config.clone());
        }
        let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(tls::any_server());
        let config = Arc::new(self.finish(builder)?);
        *self.anybody.lock() = Some(config.clone());
        Ok(config)
    }

    fn finish(
        &self,
        builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    ) -> Result<ClientConfig, String> {
        if let Some((chain, key)) = &self.certificate {
            let config = builder.with_client_auth_cert(chain.clone(), key.clone_key());
            return config.map_err(|error| error.to_string());
        }
        let Some(identity) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let shown = tls::shown(identity).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {cause}")
        })?;
        Ok(builder.with_client_cert_resolver(shown))
    }
}

fn trusting(bundle: Option<&[u8]>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let Some(bundle) = bundle else {
        return Ok(tls::signed_by(rustls_native_certs::load_native_certs().certs));
    };
    let given: Vec<_> = CertificateDer::pem_slice_iter(bundle).filter_map(Result::ok).collect();
    if RootCertStore::empty().add_parsable_certificates(given.iter().cloned()).0 == 0 {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
    }
    Ok(tls::signed_by(given))
}
