//! What to do with an object that has owners, given what became of each.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;

/// What an owner turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// There, and not waiting for this dependent.
    Solid,
    /// Gone.
    Absent,
    /// Being deleted, and waiting for this dependent.
    Waiting,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Keep,
    /// Stays, but with these owners only.
    Trim(Vec<OwnerReference>),
    Delete(PropagationPolicy),
}

/// `finalizers`: the object's own; `has_dependents`: whether anything names it as owner.
pub fn decide(owners: &[(OwnerReference, Owner)], finalizers: &[String], has_dependents: bool) -> Verdict {
    if owners.is_empty() {
        return Verdict::Keep;
    }
    let solid: Vec<_> =
        owners.iter().filter(|(_, what)| *what == Owner::Solid).map(|(owner, _)| owner.clone()).collect();
    if solid.len() == owners.len() {
        return Verdict::Keep;
    }
    if !solid.is_empty() {
        return Verdict::Trim(solid);
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let awaited = owners.iter().any(|(_, what)| *what == Owner::Waiting);
    Verdict::Delete(if awaited && has_dependents {
        // The owner waits for the whole tree below it, so this one must too.
        PropagationPolicy::Foreground
    } else if has(super::graph::ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(super::graph::FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, what: Owner) -> (OwnerReference, Owner) {
        (OwnerReference { uid: uid.into(), ..OwnerReference::default() }, what)
    }

    #[test]
    fn the_last_solid_owner_keeps_an_object() {
        let (a, b) = (owner("a", Owner::Solid), owner("b", Owner::Absent));
        assert_eq!(decide(std::slice::from_ref(&a), &[], false), Verdict::Keep);
        assert_eq!(decide(&[a.clone(), b.clone()], &[], false), Verdict::Trim(vec![a.0]));
        assert_eq!(decide(&[b], &[], false), Verdict::Delete(PropagationPolicy::Background));
    }

    #[test]
    fn a_waiting_owner_waits_for_the_whole_tree() {
        let waiting = owner("a", Owner::Waiting);
        assert_eq!(
            decide(std::slice::from_ref(&waiting), &[], true),
            Verdict::Delete(PropagationPolicy::Foreground)
        );
        assert_eq!(decide(&[waiting], &[], false), Verdict::Delete(PropagationPolicy::Background));
    }

    #[test]
    fn the_objects_own_wish_is_kept() {
        let finalizers = ["orphan".to_owned()];
        assert_eq!(
            decide(&[owner("a", Owner::Absent)], &finalizers, true),
            Verdict::Delete(PropagationPolicy::Orphan)
        );
    }
}
