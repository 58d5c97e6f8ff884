//! `APIService`: its name is its group version; a remote one names a Service, a local one nothing of TLS.

use super::node::{Faults, Node};
use crate::labels;
use serde_json::json;

const CONDITIONS: [&str; 3] = ["True", "False", "Unknown"];

pub(super) fn service(object: &Node<'_, '_>, out: &mut Faults) {
    let spec = object.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    let name = object.get("metadata.name");
    let is_segment = labels::is_path_segment_name(name.text()).is_empty();
    if !name.is_empty() && is_segment && name.text() != wanted {
        name.invalid(format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"), out);
    }
    if group.is_empty() && version.text() != "v1" {
        group.required("only v1 may have an empty group and it better be legacy kube", out);
    }
    group.text_may(labels::is_dns1123_subdomain, out);
    version.text_must(labels::is_dns1035_label, out);
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.get(field);
        if !(1..=max).contains(&priority.int()) {
            let detail = format!("must be positive and less than {max}");
            priority.invalid_as(&json!(priority.int()), detail, out);
        }
    }
    let (bundle, insecure) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    let remote = spec.get("service");
    if !remote.is_set() {
        if !bundle.is_empty() {
            // Three bytes of four letters of base64.
            let bytes = bundle.text().trim_end_matches('=').len() * 3 / 4;
            bundle.invalid_as(
                &json!(format!("{bytes} bytes")),
                "local APIServices may not have a caBundle",
                out,
            );
        }
        if insecure.is_true() {
            insecure.invalid("local APIServices may not have insecureSkipTLSVerify", out);
        }
        return;
    }
    remote.get("namespace").must_be_given(out);
    remote.get("name").must_be_given(out);
    let port = remote.get("port");
    if !(1..=65_535).contains(&port.int()) {
        port.invalid("port is not valid: must be between 1 and 65535, inclusive", out);
    }
    if insecure.is_true() && !bundle.is_empty() {
        insecure.invalid("may not be true if caBundle is present", out);
    }
}

pub(super) fn service_update(new: &Node<'_, '_>, _: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    if subresource.is_empty() {
        return service(new, out);
    }
    for condition in new.get("status.conditions").items() {
        condition.get("status").must_be_one_of(&CONDITIONS, out);
    }
}
