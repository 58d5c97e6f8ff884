//! Pods and pod templates. In: a PodSpec and where it stands. Out: its faults, in the order Kubernetes checks.

mod container;
mod env;
pub(super) mod resources;
mod scheduling;
mod security;
mod update;
pub(super) mod volume;

pub(super) use scheduling::{TAINT_EFFECTS, tolerations};
pub(super) use update::update;

use super::meta;
use super::node::{Faults, Node, unique};
use crate::labels;

const MAX_INT32: i64 = 2_147_483_647;
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// A new Pod.
pub(super) fn create(pod: &Node<'_, '_>, out: &mut Faults) {
    let body = pod.get("spec");
    annotations(&pod.get("metadata.annotations"), &body, out);
    spec(&body, true, out);
    let ephemeral = body.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("cannot be set on create", out);
    }
    let node = body.get("nodeName");
    if !body.get("schedulingGates").is_empty() && !node.is_empty() {
        node.forbidden("cannot be set until all schedulingGates have been cleared", out);
    }
}

fn annotations(annotations: &Node<'_, '_>, spec: &Node<'_, '_>, out: &mut Faults) {
    let mirror = annotations.key("kubernetes.io/config.mirror");
    if mirror.is_set() && spec.get("nodeName").is_empty() {
        mirror.invalid("must set spec.nodeName if mirror pod annotation is set", out);
    }
    let cost = annotations.key("controller.kubernetes.io/pod-deletion-cost");
    if cost.is_set() && cost.text().parse::<i32>().is_err() {
        cost.invalid("must be a 32bit integer", out);
    }
}

/// A template: labels, annotations and spec.
pub(super) fn template(template: &Node<'_, '_>, out: &mut Faults) {
    template_metadata(template, out);
    let body = template.get("spec");
    spec(&body, false, out);
    let ephemeral = body.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("ephemeral containers not allowed in pod template", out);
    }
}

/// Labels and annotations of a template.
pub(super) fn template_metadata(template: &Node<'_, '_>, out: &mut Faults) {
    meta::labels(&template.get("metadata.labels"), out);
    meta::annotations(&template.get("metadata.annotations"), out);
    annotations(&template.get("metadata.annotations"), &template.get("spec"), out);
}

/// A PodSpec; `is_pod` is false in templates, where a few rules are looser.
pub(super) fn spec(spec: &Node<'_, '_>, is_pod: bool, out: &mut Faults) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        grace.required("", out);
    }
    let volumes = spec.get("volumes");
    volume::all(&volumes, out);
    container::all(spec, is_pod, out);
    spec.get("restartPolicy").required_one_of(&["Always", "OnFailure", "Never"], out);
    spec.get("dnsPolicy")
        .required_one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], out);
    meta::labels(&spec.get("nodeSelector"), out);
    security::pod(spec, out);
    for secret in spec.get("imagePullSecrets").items() {
        if secret.get("name").is_empty() {
            secret.get("name").required("", out);
        }
    }
    scheduling::affinity(&spec.get("affinity"), out);
    dns(spec, out);
    for gate in spec.get("readinessGates").items() {
        gate.get("conditionType").text_must(labels::is_qualified_name, out);
    }
    scheduling::gates(&spec.get("schedulingGates"), out);
    scheduling::spread(&spec.get("topologySpreadConstraints"), out);
    names_of(spec, out);
    spec.get("activeDeadlineSeconds").between(1, MAX_INT32, out);
    scheduling::tolerations(&spec.get("tolerations"), out);
    for alias in spec.get("hostAliases").items() {
        alias.get("ip").text_must(labels::is_valid_ip, out);
        alias.get("hostnames").items().for_each(|name| name.text_must(labels::is_dns1123_subdomain, out));
    }
    spec.get("preemptionPolicy").may_be_one_of(&["PreemptLowerPriority", "Never"], out);
    resources::amounts(&spec.get("overhead"), out);
    let os = spec.get("os");
    if os.is_set() {
        let name = os.get("name");
        if name.is_empty() {
            name.required("cannot be empty", out);
        } else if !matches!(name.text(), "linux" | "windows") {
            os.named("", name.value).not_supported(&["linux", "windows"], out);
        }
    }
    claims(&spec.get("resourceClaims"), out);
}

fn names_of(spec: &Node<'_, '_>, out: &mut Faults) {
    for key in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        spec.get(key).text_may(labels::is_dns1123_subdomain, out);
    }
    for key in ["hostname", "subdomain"] {
        spec.get(key).text_may(labels::is_dns1123_label, out);
    }
}

fn claims(claims: &Node<'_, '_>, out: &mut Faults) {
    for claim in claims.items() {
        claim.get("name").required_text(labels::is_dns1123_label, out);
        let (name, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        match (name.is_set(), template.is_set()) {
            (true, true) => {
                claim.invalid(
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
                    out,
                );
            }
            (false, false) => {
                claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`", out);
            }
            _ => {}
        }
        name.text_may(labels::is_dns1123_subdomain, out);
        template.text_may(labels::is_dns1123_subdomain, out);
    }
    let all: Vec<Node<'_, '_>> = claims.items().collect();
    unique(all.iter().map(|claim| claim.get("name")), out);
}

fn dns(spec: &Node<'_, '_>, out: &mut Faults) {
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            return config.required("must provide `dnsConfig` when `dnsPolicy` is None", out);
        }
        if servers.is_empty() {
            return servers
                .required("must provide at least one DNS nameserver when `dnsPolicy` is None", out);
        }
    }
    if servers.len() > MAX_NAMESERVERS {
        servers.invalid(format!("must not have more than {MAX_NAMESERVERS} nameservers"), out);
    }
    servers.items().for_each(|server| server.text_must(labels::is_valid_ip, out));
    let searches = config.get("searches");
    if searches.len() > MAX_SEARCHES {
        searches.invalid(format!("must not have more than {MAX_SEARCHES} search paths"), out);
    }
    let chars = searches.items().map(|search| search.text().len() + 1).sum::<usize>().saturating_sub(1);
    if chars > MAX_SEARCH_CHARS {
        let detail = format!(
            "must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list"
        );
        searches.invalid(detail, out);
    }
    for search in searches.items() {
        let text = search.text().trim_end_matches('.').to_owned();
        // A lone dot is the root; underscores are let through, as in real zones.
        if search.text() != "." {
            search.text_must(|_| labels::is_dns1123_subdomain(&text.replace('_', "a")), out);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            option.required("must not be empty", out);
        }
    }
}
