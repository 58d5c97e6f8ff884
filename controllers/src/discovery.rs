//! What the apiserver serves: each resource once, in its preferred version.

use kube::core::ApiResource;

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

/// Asks the apiserver, in two requests. A group of which a version cannot be reached at the moment is left out of the
/// answer by the server; callers that must not miss anything ask again later.
pub async fn discover(client: &kube::Client) -> kube::Result<Vec<Discovered>> {
    let (core, groups) =
        futures::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())?;
    let mut found: Vec<Discovered> = Vec::new();
    for group in core.items.iter().chain(&groups.items) {
        let name = group.metadata.as_ref().and_then(|meta| meta.name.clone()).unwrap_or_default();
        // Versions come in order of preference.
        for version in &group.versions {
            for served in &version.resources {
                let (Some(plural), Some(kind)) =
                    (&served.resource, served.response_kind.as_ref().and_then(|kind| kind.kind.clone()))
                else {
                    continue;
                };
                if found.iter().any(|known| known.resource.group == name && known.resource.plural == *plural)
                {
                    continue;
                }
                let version = version.version.clone().unwrap_or_default();
                let api_version = if name.is_empty() { version.clone() } else { format!("{name}/{version}") };
                let resource =
                    ApiResource { group: name.clone(), version, api_version, kind, plural: plural.clone() };
                found.push(Discovered {
                    resource,
                    namespaced: served.scope.as_deref() == Some("Namespaced"),
                    verbs: served.verbs.clone(),
                });
            }
        }
    }
    Ok(found)
}
