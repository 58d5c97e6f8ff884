//! Front proxies: servers whose certificate is of a CA of its own, and who say in headers for whom they ask.
//!
//! Invariants: the headers of anybody else say nothing; a certificate of that CA alone makes nobody a user.

use super::AuthenticationArgs;
use super::certificate::Leaf;
use crate::request::{UserInfo, extra_key};
use anyhow::Context;
use coracle_daemon::clock;
use coracle_daemon::tls::{Chains, Fresh, chains};
use http::{HeaderMap, HeaderName};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a connection's other end has shown.
#[derive(Clone, Default)]
pub struct Peer {
    /// Its certificate.
    pub(super) leaf: Option<Arc<Leaf>>,
    /// It is of the clients' CA.
    pub(super) is_client: bool,
    /// It is of the front proxies' CA.
    pub(super) is_front_proxy: bool,
}

impl Peer {
    /// How much longer its certificate speaks for it, if it has shown one of the clients'.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.leaf.as_deref().filter(|_| self.is_client)?.left()
    }

    /// Whether it has shown a certificate that is nobody's here, or out of its time. One without a name is as good as none.
    pub(super) fn is_refused(&self) -> bool {
        self.leaf.as_deref().is_some_and(|leaf| !self.is_client || !matches!(leaf, Leaf::Nameless))
    }

    /// A client with this verified certificate (DER).
    #[must_use]
    pub fn client(leaf: &[u8]) -> Self {
        Self { leaf: Some(Arc::new(Leaf::read(leaf))), is_client: true, is_front_proxy: false }
    }
}

impl AuthenticationArgs {
    /// CA files of those whose certificates connections may show.
    #[must_use]
    pub fn authorities(&self) -> Vec<&Path> {
        let files = [&self.client_ca_file, &self.requestheader_client_ca_file];
        files.into_iter().flatten().map(AsRef::as_ref).collect()
    }
}

/// Whose certificates, leaf first, they are: of nobody, of the clients' CA, of the front proxies', or of both.
pub(super) fn tell(
    chain: &[CertificateDer<'_>],
    clients: Option<&Fresh<Chains>>,
    proxies: Option<&FrontProxies>,
) -> Peer {
    let Some(leaf) = chain.first() else { return Peer::default() };
    let seconds = u64::try_from(clock::now().as_second()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let known = |by: Option<&Fresh<Chains>>| by.is_some_and(|by| by.get().know(chain, now));
    Peer {
        leaf: Some(Arc::new(Leaf::read(leaf))),
        is_client: known(clients),
        is_front_proxy: known(proxies.map(|proxies| &proxies.own)),
    }
}

/// Who front proxies are, and how they speak.
pub(super) struct FrontProxies {
    own: Fresh<Chains>,
    /// Common names; any when empty.
    names: Vec<String>,
    headers: Headers,
}

/// In which headers they say for whom they ask.
struct Headers {
    user: Vec<String>,
    uid: Vec<String>,
    group: Vec<String>,
    /// Prefixes.
    extra: Vec<String>,
}

impl FrontProxies {
    /// `None` where there is no CA of front proxies.
    pub fn new(args: &AuthenticationArgs) -> anyhow::Result<Option<Self>> {
        let Some(own) = &args.requestheader_client_ca_file else { return Ok(None) };
        let own = chains(&[own.as_path()]).context("cannot use --requestheader-client-ca-file")?;
        let named = |names: &[String], flag: &str| -> anyhow::Result<Vec<String>> {
            // A flag without a value is none.
            let names = names.iter().filter(|name| !name.is_empty());
            let read = |name: &String| name.trim().parse::<HeaderName>().map(|name| name.to_string());
            names
                .map(read)
                .collect::<Result<_, _>>()
                .with_context(|| format!("cannot use --requestheader-{flag}"))
        };
        let headers = Headers {
            user: named(&args.requestheader_username_headers, "username-headers")?,
            uid: named(&args.requestheader_uid_headers, "uid-headers")?,
            group: named(&args.requestheader_group_headers, "group-headers")?,
            extra: named(&args.requestheader_extra_headers_prefix, "extra-headers-prefix")?,
        };
        Ok(Some(Self { own, names: args.front_proxies(), headers }))
    }

    /// Whether the front proxy of that common name is believed.
    pub fn allow(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|allowed| allowed == name)
    }

    /// For whom a front proxy asks; `None` when it does not say.
    pub fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        self.headers.user(headers)
    }
}

impl Headers {
    fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let all = |names: &[String]| -> Vec<String> {
            let values = names.iter().flat_map(|name| headers.get_all(name));
            let texts = values.filter_map(|value| String::from_utf8(value.as_bytes().to_vec()).ok());
            texts.filter(|text| !text.is_empty()).collect()
        };
        let name = all(&self.user).into_iter().next()?;
        let uid = all(&self.uid).into_iter().next().unwrap_or_default();
        let mut user = UserInfo { name, uid, groups: all(&self.group), ..UserInfo::default() };
        for name in headers.keys() {
            let prefixes = self.extra.iter();
            let rest = prefixes.filter_map(|prefix| name.as_str().strip_prefix(prefix.as_str())).next();
            if let Some(key) = rest {
                user.extra.entry(extra_key(key)).or_default().extend(all(&[name.to_string()]));
            }
        }
        Some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authentication::identity;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let user = UserInfo {
            name: "jané".to_owned(),
            uid: "7".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
            extra: [("example.org/a%b".to_owned(), vec!["1".to_owned(), "2".to_owned()])].into(),
        };
        let names = |names: &[&str]| names.iter().map(|name| name.to_lowercase()).collect();
        let told = Headers {
            user: names(&["x-other", identity::USER]),
            uid: names(&[identity::UID]),
            group: names(&[identity::GROUP]),
            extra: names(&["x-other-", identity::EXTRA]),
        };
        let mut headers = HeaderMap::new();
        identity::set(&mut headers, &user).expect("set");
        assert_eq!(told.user(&headers), Some(user));
        headers.insert("x-other", http::HeaderValue::from_static("jane"));
        assert_eq!(told.user(&headers).map(|user| user.name), Some("jane".to_owned()));
        headers.remove("x-other");
        headers.remove(identity::USER);
        assert_eq!(told.user(&headers), None);
    }
}
