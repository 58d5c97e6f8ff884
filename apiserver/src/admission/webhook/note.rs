//! What the audit log is told of a webhook's call.

use super::{Hook, review};
use crate::audit;
use coracle_api::meta;
use serde_json::{Value, json};

/// Which call it was.
pub(super) struct Note<'a> {
    pub mutating: bool,
    configuration: &'a str,
    webhook: &'a str,
    /// Its round, and its place there.
    place: String,
}

impl<'a> Note<'a> {
    /// Of a webhook at `index` among all.
    pub fn of_mutating(hook: &'a Hook, again: bool, index: usize) -> Self {
        Self::new(hook, true, u8::from(again), index)
    }

    /// Of a webhook at `index` among those that are asked.
    pub fn of_validating(hook: &'a Hook, index: usize) -> Self {
        Self::new(hook, false, 0, index)
    }

    fn new(hook: &'a Hook, mutating: bool, round: u8, index: usize) -> Self {
        let configuration = meta::name(&hook.configuration);
        Self { mutating, configuration, webhook: hook.name(), place: format!("round_{round}_index_{index}") }
    }

    /// Whose call it was, in the order in which Kubernetes tells it.
    fn named(&self) -> String {
        format!("\"configuration\":{},\"webhook\":{}", json!(self.configuration), json!(self.webhook))
    }

    /// Whether the object is another now.
    pub fn mutated(&self, mutated: bool) {
        let place = &self.place;
        audit::annotate(&format!("mutation.webhook.admission.k8s.io/{place}"), || {
            format!("{{{},\"mutated\":{mutated}}}", self.named())
        });
    }

    /// How the object was changed: as much as the object itself tells.
    pub fn patched(&self, answer: &review::Answer) {
        let place = &self.place;
        audit::annotate_body(&format!("patch.webhook.admission.k8s.io/{place}"), || {
            let patch: Value = serde_json::from_slice(&answer.patch).unwrap_or_default();
            format!("{{{},\"patch\":{patch},\"patchType\":{}}}", self.named(), json!(answer.patch_type))
        });
    }

    /// It did not answer, and nobody minds.
    pub fn failed_open(&self) {
        let by = if self.mutating { "mutation" } else { "validating" };
        let place = &self.place;
        audit::annotate(&format!("failed-open.{by}.webhook.admission.k8s.io/{place}"), || {
            self.webhook.to_owned()
        });
    }
}
