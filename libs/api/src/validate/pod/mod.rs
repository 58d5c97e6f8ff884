//! Pods and pod templates. In: a PodSpec and where it stands. Out: its faults, in the order Kubernetes checks.

mod annotations;
mod container;
mod env;
pub(super) mod probe;
mod resize;
pub(super) mod resources;
mod scheduling;
mod security;
pub(super) mod sources;
mod status;
mod update;
pub(super) mod volume;
mod windows;

pub(super) use scheduling::{TAINT_EFFECTS, tolerations};
pub(super) use update::update;

use super::meta;
use super::node::{Faults, Node, Seen};
use crate::labels;
use serde_json::{Value, json};

pub(super) const MAX_INT32: i64 = 2_147_483_647;
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// Where a PodSpec stands, and what it may still get wrong because the stored one does.
#[derive(Clone, Copy, Default)]
pub(super) struct Setting<'a> {
    /// The pod's name; none in templates, where a few rules are looser.
    pod: Option<&'a str>,
    allowed: Allowed,
}

/// Faults of the stored spec that must not keep an object from being changed.
#[derive(Clone, Copy, Default)]
struct Allowed {
    odd_huge_pages: bool,
    selector_values: bool,
    node_values: bool,
    spread_selectors: bool,
    token_paths: bool,
    host_sysctls: bool,
    deletion_cost: bool,
    selinux_change: bool,
}

impl Allowed {
    /// In: metadata and spec of the stored pod or template.
    fn by(stored: &Node<'_, '_>) -> Self {
        let spec = stored.get("spec");
        if !spec.is_set() {
            return Self::default();
        }
        let finds = |judge: &dyn Fn(&mut Faults)| {
            let mut faults = Faults::new();
            judge(&mut faults);
            !faults.is_empty()
        };
        let strict = Self::default();
        let containers = || {
            ["containers", "initContainers"]
                .iter()
                .filter_map(|list| spec.value[*list].as_array())
                .flatten()
                .collect::<Vec<&Value>>()
        };
        Self {
            odd_huge_pages: containers().into_iter().any(resources::odd_huge_pages),
            selector_values: finds(&|out| scheduling::pods_affinity(&spec.get("affinity"), strict, out)),
            node_values: finds(&|out| scheduling::required_nodes(&spec.get("affinity"), strict, out)),
            spread_selectors: finds(&|out| {
                scheduling::spread_selectors(&spec.get("topologySpreadConstraints"), out);
            }),
            token_paths: finds(&|out| volume::token_paths(&spec.get("volumes"), out)),
            host_sysctls: finds(&|out| security::host_sysctls(&spec, out)),
            deletion_cost: finds(&|out| annotations::deletion_cost(&stored.get("metadata.annotations"), out)),
            selinux_change: spec.get("securityContext.seLinuxChangePolicy").is_set(),
        }
    }
}

/// A new Pod.
pub(super) fn create(pod: &Node<'_, '_>, out: &mut Faults) {
    let body = pod.get("spec");
    let setting = Setting { pod: Some(pod.get("metadata.name").text()), allowed: Allowed::default() };
    whole(pod, setting, out);
    let ephemeral = body.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("cannot be set on create", out);
    }
    let node = body.get("nodeName");
    if !body.get("schedulingGates").is_empty() && !node.is_empty() {
        node.forbidden("cannot be set until all schedulingGates have been cleared", out);
    }
    annotations::agree(&pod.get("metadata.annotations"), &body, out);
}

