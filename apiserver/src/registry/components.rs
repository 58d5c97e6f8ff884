//! ComponentStatuses: how the parts of the control plane are, which is asked for and not stored.
//!
//! Kubernetes asks ports of its own host. The parts of this control plane may be anywhere: those of which one leads are well as
//! long as somebody holds their Lease.

use super::select::Selection;
use super::{Call, Registry, Reply};
use crate::reader::Reader;
use crate::storage::encode;
use coracle_api::kinds::Kind;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Names of components, and of the Leases by which they lead.
const LED: [(&str, &str); 2] =
    [("controller-manager", "kube-controller-manager"), ("scheduler", "kube-scheduler")];

/// Whether `kind` is one that only this module answers.
pub(super) fn is_component(kind: &Kind) -> bool {
    kind.kind == "ComponentStatus" && kind.group.is_empty()
}

/// Whether a Lease is held at `now`.
fn held(lease: &Value, now: Timestamp) -> bool {
    let spec = &lease["spec"];
    let renewed: Option<Timestamp> = spec["renewTime"].as_str().and_then(|time| time.parse().ok());
    let lasts = SignedDuration::from_secs(spec["leaseDurationSeconds"].as_i64().unwrap_or_default());
    let holder = spec["holderIdentity"].as_str().unwrap_or_default();
    !holder.is_empty() && renewed.is_some_and(|renewed| now.duration_since(renewed) <= lasts)
}

fn component(name: &str, fault: Option<&str>) -> Value {
    let healthy = if fault.is_none() { "True" } else { "False" };
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": healthy, "message": fault.unwrap_or("ok")}]})
}

impl Registry {
    fn components(&self) -> Vec<Value> {
        let of = GroupResource::new("coordination.k8s.io", "leases");
        let now = clock::now();
        let led = LED.into_iter().map(|(name, lease)| {
            let found = Reader::get(self.store.as_ref(), &of, "kube-system", lease);
            let well = found.is_some_and(|lease| held(&lease, now));
            component(name, (!well).then_some("nobody holds its Lease"))
        });
        let stored = component("etcd-0", (!self.store.connected()).then_some("not connected"));
        led.chain([stored]).collect()
    }

    pub(super) fn get_component(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?;
        let found = self.components().into_iter().find(|one| one["metadata"]["name"] == call.info.name);
        let not_found = || Status::not_found(&GroupResource::new("", "componentstatus"), &call.info.name);
        let found = found.ok_or_else(not_found)?;
        Ok(Reply::bytes(200, call.format, encode::object(call.format, kind, &found)?))
    }

    pub(super) fn list_components(&self, call: &Call) -> Result<Reply, Status> {
        let selection = Selection::read(call, call.kind()?)?;
        // Only what is asked for by name or by no label is there.
        let mut components = self.components();
        components.retain(|one| selection.takes(one));
        let list = encode::values(call.format, call.kind()?, &components, &json!({}))?;
        Ok(Reply::bytes(200, call.format, list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_its_duration_has_passed_since_it_was_renewed() {
        let lease = |holder: &str, renewed: &str| json!({"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 5}});
        let now = "2026-01-01T00:00:10Z".parse().expect("time");
        let rows = [
            ("a", "2026-01-01T00:00:05.000000Z", true),
            ("a", "2026-01-01T00:00:04.900000Z", false),
            ("", "2026-01-01T00:00:09.000000Z", false),
            ("a", "", false),
        ];
        for (holder, renewed, want) in rows {
            assert_eq!(held(&lease(holder, renewed), now), want, "{holder} {renewed}");
        }
    }
}
