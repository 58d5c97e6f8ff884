//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is going away, and some never go.

use super::{Attributes, CREATE, Context, DELETE};
use coracle_api::status::{GroupResource, Status};
use serde_json::{Value, json};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses what may not be.
pub async fn admit(context: &Context, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    let request = attributes.request;
    if attributes.operation == DELETE {
        if attributes.is("namespaces") && IMMORTAL.contains(&request.name.as_str()) {
            return Err(attributes.forbidden(&Value::Null, "this namespace may not be deleted"));
        }
        return Ok(());
    }
    let of_namespace = request.group.is_empty() && request.resource == "namespaces";
    // An access review asks about a namespace; it makes nothing in it.
    if request.namespace.is_empty() || of_namespace || request.resource == "localsubjectaccessreviews" {
        return Ok(());
    }
    let Some(namespace) = context.find("", "namespaces", "", &request.namespace).await? else {
        return Err(Status::not_found(&GroupResource::new("", "namespaces"), &request.namespace));
    };
    if attributes.operation != CREATE || namespace["status"]["phase"] != "Terminating" {
        return Ok(());
    }
    let name = &request.namespace;
    let cause = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = attributes.forbidden(object, &cause);
    status.details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {name} is being terminated"),
        "field": "metadata.namespace",
    }]);
    Err(status)
}
