//! A server that a file of the operator names (a kubeconfig, an issuer's URL): asked with JSON, over connections that are kept.
//!
//! Invariants: an answer is bounded in size and time; a try that may be made again is, a few times.

use super::trusting;
use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coracle_daemon::{clock, tls};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

const ANSWER_MAX: usize = 1 << 20;
const TRIES: u32 = 4;
const TRIES_TO_TELL: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// What servers are told of who asks.
const AGENT: &str = "kube-apiserver";

/// Why no answer came.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// Nobody answered in time.
    #[error("{method} {url:?}: {why}")]
    Silent {
        /// `Post`, `Get`.
        method: &'static str,
        /// Where.
        url: String,
        /// The cause.
        why: String,
    },
    /// It refused.
    #[error("{url}: unexpected status {code}: {text}")]
    Refused {
        /// Where.
        url: String,
        /// HTTP status.
        code: u16,
        /// What it said.
        text: String,
    },
    /// It refused in a Status.
    #[error("{message}")]
    Said {
        /// HTTP status.
        code: u16,
        /// The Status's own.
        message: String,
    },
    /// It answered something else.
    #[error("{url}: {why}")]
    Strange {
        /// Where.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl RemoteError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Refused { code, .. } | Self::Said { code, .. } => *code >= 500 || *code == 429,
            Self::Strange { .. } => false,
        }
    }
}

/// How to be believed.
#[derive(Clone, Default)]
enum Credential {
    #[default]
    None,
    Token(String),
    File(PathBuf),
}

/// The server.
pub struct Remote {
    url: Url,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    credential: Credential,
    limit: Duration,
}

impl Remote {
    /// At `url`, trusting this PEM bundle, or this machine's authorities without one. Each try takes no longer than `limit`.
    ///
    /// # Errors
    /// The bundle holds no certificate.
    pub fn new(url: Url, bundle: Option<&[u8]>, limit: Duration) -> anyhow::Result<Self> {
        let trusted = trusting(bundle).map_err(|why| anyhow!(why))?;
        let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(trusted);
        let config = builder.with_no_client_auth();
        Ok(Self::over(url, config, Credential::None, limit))
    }

    fn over(url: Url, config: ClientConfig, credential: Credential, limit: Duration) -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(90)).build(connector);
        Self { url, client, credential, limit }
    }

    /// The server of a kubeconfig's current context.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn from_kubeconfig(path: &Path, limit: Duration) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: Value =
            serde_yaml_ng::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        from_config(&file, folder, limit).with_context(|| format!("cannot use kubeconfig {}", path.display()))
    }

    /// Sends a question to the server and reads its answer.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn ask(&self, question: &Value) -> Result<Value, RemoteError> {
        let body = Bytes::from(question.to_string());
        // As client-go tells whom it asks how long it waits.
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("timeout", &format!("{}s", self.limit.as_secs().max(1)));
        self.tried(Method::POST, &url, &body).await
    }

    /// Sends what wants no answer. Whatever is the matter, it is tried again, a few times, after `pause` and half as long again.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn tell(&self, body: Bytes, pause: Duration) -> Result<(), RemoteError> {
        let mut pause = pause;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("timeout", &format!("{}s", self.limit.as_secs().max(1)));
        for _ in 1..TRIES_TO_TELL {
            match heard(self.once(&Method::POST, &url, &body).await) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!(%error, "not told; trying again"),
            }
            clock::sleep(pause).await;
            pause = pause * 3 / 2;
        }
        heard(self.once(&Method::POST, &url, &body).await)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn read(&self, url: &Url) -> Result<Value, RemoteError> {
        self.tried(Method::GET, url, &Bytes::new()).await
    }

    async fn tried(&self, method: Method, url: &Url, body: &Bytes) -> Result<Value, RemoteError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.once(&method, url, body).await {
                Err(error) if error.may_pass() => clock::sleep(pause).await,
                done => return done,
            }
            pause = pause * 3 / 2;
        }
        self.once(&method, url, body).await
    }

    async fn once(&self, method: &Method, url: &Url, body: &Bytes) -> Result<Value, RemoteError> {
        let silent = |why: String| RemoteError::Silent {
            method: if method == Method::POST { "Post" } else { "Get" },
            url: url.to_string(),
            why,
        };
        let request =
            self.request(method, url, body.clone()).map_err(|error| silent(format!("{error:#}")))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| silent(causes(&error)))?;
            let code = response.status();
            let read = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let bytes = read.map_err(|error| silent(error.to_string()))?.to_bytes();
            Ok::<_, RemoteError>((code, bytes))
        };
        let (code, bytes) = clock::timeout(self.limit, exchange)
            .await
            .map_err(|_| silent("context deadline exceeded".to_owned()))??;
        if code != StatusCode::OK && code != StatusCode::CREATED {
            if let Some(message) = said(&bytes) {
                return Err(RemoteError::Said { code: code.as_u16(), message });
            }
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).trim().to_owned();
            return Err(RemoteError::Refused { url: url.to_string(), code: code.as_u16(), text });
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| RemoteError::Strange { url: url.to_string(), why: error.to_string() })
    }

    fn request(&self, method: &Method, url: &Url, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header("content-type", "application/json")
            .header("accept", "application/json, */*")
            .header("user-agent", AGENT);
        let token = match &self.credential {
            Credential::None => None,
            Credential::Token(token) => Some(token.clone()),
            Credential::File(path) => Some(std::fs::read_to_string(path).context("cannot read the token")?),
        };
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        Ok(request.body(Full::new(body))?)
    }
}

