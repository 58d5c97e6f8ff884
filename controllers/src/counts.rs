//! How many objects of each resource a namespace holds, by what the garbage collector's watches tell.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// `deployments.apps`, or `pods` for what has no group; as ResourceQuotas name it after `count/`.
pub fn full_name(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// The counts; clones share them.
#[derive(Clone, Default)]
pub struct Counts {
    /// By resource, then by namespace.
    by_resource: Arc<Mutex<HashMap<String, HashMap<String, usize>>>>,
    listeners: Arc<Mutex<Vec<Listener>>>,
}

impl Counts {
    /// An object came (`true`) or went.
    pub fn note(&self, resource: &str, namespace: &str, came: bool) {
        let mut by_resource = self.by_resource.lock();
        let namespaces = by_resource.entry(resource.to_owned()).or_default();
        let count = namespaces.entry(namespace.to_owned()).or_default();
        *count = if came { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            namespaces.remove(namespace);
        }
        drop(by_resource);
        self.listeners.lock().iter().for_each(|listener| listener(namespace));
    }

    /// Forgets a resource that is no longer served; one served again is counted anew.
    pub fn forget(&self, resource: &str) {
        self.by_resource.lock().remove(resource);
    }

    pub fn get(&self, resource: &str, namespace: &str) -> Option<usize> {
        let by_resource = self.by_resource.lock();
        by_resource.get(resource).map(|namespaces| namespaces.get(namespace).copied().unwrap_or(0))
    }

    /// Calls `listener` with each namespace in which a count changes.
    pub fn on_change(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        self.listeners.lock().push(Box::new(listener));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_counted_by_resource_and_namespace() {
        let counts = Counts::default();
        for (namespace, came) in [("a", true), ("a", true), ("b", true), ("b", false)] {
            counts.note(&full_name("apps", "deployments"), namespace, came);
        }
        let count = |namespace| counts.get("deployments.apps", namespace);
        assert_eq!((count("a"), count("b"), counts.get("secrets", "a")), (Some(2), Some(0), None));
    }
}
