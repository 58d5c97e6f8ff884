//! What ValidatingAdmissionPolicies get wrong about the kinds that they are about, told in their status.
//!
//! Invariant: safe while several apiservers do it at once; a generation that has been looked at is not looked at again.

use crate::Server;
use coracle_api::expression::{declared_kind, misfits};
use coracle_api::kinds::{self, Kind};
use coracle_api::meta;
use coracle_api::status::GroupResource;
use coracle_daemon::backoff::Backoff;
use coracle_daemon::clock;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const GROUP: &str = "admissionregistration.k8s.io";
const PLURAL: &str = "validatingadmissionpolicies";
const MANAGER: &str = "validatingadmissionpolicy-status";
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Kinds that one policy is checked against at most.
const KINDS_MAX: usize = 10;

/// Keeps the status of policies; without end.
pub async fn run(server: Arc<Server>) {
    let server = &*server;
    let Some(resource) = server.store.resource(GROUP, PLURAL) else { return };
    let mut moved = resource.cache.moved();
    server.health.wait_bootstrapped().await;
    let mut backoff = Backoff::new(RETRY, RETRY_MAX);
    loop {
        moved.borrow_and_update();
        if !round(server).await {
            clock::sleep(backoff.next_delay()).await;
            continue;
        }
        backoff.reset();
        if moved.changed().await.is_err() {
            return;
        }
    }
}

/// Looks at every policy that changed; false when one could not be told.
async fn round(server: &Server) -> bool {
    use crate::reader::Reader;
    let of = GroupResource::new(GROUP, PLURAL);
    let mut whole = true;
    for policy in server.store.list(&of, "") {
        let generation = policy["metadata"]["generation"].as_i64().unwrap_or(0);
        if policy["status"]["observedGeneration"].as_i64().is_some_and(|seen| seen >= generation) {
            continue;
        }
        let find = |group: &str, version: &str, plural: &str| {
            let custom = || server.store.custom(group, version, plural);
            let same =
                |kind: &&Arc<Kind>| kind.group == group && kind.version == version && kind.plural == plural;
            kinds::builtin().iter().find(same).cloned().or_else(custom)
        };
        let by_kind = |version: &str, name: &str| {
            let custom = || {
                let all = server.store.customs();
                all.kinds().iter().find(|kind| kind.api_version() == version && kind.kind == name).cloned()
            };
            kinds::by_gvk(version, name).cloned().or_else(custom)
        };
        let warnings = warnings(&policy["spec"], find, by_kind);
        let status = json!({"observedGeneration": generation, "typeChecking": type_checking(&warnings)});
        let config = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": meta::name(&policy)}, "status": status});
        match server.objects.apply(&of, "status", config, MANAGER).await {
            Err(status) if status.code != 404 => {
                let (name, error) = (meta::name(&policy), status.message);
                tracing::warn!(name, error, "cannot tell a policy what it gets wrong");
                whole = false;
            }
            _ => {}
        }
    }
    whole
}

fn type_checking(warnings: &[(String, String)]) -> Value {
    let told: Vec<Value> =
        warnings.iter().map(|(place, warning)| json!({"fieldRef": place, "warning": warning})).collect();
    if told.is_empty() { json!({}) } else { json!({"expressionWarnings": told}) }
}

/// The kinds that a policy's rules name one by one, in their order.
fn kinds_of(spec: &Value, find: impl Fn(&str, &str, &str) -> Option<Arc<Kind>>) -> Vec<Arc<Kind>> {
    let mut found: BTreeMap<(String, String, String), Arc<Kind>> = BTreeMap::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let named = |key: &str| -> Vec<&str> { meta::strings(&rule[key]).collect() };
        let (groups, versions) = (named("apiGroups"), named("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let plain = |name: &&str| !name.contains(['*', '/']);
        for plural in named("resources").into_iter().filter(plain) {
            for (group, version) in
                groups.iter().flat_map(|group| versions.iter().map(move |version| (group, version)))
            {
                if found.len() < KINDS_MAX
                    && let Some(kind) = find(group, version, plural)
                {
                    found.insert((kind.group.clone(), kind.version.clone(), kind.kind.clone()), kind);
                }
            }
        }
    }
    found.into_values().collect()
}

/// What a policy's expressions get wrong, by their place.
fn warnings(
    spec: &Value,
    find: impl Fn(&str, &str, &str) -> Option<Arc<Kind>>,
    by_kind: impl Fn(&str, &str) -> Option<Arc<Kind>>,
) -> Vec<(String, String)> {
    let text = |key: &str| spec["paramKind"][key].as_str().unwrap_or_default();
    let params = by_kind(text("apiVersion"), text("kind")).and_then(|kind| declared_kind(&kind));
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in kinds_of(spec, find) {
        let Some(place) = declared_kind(&kind) else { continue };
        for (at, why) in misfits(spec, &place, params.as_ref()) {
            let of = if kind.group.is_empty() { "/v1".to_owned() } else { kind.api_version() };
            all.entry(at).or_default().push(format!("{of}, Kind={}: {why}\n", kind.kind));
        }
    }
    all.into_iter().map(|(place, told)| (place, told.join("\n"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_told_what_they_get_wrong_about_each_kind() {
        let spec = json!({"matchConstraints": {"resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "deployments/scale", "replicasets"]},
                {"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]}]},
            "validations": [{"expression": "object.spec.replicas > 1"}, {"expression": "object.spec.strategy.foo == ''"}]});
        let find = |group: &str, version: &str, plural: &str| {
            let same =
                |kind: &&Arc<Kind>| kind.group == group && kind.version == version && kind.plural == plural;
            kinds::builtin().iter().find(same).cloned()
        };
        let told = warnings(&spec, find, |_, _| None);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].0, "spec.validations[1].expression");
        assert_eq!(
            told[0].1,
            "apps/v1, Kind=Deployment: ERROR: <input>:1:21: undefined field 'foo'\n | object.spec.strategy.foo == ''\n | ....................^\n\napps/v1, Kind=ReplicaSet: ERROR: <input>:1:12: undefined field 'strategy'\n | object.spec.strategy.foo == ''\n | ...........^\n"
        );
        assert_eq!(
            type_checking(&told)["expressionWarnings"][0]["fieldRef"],
            "spec.validations[1].expression"
        );
    }
}
