//! Who runs a container and what it may do, from the pod's and the container's security context.

use super::ConfigError;
use crate::runtime::Security;
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The container's own settings over its pod's.
///
/// # Errors
/// It is to run as root and not to.
pub fn of_container(spec: &PodSpec, container: &Container) -> Result<Security, ConfigError> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(pod.run_as_user);
    let non_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
    if non_root && user == Some(0) {
        return Err(ConfigError::Impossible("container's runAsUser breaks non-root policy".to_owned()));
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let plain = |names: Option<Vec<String>>| -> Vec<String> {
        let name = |name: String| {
            let name = name.to_uppercase();
            name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
        };
        names.into_iter().flatten().map(name).collect()
    };
    let privileged = own.privileged == Some(true);
    Ok(Security {
        user,
        group: own.run_as_group.or(pod.run_as_group),
        groups: pod.supplemental_groups.into_iter().flatten().chain(pod.fs_group).collect(),
        privileged,
        non_root,
        read_only_root: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp_default: own
            .seccomp_profile
            .or(pod.seccomp_profile)
            .is_some_and(|profile| profile.type_ == "RuntimeDefault"),
        add: plain(capabilities.add),
        drop: plain(capabilities.drop),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_containers_settings_win_over_its_pods() {
        let spec: PodSpec = serde_json::from_value(json!({
            "securityContext": { "runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4] },
            "containers": [
                { "name": "a", "securityContext": { "runAsUser": 9, "allowPrivilegeEscalation": false,
                  "capabilities": { "add": ["CAP_NET_ADMIN"], "drop": ["all"] } } },
                { "name": "b", "securityContext": { "runAsUser": 0, "runAsNonRoot": true } },
            ],
        }))
        .unwrap();
        let got = of_container(&spec, &spec.containers[0]).unwrap();
        assert_eq!((got.user, got.group, got.groups.as_slice()), (Some(9), Some(2), [4, 3].as_slice()));
        assert!(got.no_new_privileges && !got.privileged);
        assert_eq!((got.add, got.drop), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
        assert!(of_container(&spec, &spec.containers[1]).is_err());
    }
}
