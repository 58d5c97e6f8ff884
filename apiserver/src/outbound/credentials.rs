//! How this server is believed by others, as the users of a kubeconfig say it: a user's name is the host, with or without its
//! port, that it is shown to; `*.example.com` stands for all hosts below, `*` for all others.

use super::Trust;
use super::remote::bytes;
use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where a token is.
enum Token {
    Here(String),
    File(PathBuf),
}

/// One user.
#[derive(Default)]
pub struct User {
    /// Whom it believes, and what it shows them.
    pub trust: Trust,
    token: Option<Token>,
    /// Name and password.
    basic: Option<String>,
}

impl User {
    /// Its `Authorization`, if it has one.
    ///
    /// # Errors
    /// The token cannot be read.
    pub fn authorization(&self) -> Result<Option<String>, String> {
        let token = match &self.token {
            None => return Ok(self.basic.as_ref().map(|basic| format!("Basic {}", STANDARD.encode(basic)))),
            Some(Token::Here(token)) => token.clone(),
            Some(Token::File(path)) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        };
        Ok(Some(format!("Bearer {}", token.trim())))
    }

    fn read(user: &Value, folder: &Path) -> anyhow::Result<Self> {
        for name in ["exec", "auth-provider", "as"] {
            if !user[name].is_null() {
                bail!("its {name} is not supported");
            }
        }
        let text = |key: &str| user[key].as_str().filter(|text| !text.is_empty());
        let token = match (text("token"), text("tokenFile")) {
            (Some(token), _) => Some(Token::Here(token.to_owned())),
            (None, Some(path)) => Some(Token::File(folder.join(path))),
            (None, None) => None,
        };
        let basic = text("username").map(|name| format!("{name}:{}", text("password").unwrap_or_default()));
        let certificate = bytes(user, "client-certificate", folder)?;
        let trust = match (certificate, bytes(user, "client-key", folder)?) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
                let chain = chain.context("cannot read the client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(&key).context("cannot read the client key")?;
                Trust::with_certificate(chain, key)
            }
            (None, None) => Trust::default(),
            _ => bail!("client-certificate and client-key belong together"),
        };
        Ok(Self { trust, token, basic })
    }
}

/// The users of a kubeconfig.
#[derive(Default)]
pub struct Credentials {
    users: HashMap<String, User>,
    /// Whom the file would be.
    current: String,
    nobody: User,
}

impl Credentials {
    /// Reads a kubeconfig.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let of = || format!("cannot use kubeconfig {}", path.display());
        let text = std::fs::read_to_string(path).with_context(of)?;
        let file: Value = serde_yaml_ng::from_str(&text).with_context(of)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut own = Self::default();
        for entry in file["users"].as_array().into_iter().flatten() {
            let name = entry["name"].as_str().unwrap_or_default();
            let user = User::read(&entry["user"], folder).with_context(|| format!("user {name:?}"));
            own.users.insert(name.to_owned(), user.with_context(of)?);
        }
        let mut contexts = file["contexts"].as_array().into_iter().flatten();
        let current = contexts.find(|context| context["name"] == file["current-context"]);
        let user = current.and_then(|context| context["context"]["user"].as_str());
        user.unwrap_or_default().clone_into(&mut own.current);
        Ok(own)
    }

    /// Who this server is to `host:port`.
    #[must_use]
    pub fn of(&self, target: &str) -> &User {
        let bare = target.strip_suffix(":443");
        let named = std::iter::once(target).chain(bare).find_map(|target| self.named(target));
        let others = || self.users.get("*").or_else(|| self.users.get(&self.current));
        named.or_else(others).unwrap_or(&self.nobody)
    }

    fn named(&self, target: &str) -> Option<&User> {
        let above = target.match_indices('.').map(|(at, _)| format!("*{}", &target[at..]));
        std::iter::once(target.to_owned()).chain(above).find_map(|name| self.users.get(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_shown_to_the_hosts_that_it_is_named_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        let write = |more: &str| {
            let users = "[{name: a.ns.svc, user: {token: exact}}, {name: '*.ns.svc:8443', user: {token: below}}, {name: me, user: {username: u, password: p}}";
            let contexts = "[{name: c, context: {user: me}}]";
            let text = format!("{{users: {users}{more}], contexts: {contexts}, current-context: c}}");
            std::fs::write(&path, text).expect("written");
            Credentials::read(&path)
        };
        let told = |own: &Credentials, target: &str| {
            own.of(target).authorization().expect("read").unwrap_or_default()
        };
        let own = write("").expect("users");
        assert_eq!(told(&own, "a.ns.svc:443"), "Bearer exact");
        assert_eq!(told(&own, "b.ns.svc:8443"), "Bearer below");
        assert_eq!(told(&own, "b.ns.svc:443"), format!("Basic {}", STANDARD.encode("u:p")));
        let own = write(", {name: '*', user: {tokenFile: nowhere}}").expect("users");
        assert!(own.of("b.ns.svc:443").authorization().is_err());
        assert!(write(", {name: x, user: {exec: {command: y}}}").is_err());
        assert_eq!(told(&Credentials::default(), "a.ns.svc:443"), "");
    }
}
