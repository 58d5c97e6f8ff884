//! Plugins that are off unless `--enable-admission-plugins` names them, one file each.

pub mod always_pull_images;
pub mod anti_affinity;
pub mod event_rate;
pub mod extended_resources;
pub mod external_ips;
pub mod namespaces;
pub mod node_selector;
pub mod owner_references;
pub mod tolerations;

#[cfg(test)]
mod tests;

use super::{Attributes, Context};
use coracle_api::status::{GroupResource, Status};
use serde_json::Value;
use std::sync::Arc;

/// The namespace that a write is in.
async fn namespace(context: &Context, attributes: &Attributes<'_>) -> Result<Arc<Value>, Status> {
    let name = &attributes.request.namespace;
    let found = context.find("", "namespaces", "", name).await?;
    found.ok_or_else(|| Status::not_found(&GroupResource::new("", "namespaces"), name))
}

/// A refusal that is no Status of its own, as Kubernetes answers it.
fn failed(message: impl Into<String>) -> Status {
    Status::new(500, "", message)
}
