//! What the apiserver serves: each resource once, in its preferred version.

use kube::core::ApiResource;
use kube::core::discovery::v2::APIGroupDiscovery;

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovered {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Discovered {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }
}

/// All that is served.
#[derive(Debug, Default, PartialEq)]
pub struct Served {
    /// Of servers that answer.
    pub resources: Vec<Discovered>,
    /// Group versions of aggregated servers that do not answer now: nobody knows what is in them.
    pub silent: Vec<String>,
}

/// Asks the apiserver, in two requests.
pub async fn discover(client: &kube::Client) -> kube::Result<Served> {
    let (core, groups) =
        futures::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())?;
    Ok(read(core.items.iter().chain(&groups.items)))
}

fn read<'a>(groups: impl Iterator<Item = &'a APIGroupDiscovery>) -> Served {
    let mut served = Served::default();
    for group in groups {
        let name = group.metadata.as_ref().and_then(|meta| meta.name.clone()).unwrap_or_default();
        // Versions come in order of preference.
        for told in &group.versions {
            let version = told.version.clone().unwrap_or_default();
            let api_version = if name.is_empty() { version.clone() } else { format!("{name}/{version}") };
            if told.freshness.as_deref() == Some("Stale") {
                served.silent.push(api_version);
                continue;
            }
            for row in &told.resources {
                let (Some(plural), Some(kind)) =
                    (&row.resource, row.response_kind.as_ref().and_then(|kind| kind.kind.clone()))
                else {
                    continue;
                };
                let is_same =
                    |known: &Discovered| known.resource.group == name && known.resource.plural == *plural;
                if served.resources.iter().any(is_same) {
                    continue;
                }
                let resource = ApiResource {
                    group: name.clone(),
                    version: version.clone(),
                    api_version: api_version.clone(),
                    kind,
                    plural: plural.clone(),
                };
                let namespaced = row.scope.as_deref() == Some("Namespaced");
                served.resources.push(Discovered { resource, namespaced, verbs: row.verbs.clone() });
            }
        }
    }
    served
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resource_counts_once_and_servers_that_do_not_answer_are_named() {
        let row = |plural: &str| json!({"resource": plural, "responseKind": {"kind": "K"}, "scope": "Namespaced", "verbs": ["list"]});
        let group: APIGroupDiscovery =
            serde_json::from_value(json!({"metadata": {"name": "a.io"}, "versions": [
            {"version": "v2", "freshness": "Current", "resources": [row("ones")]},
            {"version": "v1", "freshness": "Current", "resources": [row("ones"), row("twos")]},
            {"version": "v0", "freshness": "Stale", "resources": [row("threes")]}]}))
            .expect("a group");
        let served = read(std::iter::once(&group));
        let found: Vec<(&str, &str)> = served
            .resources
            .iter()
            .map(|found| (found.resource.plural.as_str(), found.resource.api_version.as_str()))
            .collect();
        assert_eq!(found, [("ones", "a.io/v2"), ("twos", "a.io/v1")]);
        assert_eq!(served.silent, ["a.io/v0"]);
    }
}
