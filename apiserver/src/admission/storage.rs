//! PersistentVolumeClaimResize: a bound claim grows only where its class allows it.

use super::{Attributes, Context, UPDATE};
use coracle_api::status::Status;
use serde_json::Value;

/// Refuses to change the size of a claim that cannot be resized. That a claim never shrinks is validation's affair.
pub fn resize(context: &Context, attributes: &Attributes<'_>, claim: &Value) -> Result<(), Status> {
    let Some(old) = attributes.old.filter(|_| attributes.operation == UPDATE) else { return Ok(()) };
    let size = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].clone();
    if !attributes.is("persistentvolumeclaims")
        || size(old) == size(claim)
        || old["status"]["phase"] != "Bound"
    {
        return Ok(());
    }
    let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
    let class = context.get("storage.k8s.io", "storageclasses", "", class);
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    let cause = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(attributes.forbidden(claim, cause))
}