/// Whether somebody has heard: what they say to it does not matter.
fn heard(answer: Result<Value, RemoteError>) -> Result<(), RemoteError> {
    match answer {
        Ok(_) | Err(RemoteError::Strange { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a Status says.
fn said(bytes: &[u8]) -> Option<String> {
    let status: Value = serde_json::from_slice(bytes).ok()?;
    let message = (status["kind"] == "Status").then(|| status["message"].as_str()).flatten();
    message.filter(|message| !message.is_empty()).map(str::to_owned)
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The entry of that name in a list of a kubeconfig.
fn entry<'a>(file: &'a Value, list: &str, of: &str, name: &Value) -> &'a Value {
    let found = file[list].as_array().into_iter().flatten().find(|entry| entry["name"] == *name);
    found.map_or(&Value::Null, |entry| &entry[of])
}

/// The bytes of `key-data`, or of the file that `key` names.
pub(super) fn bytes(entry: &Value, key: &str, folder: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(text) = entry[format!("{key}-data")].as_str() {
        return Ok(Some(STANDARD.decode(text).with_context(|| format!("{key}-data is no base64"))?));
    }
    let path = entry[key].as_str().filter(|path| !path.is_empty());
    path.map(|path| std::fs::read(folder.join(path)).with_context(|| format!("cannot read {path}")))
        .transpose()
}

fn from_config(file: &Value, folder: &Path, limit: Duration) -> anyhow::Result<Remote> {
    let context = entry(file, "contexts", "context", &file["current-context"]);
    let cluster = entry(file, "clusters", "cluster", &context["cluster"]);
    let user = entry(file, "users", "user", &context["user"]);
    for (of, names) in [
        (cluster, ["proxy-url", "tls-server-name"]),
        (user, ["exec", "auth-provider"]),
        (user, ["username", "password"]),
    ] {
        for name in names {
            ensure!(of[name].is_null(), "its {name} is not supported");
        }
    }
    let Some(server) = cluster["server"].as_str() else { bail!("its current context names no server") };
    let url = Url::parse(server).context("its server is no URL")?;
    let bundle = bytes(cluster, "certificate-authority", folder)?;
    let builder = if cluster["insecure-skip-tls-verify"] == true {
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(tls::any_server())
    } else {
        let trusted = trusting(bundle.as_deref()).map_err(|why| anyhow!(why))?;
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(trusted)
    };
    let certificate = bytes(user, "client-certificate", folder)?;
    let key = bytes(user, "client-key", folder)?;
    let config = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
            let chain = chain.context("cannot read the client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&key).context("cannot read the client key")?;
            builder.with_client_auth_cert(chain, key).context("cannot use the client certificate")?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => bail!("client-certificate and client-key belong together"),
    };
    let credential = match (user["token"].as_str(), user["tokenFile"].as_str()) {
        (_, Some(path)) if !path.is_empty() => Credential::File(folder.join(path)),
        (Some(token), _) if !token.is_empty() => Credential::Token(token.to_owned()),
        _ => Credential::None,
    };
    Ok(Remote::over(url, config, credential, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_kubeconfig_asks_for_is_done_or_refused() {
        let with = |name: &str, entry: &str, value: Value| {
            let mut file = json!({"current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t"}}]});
            file[format!("{entry}s")][0][entry][name] = value;
            from_config(&file, Path::new("."), Duration::from_secs(1)).err().map(|why| why.to_string())
        };
        assert_eq!(with("token", "user", json!("other")), None);
        let refused = |name: &str| Some(format!("its {name} is not supported"));
        assert_eq!(with("exec", "user", json!({"command": "login"})), refused("exec"));
        assert_eq!(with("username", "user", json!("jane")), refused("username"));
        assert_eq!(with("proxy-url", "cluster", json!("http://proxy")), refused("proxy-url"));
    }
}
