//! How many replicas each ReplicaSet of a Deployment should have: while rolling, while paused, and when its size changes.

use super::revision::{DESIRED, MAX, Sets};
use crate::plan::{Action, REPLICA_SET};
use crate::pods::resolve;
use coracle_client::{EventType, Key, ObjectId};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Replicas that the Deployment asks for.
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Replicas that a ReplicaSet asks for.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// (surge, unavailable) in pods; never both zero, or nothing could ever roll.
pub fn bounds(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.clone()).unwrap_or_default();
    if strategy.type_.as_deref() == Some("Recreate") {
        return (0, 0);
    }
    let quarter = || IntOrString::String("25%".into());
    let RollingUpdateDeployment { max_surge, max_unavailable } = strategy.rolling_update.unwrap_or_default();
    let total = wanted(deployment);
    let surge = resolve(&max_surge.unwrap_or_else(quarter), total, true);
    let unavailable = resolve(&max_unavailable.unwrap_or_else(quarter), total, false).min(total);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// What a ReplicaSet remembers of the Deployment's size when it was last scaled.
pub fn annotations(deployment: &Deployment) -> Map<String, Value> {
    let total = wanted(deployment);
    Map::from_iter([
        (DESIRED.to_owned(), json!(total.to_string())),
        (MAX.to_owned(), json!((total + bounds(deployment).0).to_string())),
    ])
}

/// Scales a ReplicaSet; nothing when it has that size.
pub fn to(deployment: &Deployment, set: &ReplicaSet, replicas: i32) -> Vec<Action> {
    let before = size(set);
    let known = set.metadata.annotations.clone().unwrap_or_default();
    let remembered = annotations(deployment);
    if before == replicas
        && remembered.iter().all(|(key, value)| known.get(key).map(String::as_str) == value.as_str())
    {
        return Vec::new();
    }
    let patch = json!({
        "metadata": { "resourceVersion": set.metadata.resource_version, "annotations": remembered }, "spec": { "replicas": replicas },
    });
    let mut actions =
        vec![Action::Patch { resource: &REPLICA_SET, key: Key::of(&set.metadata), subresource: "", patch }];
    if before != replicas {
        let direction = if before < replicas { "up" } else { "down" };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Scaled {direction} replica set {name} from {before} to {replicas}");
        actions.push(Action::Event {
            about: ObjectId::of(deployment),
            kind: EventType::Normal,
            reason: "ScalingReplicaSet",
            message,
        });
    }
    actions
}

/// The size that the current ReplicaSet may grow to now, from `size_now`.
pub fn size_of_current(deployment: &Deployment, sets: &Sets, size_now: i32) -> i32 {
    let total = wanted(deployment);
    if super::is_recreate(deployment) {
        return total;
    }
    let most = total + bounds(deployment).0;
    let pods: i32 = sets.all().map(|set| size(set)).sum();
    if pods >= most { size_now } else { size_now + (most - pods).min(total - size_now) }
}

/// One step of a rolling update: grows the current ReplicaSet, or, when it cannot grow, shrinks old ones.
pub fn roll(deployment: &Deployment, sets: &Sets) -> Vec<Action> {
    let Some(current) = &sets.current else { return Vec::new() };
    let (now, total) = (size(current), wanted(deployment));
    let next = if now > total { total } else { size_of_current(deployment, sets, now) };
    if next != now {
        return to(deployment, current, next);
    }
    shrink_old(deployment, sets, current)
        .into_iter()
        .flat_map(|(set, replicas)| to(deployment, &set, replicas))
        .collect()
}

