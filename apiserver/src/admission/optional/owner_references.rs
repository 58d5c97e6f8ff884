//! OwnerReferencesPermissionEnforcement: who may not delete an object may not give it an owner, and who may not write an owner's
//! finalizers may not keep it from going.

use super::super::{Attributes, CREATE, Context};
use crate::request::RequestInfo;
use coracle_api::kinds;
use coracle_api::status::Status;
use serde_json::Value;

fn owners(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn blocks(owner: &Value) -> bool {
    owner["blockOwnerDeletion"] == true
}

/// The owners that the write newly keeps from going.
fn newly_blocked<'a>(object: &'a Value, old: Option<&Value>) -> Vec<&'a Value> {
    let blocked = |owner: &&Value| {
        let before = old.and_then(|old| owners(old).iter().find(|own| own["uid"] == owner["uid"]));
        blocks(owner) && !before.is_some_and(blocks)
    };
    owners(object).iter().filter(blocked).collect()
}

/// Refuses it.
pub async fn validate(context: &Context, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    let request = attributes.request;
    let changes = attributes.old.map_or(!owners(object).is_empty(), |old| owners(old) != owners(object));
    // What old kubelets make of a pod's owners its status does not take anyway.
    if !attributes.changes() || !changes || attributes.is("pods/status") {
        return Ok(());
    }
    let may = async |asked: &RequestInfo| context.authorization.decide(attributes.user, asked).await;
    if attributes.operation != CREATE {
        let delete = RequestInfo {
            verb: "delete".to_owned(),
            name: attributes.name(object).to_owned(),
            ..request.clone()
        };
        if let Err(refused) = may(&delete).await {
            let cause =
                format!("cannot set an ownerRef on a resource you can't delete: {}, <nil>", refused.reason);
            return Err(attributes.forbidden(object, &cause));
        }
    }
    let blocked = newly_blocked(object, attributes.old);
    if blocked.is_empty() || may(&finalizers("*", "*", "*", "*")).await.is_ok() {
        return Ok(());
    }
    for owner in blocked {
        let text = |key: &str| owner[key].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some((group, version, plural, namespaced)) = resource(context, api_version, kind) else {
            let cause = format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind {kind:?} in version {api_version:?}"
            );
            return Err(attributes.forbidden(object, &cause));
        };
        let mut asked = finalizers(&group, &version, &plural, text("name"));
        if namespaced {
            asked.namespace.clone_from(&request.namespace);
        }
        if let Err(refused) = may(&asked).await {
            let cause = format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {}, <nil>",
                refused.reason
            );
            return Err(attributes.forbidden(object, &cause));
        }
    }
    Ok(())
}

fn finalizers(group: &str, version: &str, plural: &str, name: &str) -> RequestInfo {
    RequestInfo {
        is_resource: true,
        verb: "update".to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        resource: plural.to_owned(),
        subresource: "finalizers".to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    }
}

/// Group, version, plural of a kind, and whether it lives in namespaces.
fn resource(context: &Context, api_version: &str, kind: &str) -> Option<(String, String, String, bool)> {
    if let Some(own) = kinds::by_gvk(api_version, kind) {
        return Some((own.group.clone(), own.version.clone(), own.plural.clone(), own.namespaced));
    }
    let (group, version) = api_version.split_once('/')?;
    let definitions = context.list("apiextensions.k8s.io", "customresourcedefinitions", "");
    let found = definitions.iter().map(|definition| &definition["spec"]).find(|spec| {
        let mut versions = spec["versions"].as_array().into_iter().flatten();
        spec["group"] == group
            && spec["names"]["kind"] == kind
            && versions.any(|own| own["name"] == version && own["served"] == true)
    })?;
    let plural = found["names"]["plural"].as_str()?.to_owned();
    Some((group.to_owned(), version.to_owned(), plural, found["scope"] == "Namespaced"))
}
