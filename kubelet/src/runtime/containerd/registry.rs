//! One repository of an image registry, over the OCI distribution API: manifests and blobs out, after whatever
//! authentication the registry asks for.
//!
//! Errors are texts, worded as containerd words them, because people search for them.

use crate::runtime::RegistryAuth;
use crate::runtime::reference::Reference;
use base64::Engine;
use bytes::Bytes;
use coracle_daemon::clock;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A registry that takes longer to connect is not in reach.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A registry that takes longer to begin its answer does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
const HOPS_MAX: usize = 6;
/// Longest token or error answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Documents we can read, in the order that we like them.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*";

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A repository of a registry.
pub struct Registry {
    client: Https,
    base: Url,
    path: String,
    auth: Option<RegistryAuth>,
    /// What the registry wanted to see last.
    proof: Mutex<Option<HeaderValue>>,
}

/// How a registry wants to be asked.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    bearer: bool,
    realm: String,
    service: String,
    scope: String,
}

impl Registry {
    pub fn new(reference: &Reference, auth: Option<&RegistryAuth>) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_MAX));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let host = if reference.host == "docker.io" { "registry-1.docker.io" } else { &reference.host };
        // Registries on this very machine may speak plainly, as with Docker and containerd.
        let scheme = if is_local(host) { "http" } else { "https" };
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(https.wrap_connector(http)),
            base: Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| error.to_string())?,
            path: reference.path.clone(),
            auth: auth.cloned(),
            proof: Mutex::new(None),
        })
    }

    /// A manifest or index by tag or digest: its answer, not read yet.
    pub async fn manifest(&self, version: &str) -> Result<Response<Incoming>, String> {
        self.get(&format!("{}/manifests/{version}", self.path)).await
    }

    /// A layer or configuration: its answer, not read yet.
    pub async fn blob(&self, digest: &str) -> Result<Response<Incoming>, String> {
        self.get(&format!("{}/blobs/{digest}", self.path)).await
    }

    async fn get(&self, path: &str) -> Result<Response<Incoming>, String> {
        let mut url = self.base.join(path).map_err(|error| error.to_string())?;
        let mut asked = false;
        for _ in 0..HOPS_MAX {
            // A registry's proof is nobody else's business.
            let own = url.origin() == self.base.origin();
            let proof = self.proof.lock().clone().filter(|_| own);
            let answer = self.send(&url, proof).await?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            if status == StatusCode::UNAUTHORIZED && own && !asked {
                asked = true;
                self.prove(&answer).await?;
                continue;
            }
            if status.is_redirection()
                && let Some(location) = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok())
            {
                url = url.join(location).map_err(|error| error.to_string())?;
                continue;
            }
            return Err(refusal(&url, status));
        }
        Err(format!("unexpected number of redirects from {}", self.base))
    }

    async fn send(&self, url: &Url, proof: Option<HeaderValue>) -> Result<Response<Incoming>, String> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(url.as_str())
            .header(USER_AGENT, concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, MANIFESTS);
        if let Some(proof) = proof {
            request = request.header(AUTHORIZATION, proof);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let failed = |why: String| {
            // The C library's words differ from machine to machine; people look for the usual ones.
            let why = match url.host_str().filter(|_| why.starts_with("failed to lookup address")) {
                Some(host) => format!("dial tcp: lookup {host}: no such host"),
                None => why,
            };
            format!("failed to do request: Get \"{url}\": {why}")
        };
        match clock::timeout(ANSWER_MAX, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(causes(&error))),
            Err(_) => Err(failed("net/http: timeout awaiting response headers".to_owned())),
        }
    }

    /// Fetches what the registry wants to see.
    async fn prove(&self, answer: &Response<Incoming>) -> Result<(), String> {
        let wanted: Vec<&str> =
            answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok()).collect();
        let challenge = wanted
            .iter()
            .find_map(|header| parse_challenge(header))
            .ok_or_else(|| format!("no supported auth scheme in {wanted:?}"))?;
        let basic = self.auth.as_ref().map(basic).transpose()?;
        let proof = if challenge.bearer {
            self.token(&challenge, basic).await?
        } else {
            basic.ok_or("no basic auth credentials")?
        };
        *self.proof.lock() = Some(proof);
        Ok(())
    }

    async fn token(&self, challenge: &Challenge, basic: Option<HeaderValue>) -> Result<HeaderValue, String> {
        let failed = |why: String| format!("failed to authorize: failed to fetch anonymous token: {why}");
        let mut url = Url::parse(&challenge.realm).map_err(|error| failed(error.to_string()))?;
        // Credentials never travel in the clear, except on this machine.
        if url.scheme() != "https" && !url.host_str().is_some_and(is_local) {
            return Err(failed(format!("the realm {url} is not secure")));
        }
        let scope = if challenge.scope.is_empty() {
            format!("repository:{}:pull", self.path)
        } else {
            challenge.scope.clone()
        };
        if !challenge.service.is_empty() {
            url.query_pairs_mut().append_pair("service", &challenge.service);
        }
        url.query_pairs_mut().append_pair("scope", &scope);
        let answer = self.send(&url, basic).await.map_err(failed)?;
        if !answer.status().is_success() {
            let status = answer.status();
            return Err(failed(format!("unexpected status from GET request to {url}: {}", told(status))));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| failed(error.to_string()))?.to_bytes();
        #[derive(serde::Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let token: Token = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| failed(error.to_string()))
    }
}

fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn basic(auth: &RegistryAuth) -> Result<HeaderValue, String> {
    let pair =
        base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", auth.username, auth.password));
    let mut value = HeaderValue::from_str(&format!("Basic {pair}")).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

fn told(status: StatusCode) -> String {
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default())
}

fn refusal(url: &Url, status: StatusCode) -> String {
    match status {
        StatusCode::NOT_FOUND => "not found".to_owned(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed".to_owned()
        }
        status => format!("unexpected status from GET request to {url}: {}", told(status)),
    }
}

/// The innermost cause says what users look for: no such host, refused, a bad certificate.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = next.to_string();
        cause = next.source();
    }
    text
}

/// `Bearer realm="…",service="…",scope="…"` or `Basic realm="…"`.
fn parse_challenge(header: &str) -> Option<Challenge> {
    let (scheme, mut rest) = header.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    if !bearer && !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut challenge =
        Challenge { bearer, realm: String::new(), service: String::new(), scope: String::new() };
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        match key.trim_matches([' ', ',']) {
            "realm" => value.clone_into(&mut challenge.realm),
            "service" => value.clone_into(&mut challenge.service),
            "scope" => value.clone_into(&mut challenge.scope),
            _ => {}
        }
        rest = after;
    }
    (!bearer || !challenge.realm.is_empty()).then_some(challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_commas_inside_of_quotes() {
        let challenge = |bearer, realm: &str, service: &str, scope: &str| {
            Some(Challenge {
                bearer,
                realm: realm.to_owned(),
                service: service.to_owned(),
                scope: scope.to_owned(),
            })
        };
        let rows = [
            (
                "Bearer realm=\"https://a/token\",service=\"r\",scope=\"repository:x:pull,push\"",
                challenge(true, "https://a/token", "r", "repository:x:pull,push"),
            ),
            ("bearer realm=\"https://a\", service=r", challenge(true, "https://a", "r", "")),
            ("Basic realm=\"x\"", challenge(false, "x", "", "")),
            ("Bearer service=\"r\"", None),
            ("Negotiate x=y", None),
            ("", None),
        ];
        for (header, expected) in rows {
            assert_eq!(parse_challenge(header), expected, "{header}");
        }
    }

    #[test]
    fn only_this_machines_registries_may_speak_plainly() {
        for (host, local) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("10.0.0.1:5000", false),
            ("localhost.evil.com", false),
        ] {
            assert_eq!(is_local(host), local, "{host}");
        }
    }
}
