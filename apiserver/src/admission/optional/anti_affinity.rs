//! LimitPodHardAntiAffinityTopology: pods may insist on being apart by host only, or one pod could keep a zone to itself.

use super::super::Attributes;
use coracle_api::status::Status;
use serde_json::Value;

const HOST: &str = "kubernetes.io/hostname";

/// Refuses a pod that insists on more.
pub fn validate(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if !attributes.writes("pods") {
        return Ok(());
    }
    let terms = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let mut keys = terms.as_array().into_iter().flatten().map(|term| term["topologyKey"].as_str());
    match keys.find(|key| *key != Some(HOST)) {
        None => Ok(()),
        Some(key) => Err(attributes.forbidden(
            pod,
            &format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {} but only key {HOST} is allowed",
                key.unwrap_or_default()
            ),
        )),
    }
}
