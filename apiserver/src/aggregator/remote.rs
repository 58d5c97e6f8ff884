//! The APIServices that name a Service, read and found by group version.

use coracle_api::meta;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// A group version that another server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// The APIService's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// `caBundle`, in base64.
    pub bundle: Value,
    /// Trust whoever answers.
    pub insecure: bool,
}

impl Remote {
    /// What an APIService says; `None` for a local one.
    #[must_use]
    pub fn of(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let service = spec["service"].as_object()?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let port = service.get("port").and_then(Value::as_u64);
        Some(Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            group: text(spec.get("group")),
            version: text(spec.get("version")),
            namespace: text(service.get("namespace")),
            service: text(service.get("name")),
            port: port.map_or(443, |port| u16::try_from(port).unwrap_or(0)),
            bundle: spec["caBundle"].clone(),
            insecure: spec["insecureSkipTLSVerify"] == true,
        })
    }

    /// Where the group version is served.
    #[must_use]
    pub fn root(&self) -> String {
        if self.group.is_empty() {
            return format!("/api/{}", self.version);
        }
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// The name that its certificate must have.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

/// Whether an APIService is said to be available.
#[must_use]
pub fn is_available(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let available = |condition: &&Value| condition["type"] == "Available";
    conditions
        .and_then(|list| list.iter().find(available))
        .is_some_and(|condition| condition["status"] == "True")
}

/// All remote group versions at one version of the cache.
#[derive(Default)]
pub struct Remotes {
    /// Of the cache of APIServices.
    pub version: u64,
    by_group: HashMap<String, HashMap<String, Found>>,
}

/// A remote group version, and whether it is available.
pub type Found = (Arc<Remote>, bool);

impl Remotes {
    /// Those among `services`.
    #[must_use]
    pub fn of(version: u64, services: &[Arc<Value>]) -> Self {
        let mut by_group: HashMap<String, HashMap<String, Found>> = HashMap::new();
        for object in services {
            if let Some(remote) = Remote::of(object) {
                let versions = by_group.entry(remote.group.clone()).or_default();
                versions.insert(remote.version.clone(), (Arc::new(remote), is_available(object)));
            }
        }
        Self { version, by_group }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.by_group.values().flat_map(HashMap::values).map(|(remote, _)| remote)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    /// The one that serves `path`.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Found> {
        let mut parts = path.trim_start_matches('/').split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        self.by_group.get(group)?.get(parts.next()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_the_remote_server_of_their_group_version() {
        let service = |group: &str, remote: bool| {
            let service =
                if remote { json!({"namespace": "ns", "name": "s", "port": 8443}) } else { Value::Null };
            Arc::new(json!({"metadata": {"name": format!("v1.{group}")},
                "spec": {"group": group, "version": "v1", "service": service},
                "status": {"conditions": [{"type": "Available", "status": "True"}]}}))
        };
        let remotes = Remotes::of(1, &[service("a.io", true), service("b.io", false)]);
        for (path, served) in [
            ("/apis/a.io/v1", true),
            ("/apis/a.io/v1/", true),
            ("/apis/a.io/v1/namespaces/x/widgets/w", true),
            ("/apis/a.io/v2", false),
            ("/apis/a.io", false),
            ("/apis/b.io/v1/things", false),
            ("/api/v1/pods", false),
            ("/", false),
        ] {
            assert_eq!(remotes.at(path).is_some(), served, "{path}");
        }
        let (remote, available) = remotes.at("/apis/a.io/v1").expect("remote");
        assert_eq!(
            (remote.host().as_str(), remote.port, remote.root().as_str(), *available),
            ("s.ns.svc", 8443, "/apis/a.io/v1", true)
        );
    }
}