/// A pod as such: its annotations and spec.
fn whole(pod: &Node<'_, '_>, setting: Setting<'_>, out: &mut Faults) {
    let body = pod.get("spec");
    annotations::all(&pod.get("metadata.annotations"), &body, setting, out);
    spec(&body, setting, out);
    if pod.get("metadata.annotations").key(annotations::MIRROR).is_set()
        && !body.get("resourceClaims").is_empty()
    {
        pod.key("").forbidden("static pods do not support resource claims", out);
    }
    if body.get("serviceAccountName").is_empty() {
        for volume in body.get("volumes").items() {
            for source in volume.get("projected.sources").items() {
                let token = source.get("serviceAccountToken");
                if token.is_set() {
                    token.forbidden("must not be specified when serviceAccountName is not set", out);
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        body.get(list).items().for_each(|container| container::whole_image(&container.get("image"), out));
    }
}

/// A template: labels, annotations and spec. `stored` is null where there is none.
pub(super) fn template(template: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    let setting = Setting { pod: None, allowed: Allowed::by(&Node::root(stored)) };
    metadata(template, setting, out);
    let body = template.get("spec");
    spec(&body, setting, out);
    annotations::agree(&template.get("metadata.annotations"), &body, out);
    let ephemeral = body.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("ephemeral containers not allowed in pod template", out);
    }
}

/// Labels and annotations of a template; their faults leave out `metadata`.
pub(super) fn template_metadata(template: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    metadata(template, Setting { pod: None, allowed: Allowed::by(&Node::root(stored)) }, out);
}

fn metadata(template: &Node<'_, '_>, setting: Setting<'_>, out: &mut Faults) {
    let (labels, notes) = (template.get("metadata.labels"), template.get("metadata.annotations"));
    meta::labels(&template.named("labels", labels.value), out);
    let notes = template.named("annotations", notes.value);
    meta::annotations(&notes, out);
    annotations::all(&notes, &template.get("spec"), setting, out);
}

/// A PodSpec.
fn spec(spec: &Node<'_, '_>, setting: Setting<'_>, out: &mut Faults) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        grace.required("", out);
    }
    let volumes = volume::all(&spec.get("volumes"), setting, out);
    claims(&spec.get("resourceClaims"), out);
    container::all(spec, &volumes, setting, out);
    container::on_host_network(spec, setting.pod.is_some(), out);
    spec.get("restartPolicy").required_one_of(&["Always", "OnFailure", "Never"], out);
    spec.get("dnsPolicy")
        .required_one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], out);
    meta::labels(&spec.get("nodeSelector"), out);
    security::pod(spec, setting.allowed, out);
    scheduling::affinity(&spec.get("affinity"), setting.allowed, out);
    dns(spec, out);
    for gate in spec.get("readinessGates").items() {
        gate.get("conditionType").text_must(labels::is_qualified_name, out);
    }
    scheduling::gates(&spec.get("schedulingGates"), out);
    scheduling::spread(&spec.get("topologySpreadConstraints"), setting.allowed, out);
    windows::host_processes(spec, out);
    security::host_users(spec, out);
    for key in ["serviceAccountName", "nodeName"] {
        spec.get(key).text_may(labels::is_dns1123_subdomain, out);
    }
    spec.get("activeDeadlineSeconds").between(1, MAX_INT32, out);
    for key in ["hostname", "subdomain"] {
        spec.get(key).text_may(labels::is_dns1123_label, out);
    }
    scheduling::tolerations(&spec.get("tolerations"), out);
    for alias in spec.get("hostAliases").items() {
        alias.get("ip").text_must(labels::is_valid_ip, out);
        alias.get("hostnames").items().for_each(|name| name.text_must(labels::is_dns1123_subdomain, out));
    }
    spec.get("priorityClassName").text_may(labels::is_dns1123_subdomain, out);
    let (class, preemption) = (spec.get("runtimeClassName"), spec.get("preemptionPolicy"));
    if class.is_set() {
        class.text_must(labels::is_dns1123_subdomain, out);
    }
    if preemption.is_set() {
        preemption.required_one_of(&["PreemptLowerPriority", "Never"], out);
    }
    resources::overhead(&spec.get("overhead"), setting.allowed, out);
    security::operating_system(spec, out);
}

/// All containers with what their list is called: those that run first come first.
fn each_container(spec: &Node<'_, '_>, mut judge: impl FnMut(&Node<'_, '_>)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        spec.get(list).items().for_each(|container| judge(&container));
    }
}

fn claims(claims: &Node<'_, '_>, out: &mut Faults) {
    let mut seen = Seen::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.is_empty() {
            name.required("", out);
        } else if seen.contains(&name.text()) {
            name.duplicate(out);
        } else {
            name.text_must(labels::is_dns1123_label, out);
            seen.insert(name.text());
        }
        let (own, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        let told = match (own.is_set(), template.is_set()) {
            (true, true) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (false, false) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => "",
        };
        if !told.is_empty() {
            claim.invalid_inside("PodResourceClaim", told, out);
        }
        for reference in [&own, &template] {
            if reference.is_set() {
                reference.text_must(labels::is_dns1123_subdomain, out);
            }
        }
    }
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
    // A lone dot is the root.
    for search in searches.items().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text());
        for complaint in labels::is_dns1123_subdomain_with_underscore(text) {
            search.invalid_as(&json!(text), complaint, out);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            option.required("must not be empty", out);
        }
    }
}
