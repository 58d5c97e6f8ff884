//! A node asks for tokens of its pods' accounts, bound to those pods, for audiences that those pods name.

use super::super::{Attributes, Context};
use super::bound_to;
use crate::request::RequestInfo;
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use serde_json::Value;

/// Refuses other tokens.
pub async fn admit(
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    node: &str,
) -> Result<(), Status> {
    let refuse = |cause: &str| Err(attributes.forbidden(object, cause));
    let bound = &object["spec"]["boundObjectRef"];
    let name = bound["name"].as_str().unwrap_or_default();
    if bound["kind"] != "Pod" || bound["apiVersion"] != "v1" || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = bound["uid"].as_str().unwrap_or_default();
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let Some(pod) = context.find("", "pods", &attributes.request.namespace, name).await? else {
        return Err(Status::not_found(&GroupResource::new("", "pods"), name));
    };
    if meta::uid(&pod) != uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if !bound_to(node, &pod) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let mut audiences = meta::strings(&object["spec"]["audiences"]);
    let (audience, more) = (audiences.next().unwrap_or_default(), audiences.next());
    if more.is_some() {
        return refuse("node may only request 0 or 1 audiences");
    }
    match names_audience(context, &pod, audience) {
        Ok(true) => Ok(()),
        Ok(false) if is_granted(context, attributes, audience).await => Ok(()),
        Ok(false) => refuse(&format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            attributes.user.name
        )),
        Err(why) => refuse(&format!("error validating audience {audience:?}: {why}")),
    }
}

/// A grant besides what pods name: the verb is about the audience as if it were a resource.
async fn is_granted(context: &Context, attributes: &Attributes<'_>, audience: &str) -> bool {
    let asked = RequestInfo {
        is_resource: true,
        verb: "request-serviceaccounts-token-audience".to_owned(),
        version: "v1".to_owned(),
        resource: audience.to_owned(),
        namespace: attributes.request.namespace.clone(),
        name: attributes.request.name.clone(),
        ..RequestInfo::default()
    };
    context.authorization.allows(attributes.user, &asked).await
}

/// Whether a volume of the pod, or the driver of one, is to have tokens for the audience.
///
/// # Errors
/// Nothing does, and something that a volume leads to is not there.
fn names_audience(context: &Context, pod: &Value, audience: &str) -> Result<bool, String> {
    let mut missing = Vec::new();
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let sources = volume["projected"]["sources"].as_array();
        let asks = |source: &Value| {
            let token = &source["serviceAccountToken"];
            token.is_object() && token["audience"].as_str().unwrap_or_default() == audience
        };
        if sources.into_iter().flatten().any(asks) {
            return Ok(true);
        }
        match driver_of(context, pod, volume).and_then(|driver| serves(context, driver.as_deref(), audience))
        {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(why) => missing.push(why),
        }
    }
    missing.dedup();
    match missing.as_slice() {
        [] => Ok(false),
        [why] => Err(why.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

/// The CSI driver of a volume: its own, or that of the volume that its claim is bound to.
fn driver_of(context: &Context, pod: &Value, volume: &Value) -> Result<Option<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let claim = if volume["ephemeral"]["volumeClaimTemplate"].is_object() {
        Some(format!("{}-{}", meta::name(pod), volume["name"].as_str().unwrap_or_default()))
    } else {
        text(&volume["persistentVolumeClaim"]["claimName"])
    };
    let Some(claim) = claim else { return Ok(text(&volume["csi"]["driver"])) };
    let found = context.get("", "persistentvolumeclaims", meta::namespace(pod), &claim);
    let found = found.ok_or_else(|| format!("persistentvolumeclaim {claim:?} not found"))?;
    let name = found["spec"]["volumeName"].as_str().unwrap_or_default();
    let bound = context.get("", "persistentvolumes", "", name);
    let bound = bound.ok_or_else(|| format!("persistentvolume {name:?} not found"))?;
    Ok(text(&bound["spec"]["csi"]["driver"]))
}

fn serves(context: &Context, driver: Option<&str>, audience: &str) -> Result<bool, String> {
    let Some(name) = driver.filter(|name| !name.is_empty()) else { return Ok(false) };
    let driver = context.get("storage.k8s.io", "csidrivers", "", name);
    let driver = driver.ok_or_else(|| format!("csidriver.storage.k8s.io {name:?} not found"))?;
    let mut requests = driver["spec"]["tokenRequests"].as_array().into_iter().flatten();
    Ok(requests.any(|request| request["audience"].as_str().unwrap_or_default() == audience))
}
