//! In which order groups and their versions stand in discovery, for those that this server serves itself.

/// Group, version, priority of the group, priority of the version in it: Kubernetes' own.
const BUILTIN: &[(&str, &str, i64, i64)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
];
/// Of group versions that come from definitions.
const CUSTOM: (i64, i64) = (1000, 100);
/// The group of APIServices stands before all that they name, and has none itself.
const FIRST: (i64, i64) = (20_001, 1);

/// The priorities of a built-in group version that has an APIService.
#[must_use]
pub fn builtin(group: &str, version: &str) -> Option<(i64, i64)> {
    let row = BUILTIN.iter().find(|row| (row.0, row.1) == (group, version));
    row.map(|(_, _, group, version)| (*group, *version))
}

/// The priorities of a group version that comes from definitions.
#[must_use]
pub fn custom() -> (i64, i64) {
    CUSTOM
}

/// The priorities of any group version that this server serves.
#[must_use]
pub fn of(group: &str, version: &str) -> (i64, i64) {
    if group == super::GROUP { FIRST } else { builtin(group, version).unwrap_or(CUSTOM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_group_version_has_a_priority() {
        for (group, version) in coracle_api::discovery::served(&[]) {
            assert!(group == super::super::GROUP || builtin(group, version).is_some(), "{group}/{version}");
        }
    }
}
