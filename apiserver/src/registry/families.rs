//! Which IP families a Service gets on a cluster that has one, IPv4.
//!
//! In: a Service, and what it was before. Out: the same with `ipFamilyPolicy` and `ipFamilies`, or what is wrong with what it
//! asks for. Pure.

use coracle_api::meta;
use coracle_api::status::FieldError;
use serde_json::{Value, json};

const OWN: &str = "IPv4";
const OTHER: &str = "IPv6";
const SINGLE: &str = "SingleStack";

/// Fills in the families of a Service that is no other name.
pub(super) fn settle(service: &mut Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &mut service["spec"];
    if spec["type"] == "ExternalName" || is_kept(spec, old) {
        return Vec::new();
    }
    // Without a selector nobody but its owner knows which families its endpoints are of.
    let bare =
        spec["clusterIP"] == "None" && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    if text(spec, "ipFamilyPolicy").is_empty() {
        let before = old.map(|old| text(&old["spec"], "ipFamilyPolicy")).filter(|policy| !policy.is_empty());
        let policy = before.unwrap_or(if bare { "RequireDualStack" } else { SINGLE });
        spec["ipFamilyPolicy"] = json!(policy);
    }
    let single = spec["ipFamilyPolicy"] == SINGLE;
    if single && let Some(old) = old {
        forget_second(spec, &old["spec"]);
    }
    let mut faults = Vec::new();
    for (key, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && list(spec, key).len() == 2 {
            let why =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            faults.push(FieldError::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why));
        }
    }
    faults.extend(infer(spec));
    if !faults.is_empty() {
        return faults;
    }
    let mut families = list(spec, "ipFamilies");
    if families.is_empty() {
        families.push(OWN.to_owned());
    }
    if bare {
        if !single && families.len() < 2 {
            families.push(if families[0] == OWN { OTHER } else { OWN }.to_owned());
        }
    } else {
        faults = unserved(spec);
    }
    spec["ipFamilies"] = json!(families);
    faults
}

/// What a cluster of one family cannot give.
fn unserved(spec: &Value) -> Vec<FieldError> {
    let mut faults = Vec::new();
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        faults.push(FieldError::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why));
    }
    for (index, family) in
        list(spec, "ipFamilies").into_iter().enumerate().filter(|(_, family)| family != OWN)
    {
        let field = format!("spec.ipFamilies[{index}]");
        faults.push(FieldError::invalid(field, &json!(family), "not configured on this cluster"));
    }
    faults
}

/// The families of addresses that are asked for, as far as they are not named.
fn infer(spec: &mut Value) -> Vec<FieldError> {
    let (ips, mut families, mut faults) = (list(spec, "clusterIPs"), list(spec, "ipFamilies"), Vec::new());
    for (index, ip) in ips.iter().enumerate().take_while(|(_, ip)| *ip != "None") {
        if index < families.len() {
            continue;
        }
        let family = if ip.contains(':') { OTHER } else { OWN };
        if family == OWN {
            families.push(family.to_owned());
        } else {
            let field = format!("spec.clusterIPs[{index}]");
            let why = format!("{family} is not configured on this cluster");
            faults.push(FieldError::invalid(field, &json!(ips), why));
        }
    }
    if !families.is_empty() {
        spec["ipFamilies"] = json!(families);
    }
    faults
}

/// A second address or family goes where a Service asks for one only and names both as they were.
fn forget_second(spec: &mut Value, old: &Value) {
    for key in ["clusterIPs", "ipFamilies"] {
        let own = list(spec, key);
        if own.len() > 1 && own == list(old, key) {
            spec[key] = json!([own[0]]);
        }
    }
}

/// One that would like two families is not changed by itself.
fn is_kept(spec: &Value, old: Option<&Value>) -> bool {
    let same = |old: &Value, key: &str| list(spec, key) == list(old, key);
    old.map(|old| &old["spec"]).is_some_and(|old| {
        spec["ipFamilyPolicy"] == "PreferDualStack"
            && old["ipFamilyPolicy"] == "PreferDualStack"
            && spec["type"] == old["type"]
            && same(old, "clusterIPs")
            && same(old, "ipFamilies")
    })
}

fn text<'a>(spec: &'a Value, key: &str) -> &'a str {
    spec[key].as_str().unwrap_or_default()
}

fn list(spec: &Value, key: &str) -> Vec<String> {
    meta::strings(&spec[key]).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_one_family_gives_one_and_says_so() {
        let selected = |mut spec: Value| {
            spec["selector"] = json!({"a": "b"});
            spec
        };
        let one = json!([OWN]);
        let rows = [
            (selected(json!({})), "", json!([SINGLE, one])),
            (selected(json!({"clusterIP": "None"})), "", json!([SINGLE, one])),
            (json!({"clusterIP": "None"}), "", json!(["RequireDualStack", [OWN, OTHER]])),
            (
                json!({"clusterIP": "None", "ipFamilies": [OTHER], "ipFamilyPolicy": SINGLE}),
                "",
                json!([SINGLE, [OTHER]]),
            ),
            (selected(json!({"ipFamilyPolicy": "PreferDualStack"})), "", json!(["PreferDualStack", one])),
            (
                selected(json!({"ipFamilyPolicy": "RequireDualStack"})),
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
                json!(null),
            ),
            (
                selected(json!({"ipFamilies": [OTHER]})),
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
                json!(null),
            ),
            (
                selected(json!({"ipFamilies": [OWN, OTHER]})),
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
                json!(null),
            ),
            (
                selected(json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]})),
                "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
                json!(null),
            ),
        ];
        for (spec, why, want) in rows {
            let mut service = json!({"spec": spec});
            let faults: Vec<String> = settle(&mut service, None).iter().map(ToString::to_string).collect();
            assert_eq!(faults.join("; "), why, "{spec}");
            if why.is_empty() {
                let got = json!([service["spec"]["ipFamilyPolicy"], service["spec"]["ipFamilies"]]);
                assert_eq!(got, want, "{spec}");
            }
        }
    }

    #[test]
    fn an_update_keeps_the_policy_that_it_does_not_name() {
        let old = json!({"spec": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": [OWN], "clusterIPs": ["10.0.0.1"]}});
        let mut new = json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
        assert!(settle(&mut new, Some(&old)).is_empty());
        assert_eq!(new["spec"]["ipFamilyPolicy"], "PreferDualStack");
    }
}
