//! DenyServiceExternalIPs: no Service takes external addresses that it did not have.

use super::super::Attributes;
use coracle_api::meta;
use coracle_api::status::Status;
use serde_json::Value;

/// Refuses new ones.
pub fn validate(attributes: &Attributes<'_>, service: &Value) -> Result<(), Status> {
    if !attributes.writes("services") {
        return Ok(());
    }
    let had = |address: &str| {
        attributes.old.is_some_and(|old| meta::strings(&old["spec"]["externalIPs"]).any(|own| own == address))
    };
    if meta::strings(&service["spec"]["externalIPs"]).all(had) {
        return Ok(());
    }
    Err(attributes.forbidden(service, "Use of external IPs is denied by admission control"))
}
