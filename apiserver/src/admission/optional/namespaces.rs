//! NamespaceAutoProvision and NamespaceExists: a namespace comes with the first thing in it, or must be there.

use super::super::{Attributes, CREATE, Context};
use crate::reader::SERVER;
use coracle_api::status::{GroupResource, Status};
use serde_json::json;

/// Whether the write is in a namespace, and none of one.
fn is_inside(attributes: &Attributes<'_>) -> bool {
    let request = attributes.request;
    let of_namespace = request.group.is_empty() && request.resource == "namespaces";
    !request.namespace.is_empty() && !of_namespace
}

/// Makes the namespace of what is made in one that is not there.
pub async fn provide(context: &Context, attributes: &Attributes<'_>) -> Result<(), Status> {
    let (of, name) = (GroupResource::new("", "namespaces"), &attributes.request.namespace);
    let known = || context.get("", "namespaces", "", name).is_some();
    if attributes.dry_run || attributes.operation != CREATE || !is_inside(attributes) || known() {
        return Ok(());
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    match context.objects.create(&of, "", namespace, SERVER).await {
        Err(status) if status.code != 409 => {
            Err(attributes.forbidden(&serde_json::Value::Null, &status.message))
        }
        _ => Ok(()),
    }
}

/// Refuses a write in a namespace that is not there.
pub async fn must_exist(context: &Context, attributes: &Attributes<'_>) -> Result<(), Status> {
    if is_inside(attributes) {
        super::namespace(context, attributes).await?;
    }
    Ok(())
}
