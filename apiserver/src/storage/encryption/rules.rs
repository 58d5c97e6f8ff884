//! Which provider keeps which resource: rules compiled to chains of providers.
//!
//! Invariant: whatever the first provider of a chain did not write is stale.

use super::cipher::{Cipher, SEED};
use super::config::{Keys, Provider, Rule, named};
use super::kms::Kms;
use anyhow::bail;
use coracle_api::status::GroupResource;
use std::collections::HashMap;
use std::sync::Arc;

/// What all encrypted values begin with.
pub const ENCRYPTED: &[u8] = b"k8s:enc:";

enum How {
    /// As it is.
    Identity,
    Cipher(Cipher),
    Kms(Arc<Kms>),
}

struct Link {
    prefix: Vec<u8>,
    how: How,
}

/// The providers of one resource, in order.
#[derive(Default)]
pub struct Chain {
    links: Vec<Arc<Link>>,
}

/// All rules of a configuration.
#[derive(Default)]
pub struct Rules {
    exact: HashMap<GroupResource, Arc<Chain>>,
    services: Vec<Arc<Kms>>,
}

fn star(group: &str) -> GroupResource {
    GroupResource::new(group, "*")
}

fn name(of: &GroupResource) -> String {
    match (of.group.as_str(), of.resource.as_str()) {
        ("", "*") => "*.".to_owned(),
        ("", resource) => resource.to_owned(),
        (group, resource) => format!("{resource}.{group}"),
    }
}

impl Rules {
    /// From a checked configuration.
    ///
    /// # Errors
    /// A rule never counts, or a provider cannot be made.
    pub fn compile(rules: &[Rule]) -> anyhow::Result<Self> {
        let mut chains: HashMap<GroupResource, Chain> = HashMap::new();
        let mut services = Vec::new();
        for rule in rules {
            let mut links = Vec::new();
            for provider in &rule.providers {
                links.extend(made(provider, &mut services)?.into_iter().map(Arc::new));
            }
            for resource in &rule.resources {
                let of = named(resource);
                for wider in [star(&of.group), star("*")] {
                    if of != wider && chains.contains_key(&wider) {
                        bail!("resource {:?} is masked by earlier rule {:?}", name(&of), name(&wider));
                    }
                }
                chains.entry(of).or_default().links.extend(links.iter().cloned());
            }
        }
        let exact = chains.into_iter().map(|(of, chain)| (of, Arc::new(chain))).collect();
        Ok(Self { exact, services })
    }

    /// The chain of a resource; `None` where nothing is encrypted or ever was.
    #[must_use]
    pub fn of(&self, of: &GroupResource) -> Option<&Arc<Chain>> {
        let get = |of: &GroupResource| self.exact.get(of);
        get(of).or_else(|| get(&star(&of.group))).or_else(|| get(&star("*")))
    }

    /// The key management services in it.
    #[must_use]
    pub fn services(&self) -> &[Arc<Kms>] {
        &self.services
    }
}

fn made(provider: &Provider, services: &mut Vec<Arc<Kms>>) -> anyhow::Result<Vec<Link>> {
    let keyed = |scheme: &str, keys: &Keys, cipher: &dyn Fn(Vec<u8>) -> anyhow::Result<Cipher>| {
        let links = keys.keys.iter().map(|key| {
            let prefix = format!("k8s:enc:{scheme}:v1:{}:", key.name).into_bytes();
            Ok(Link { prefix, how: How::Cipher(cipher(key.bytes())?) })
        });
        links.collect::<anyhow::Result<Vec<Link>>>()
    };
    match provider {
        Provider { aesgcm: Some(keys), .. } => keyed("aesgcm", keys, &|key| Ok(Cipher::Gcm(key))),
        Provider { aescbc: Some(keys), .. } => keyed("aescbc", keys, &|key| Ok(Cipher::Cbc(key))),
        Provider { secretbox: Some(keys), .. } => keyed("secretbox", keys, &|key| {
            let key: Result<[u8; SEED], _> = key.try_into();
            key.map(Cipher::SecretBox).map_err(|key| {
                anyhow::anyhow!("expected key size 32 for secretbox provider, got {}", key.len())
            })
        }),
        Provider { kms: Some(kms), .. } => {
            let prefix = format!("k8s:enc:kms:v2:{}:", kms.name).into_bytes();
            let service = Arc::new(Kms::new(kms));
            services.push(service.clone());
            Ok(vec![Link { prefix, how: How::Kms(service) }])
        }
        _ => Ok(vec![Link { prefix: Vec::new(), how: How::Identity }]),
    }
}

impl Chain {
    /// The stored form of `data` at `path`, by the first provider.
    ///
    /// # Errors
    /// The provider has no key now.
    pub async fn seal(&self, data: &[u8], path: &[u8]) -> Result<Vec<u8>, String> {
        let Some(first) = self.links.first() else { return Ok(data.to_vec()) };
        let sealed = match &first.how {
            How::Identity => return Ok(data.to_vec()),
            How::Cipher(cipher) => cipher.seal(data, path)?,
            How::Kms(kms) => kms.seal(data, path).await?,
        };
        Ok([first.prefix.as_slice(), &sealed].concat())
    }

    /// What is stored, and whether it should be written anew.
    ///
    /// # Errors
    /// No provider can read it.
    pub async fn open(&self, stored: &[u8], path: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let mut faults = Vec::new();
        for (index, link) in self.links.iter().enumerate() {
            let Some(data) = stored.strip_prefix(link.prefix.as_slice()) else { continue };
            let opened = match &link.how {
                // What is encrypted is for a later provider.
                How::Identity if data.starts_with(ENCRYPTED) => continue,
                How::Identity => Ok((data.to_vec(), false)),
                How::Cipher(cipher) => cipher.open(data, path).map(|data| (data, false)),
                How::Kms(kms) => kms.open(data, path).await,
            };
            match opened {
                Ok((data, stale)) => return Ok((data, stale || index > 0)),
                Err(fault) => faults.push(fault),
            }
        }
        Err(together(&faults).unwrap_or_else(|| "no matching prefix found".to_owned()))
    }
}

/// Several errors as one; `None` where there is none.
pub fn together(faults: &[String]) -> Option<String> {
    match faults {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}
