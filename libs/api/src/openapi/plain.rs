//! What can be asked for besides objects: discovery, the version, and what tells of ServiceAccounts' tokens.

use super::definitions::{API_GROUP, API_GROUP_LIST, API_RESOURCE_LIST, API_VERSIONS, VERSION_INFO};
use super::operation::{Content, Operation, Path};
use super::paths::{OBJECTS, group_name, title};

const JSON: &[&str] = &["application/json"];
const KEYS: &[&str] = &["application/jwk-set+json"];

fn get(path: &str, tag: &str, id: String, description: &str, answer: Option<&str>) -> Path {
    let operation = Operation {
        method: "get",
        id,
        tag: tag.to_owned(),
        description: description.to_owned(),
        resource: None,
        parameters: Vec::new(),
        consumes: OBJECTS,
        produces: OBJECTS,
        body: None,
        answer: answer.map_or(Content::Text, |name| Content::Object(name.to_owned())),
        codes: &[200],
    };
    Path { path: format!("/{path}/"), operations: vec![operation] }
}

/// With other media types than objects have.
fn typed(mut path: Path, consumes: &'static [&'static str], produces: &'static [&'static str]) -> Path {
    for operation in &mut path.operations {
        (operation.consumes, operation.produces) = (consumes, produces);
    }
    path
}

/// The paths that have a document of their own, by the document's name.
pub(super) fn documents<'g>(groups: impl Iterator<Item = &'g str>) -> Vec<(String, Path)> {
    let versions = "get available API versions";
    let mut all = vec![
        ("api".to_owned(), get("api", "core", "getCoreAPIVersions".to_owned(), versions, Some(API_VERSIONS))),
        ("apis".to_owned(), get("apis", "apis", "getAPIVersions".to_owned(), versions, Some(API_GROUP_LIST))),
    ];
    for group in groups.filter(|group| !group.is_empty()) {
        let name = group_name(group);
        let (path, id) = (format!("apis/{group}"), format!("get{}APIGroup", title(name, true)));
        let tag = title(name, false);
        let told = get(&path, &tag, id, "get information of a group", Some(API_GROUP));
        all.push((path, told));
    }
    let version = get(
        "version",
        "version",
        "getCodeVersion".to_owned(),
        "get the version information for this server",
        Some(VERSION_INFO),
    );
    let configuration = get(
        ".well-known/openid-configuration",
        "WellKnown",
        "getServiceAccountIssuerOpenIDConfiguration".to_owned(),
        "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        None,
    );
    let keys = get(
        "openid/v1/jwks",
        "openid",
        "getServiceAccountIssuerOpenIDKeyset".to_owned(),
        "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        None,
    );
    all.push(("version".to_owned(), typed(version, JSON, JSON)));
    all.push((".well-known/openid-configuration".to_owned(), typed(configuration, &[], JSON)));
    all.push(("openid/v1/jwks".to_owned(), typed(keys, &[], KEYS)));
    all
}

/// The list of resources at the root of a group version.
pub(super) fn resources(root: &str, group: &str, version: &str) -> Path {
    let name = group_name(group);
    let tag = format!("{}_{}", title(name, false), title(version, false));
    let id = format!("get{}{}APIResources", title(name, true), title(version, true));
    get(root, &tag, id, "get available resources", Some(API_RESOURCE_LIST))
}
