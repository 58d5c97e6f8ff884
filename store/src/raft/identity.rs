//! Who this member is: ids that all members of a new cluster derive alike from its flags, and the file that remembers them.

use super::types::Peer;
use super::wire::peer_client::PeerClient;
use super::wire::{MembersReply, MembersRequest};
use super::{NodeConfig, StartError, peers};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const FILE: &str = "identity.json";
/// How long one member may take to tell who is there.
const ASK_MAX: Duration = Duration::from_secs(1);

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// This member.
    pub member: u64,
    /// Its cluster.
    pub cluster: u64,
    /// It was removed from the cluster, for good.
    #[serde(default)]
    pub removed: bool,
}

/// The members of `--initial-cluster`: peer URLs by name.
///
/// # Errors
/// An item is no `NAME=URL`; the text is for whoever gave the flag.
pub fn parse_cluster(items: &[String]) -> Result<BTreeMap<String, Vec<String>>, StartError> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for item in items.iter().filter(|item| !item.is_empty()) {
        let parts = item.split_once('=').filter(|(name, url)| !name.is_empty() && !url.is_empty());
        let (name, url) = parts.ok_or_else(|| {
            StartError::Flags(format!("--initial-cluster has {item:?}, which is no NAME=URL"))
        })?;
        members.entry(name.to_owned()).or_default().push(url.trim_end_matches('/').to_owned());
    }
    for urls in members.values_mut() {
        urls.sort();
    }
    Ok(members)
}

/// The first eight bytes of a digest; never 0, which means nobody.
fn id_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest = digest.finalize();
    digest.first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes)).max(1)
}

/// The id of a member: from its peer URLs, the cluster's token and, for one that is added later, the time.
#[must_use]
pub fn member_id(peer_urls: &[String], token: &str, added_at_millis: Option<i64>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let at = added_at_millis.map(i64::to_be_bytes);
    let parts = urls.iter().map(|url| url.as_bytes()).chain([token.as_bytes()]);
    id_of(parts.chain(at.as_ref().map(|at| &at[..])))
}

/// A new cluster's members by id, and the cluster's id.
#[must_use]
pub fn new_cluster(members: &BTreeMap<String, Vec<String>>, token: &str) -> (u64, BTreeMap<u64, Peer>) {
    let peers: BTreeMap<u64, Peer> = members
        .iter()
        .map(|(name, urls)| {
            let peer = Peer { name: name.clone(), peer_urls: urls.clone(), client_urls: Vec::new() };
            (member_id(urls, token, None), peer)
        })
        .collect();
    let ids: Vec<[u8; 8]> = peers.keys().map(|id| id.to_be_bytes()).collect();
    (id_of(ids.iter().map(|id| &id[..])), peers)
}

impl Identity {
    /// What `folder` remembers.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(folder: &Path) -> Result<Option<Self>, StartError> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| StartError::Identity { path, source: io::Error::other(source) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StartError::Identity { path, source }),
        }
    }

    /// Makes `folder` remember, on stable storage.
    ///
    /// # Errors
    /// The disk fails or is full.
    pub fn save(&self, folder: &Path) -> Result<(), StartError> {
        let path = folder.join(FILE);
        let save = || -> io::Result<()> {
            let part = folder.join("identity.part");
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part)?;
            file.write_all(&serde_json::to_vec(self).map_err(io::Error::other)?)?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            std::fs::File::open(folder)?.sync_all()
        };
        save().map_err(|source| StartError::Identity { path, source })
    }
}

/// Finds out from the members of the cluster who this one is; it must have been added to it before.
///
/// # Errors
/// Nobody answers, or nobody knows this member.
pub async fn join(config: &NodeConfig, tls: Option<&Arc<ClientConfig>>) -> Result<Identity, StartError> {
    let mut failures = Vec::new();
    let others = config.cluster.iter().filter(|(name, _)| **name != config.name);
    for url in others.flat_map(|(_, urls)| urls) {
        match ask_members(url, tls).await {
            Ok(reply) => {
                let mut mine = config.peer_urls.clone();
                mine.sort();
                let me = reply.members.iter().find(|member| {
                    let mut urls = member.peer_urls.clone();
                    urls.sort();
                    urls == mine
                });
                return match me {
                    Some(me) => Ok(Identity { member: me.id, cluster: reply.cluster, removed: false }),
                    None => Err(StartError::NotAMember { urls: config.peer_urls.join(",") }),
                };
            }
            Err(error) => failures.push(format!("{url}: {error}")),
        }
    }
    Err(StartError::NobodyAnswers { tried: failures.join("; ") })
}

/// Refuses to begin anew what has begun before: a member that forgot its votes and entries could have others forget, too.
///
/// # Errors
/// Another member of the cluster knows this one as started.
pub async fn refuse_second_bootstrap(
    config: &NodeConfig,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<(), StartError> {
    let (cluster, _) = new_cluster(&config.cluster, &config.token);
    let me = member_id(&config.peer_urls, &config.token, None);
    let others = config.cluster.iter().filter(|(name, _)| **name != config.name);
    let asked = others.flat_map(|(_, urls)| urls).map(|url| ask_members(url, tls));
    // Whoever does not answer has not started yet, or cannot tell.
    let replies = futures::future::join_all(asked).await.into_iter().flatten();
    let knows = |reply: MembersReply| {
        reply.cluster == cluster
            && reply.members.iter().any(|member| member.id == me && !member.client_urls.is_empty())
    };
    if replies.into_iter().any(knows) { Err(StartError::Bootstrapped { member: me }) } else { Ok(()) }
}

async fn ask_members(url: &str, tls: Option<&Arc<ClientConfig>>) -> Result<MembersReply, String> {
    let channel = peers::channel(url, tls, None).map_err(|error| error.to_string())?;
    let mut client = PeerClient::new(channel);
    peers::within(ASK_MAX, client.members(MembersRequest {}))
        .await
        .map_err(|status| status.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn all_members_derive_the_same_ids_from_the_same_flags() {
        let one = parse_cluster(&items("a=http://1:1,b=http://2:2,b=http://2:3")).expect("parses");
        let other = parse_cluster(&items("b=http://2:3,b=http://2:2/,a=http://1:1")).expect("parses");
        assert_eq!(new_cluster(&one, "t"), new_cluster(&other, "t"));
        assert_eq!(new_cluster(&one, "t").1.len(), 2);
        assert_ne!(new_cluster(&one, "t").0, new_cluster(&one, "u").0, "the token tells clusters apart");
        assert_ne!(
            member_id(&items("x"), "t", Some(1)),
            member_id(&items("x"), "t", Some(2)),
            "never used again"
        );
        for wrong in ["a", "=http://1:1", "a="] {
            assert!(parse_cluster(&items(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_identity_is_remembered() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(Identity::load(folder.path()).expect("loads"), None);
        let identity = Identity { member: u64::MAX, cluster: 7, removed: false };
        identity.save(folder.path()).expect("saves");
        assert_eq!(Identity::load(folder.path()).expect("loads"), Some(identity));
        std::fs::write(folder.path().join(FILE), "{").expect("writes");
        assert!(Identity::load(folder.path()).is_err());
    }
}