/// New sizes for old ReplicaSets: first what is not available anyway, then as many available pods as may be missed.
fn shrink_old(deployment: &Deployment, sets: &Sets, current: &ReplicaSet) -> Vec<(Arc<ReplicaSet>, i32)> {
    let mut old: Vec<_> =
        sets.old.iter().filter(|set| size(set) > 0).map(|set| (set.clone(), size(set))).collect();
    let pods: i32 = sets.all().map(|set| size(set)).sum();
    let min_available = wanted(deployment) - bounds(deployment).1;
    let still_unavailable = size(current) - available(current);
    let mut spare = pods - min_available - still_unavailable;
    if spare <= 0 {
        return Vec::new();
    }
    for (set, replicas) in &mut old {
        let unhealthy = (*replicas - available(set)).clamp(0, spare);
        *replicas -= unhealthy;
        spare -= unhealthy;
    }
    let up: i32 = sets.all().map(|set| available(set)).sum();
    let mut spare = (up - min_available).max(0);
    for (_, replicas) in &mut old {
        let fewer = (*replicas).min(spare);
        *replicas -= fewer;
        spare -= fewer;
    }
    old.retain(|(set, replicas)| size(set) != *replicas);
    old
}

/// Whether the Deployment's size changed since its ReplicaSets were last scaled.
pub fn is_scaled(deployment: &Deployment, sets: &Sets) -> bool {
    sets.all().filter(|set| size(set) > 0).any(|set| {
        let desired = set.metadata.annotations.as_ref().and_then(|all| all.get(DESIRED)?.parse::<i32>().ok());
        desired.is_some_and(|desired| desired != wanted(deployment))
    })
}

/// Brings the ReplicaSets to the Deployment's size without rolling further: in proportion, when several have pods.
pub fn scale(deployment: &Deployment, sets: &Sets) -> Vec<Action> {
    let total = wanted(deployment);
    let active: Vec<_> = sets.all().filter(|set| size(set) > 0).cloned().collect();
    if active.len() <= 1 {
        let only = active.first().or(sets.current.as_ref()).or(sets.old.last());
        return only.map(|set| to(deployment, set, total)).unwrap_or_default();
    }
    if let Some(current) = sets.current.as_ref().filter(|set| size(set) == total && available(set) == total) {
        let mut actions = to(deployment, current, total);
        actions.extend(sets.old.iter().filter(|set| size(set) > 0).flat_map(|set| to(deployment, set, 0)));
        return actions;
    }
    if super::is_recreate(deployment) {
        return Vec::new();
    }
    in_proportion(deployment, active)
        .into_iter()
        .flat_map(|(set, replicas)| to(deployment, &set, replicas))
        .collect()
}

fn in_proportion(deployment: &Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Vec<(Arc<ReplicaSet>, i32)> {
    let total = wanted(deployment);
    let allowed = if total > 0 { total + bounds(deployment).0 } else { 0 };
    let to_add = allowed - sets.iter().map(|set| size(set)).sum::<i32>();
    // Growth favours the newest, shrinking spares it; either way the largest comes first.
    let age = |set: &Arc<ReplicaSet>| set.metadata.creation_timestamp.as_ref().map(|at| at.0);
    sets.sort_by(|a, b| {
        let by_age = if to_add > 0 { age(b).cmp(&age(a)) } else { age(a).cmp(&age(b)) };
        size(b).cmp(&size(a)).then(by_age)
    });
    let mut left = to_add;
    let mut sized: Vec<_> = sets.into_iter().map(|set| (set.clone(), size(&set))).collect();
    for (set, replicas) in &mut sized {
        let share = share(set, total, allowed);
        let change = if to_add > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        *replicas += change;
        left -= change;
    }
    // Rounding leaves a rest: the first takes it.
    if let Some((_, replicas)) = sized.first_mut() {
        *replicas = (*replicas + left).max(0);
    }
    sized
}

/// By how much one ReplicaSet changes when the whole may have `allowed` pods.
fn share(set: &ReplicaSet, total: i32, allowed: i32) -> i32 {
    if total == 0 {
        return -size(set);
    }
    let before = set
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(MAX)?.parse::<f64>().ok())
        .filter(|max| *max > 0.0);
    let grown = f64::from(size(set)) * f64::from(allowed) / before.unwrap_or_else(|| f64::from(allowed));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "replica counts are far below 2^31; the cast saturates"
    )]
    let grown = grown.round() as i32;
    grown - size(set)
}
