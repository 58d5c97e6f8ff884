//! The plugins that only fill in: TaintNodesByCondition, DefaultTolerationSeconds, DefaultStorageClass,
//! StorageObjectInUseProtection, DefaultIngressClass.

use super::{Attributes, CREATE, Context, UPDATE};
use coracle_api::meta;
use serde_json::{Value, json};
use std::sync::Arc;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A new node is tainted until its conditions say that it is ready.
pub fn taint_new_node(attributes: &Attributes<'_>, node: &mut Value) {
    if !attributes.creates("nodes") {
        return;
    }
    let taints = &node["spec"]["taints"];
    if !items(taints).any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
        push(&mut node["spec"]["taints"], json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

/// Pods outlive a short loss of their node.
pub fn tolerate_for_a_while(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) {
    if !attributes.is("pods") || ![CREATE, UPDATE].contains(&attributes.operation) {
        return;
    }
    for (key, seconds) in [NOT_READY, UNREACHABLE].into_iter().zip(context.plugins.seconds) {
        let tolerates = |toleration: &Value| {
            let same_key =
                toleration["key"] == key || toleration["key"].as_str().unwrap_or_default().is_empty();
            let effect = toleration["effect"].as_str().unwrap_or_default();
            same_key && (effect == "NoExecute" || effect.is_empty())
        };
        if !items(&pod["spec"]["tolerations"]).any(tolerates) {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
            push(&mut pod["spec"]["tolerations"], toleration);
        }
    }
}

/// The newest of the classes that an annotation calls the default; the first by name of those of one second.
fn default_class(classes: &[Arc<Value>], annotations: &[&str]) -> Option<Value> {
    let is_default =
        |class: &&Arc<Value>| annotations.iter().any(|key| class["metadata"]["annotations"][*key] == "true");
    let rank = |class: &&Arc<Value>| {
        let made = meta::field(class, "creationTimestamp").to_owned();
        (made, std::cmp::Reverse(meta::name(class).to_owned()))
    };
    classes.iter().filter(is_default).max_by_key(rank).map(|class| json!(meta::name(class)))
}

/// A claim that names no class gets the default one.
pub fn storage_class(context: &Context, attributes: &Attributes<'_>, claim: &mut Value) {
    const OLD_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
    if !attributes.creates("persistentvolumeclaims")
        || !claim["spec"]["storageClassName"].is_null()
        || claim["metadata"]["annotations"][OLD_ANNOTATION].is_string()
    {
        return;
    }
    let classes = context.list("storage.k8s.io", "storageclasses", "");
    let annotations =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if let Some(class) = default_class(&classes, &annotations) {
        claim["spec"]["storageClassName"] = class;
    }
}

/// An Ingress that names no class gets the default one.
pub fn ingress_class(context: &Context, attributes: &Attributes<'_>, ingress: &mut Value) {
    if attributes.operation != CREATE
        || !attributes.is_of("networking.k8s.io", "ingresses")
        || !ingress["spec"]["ingressClassName"].is_null()
        || ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_string()
    {
        return;
    }
    let classes = context.list("networking.k8s.io", "ingressclasses", "");
    if let Some(class) = default_class(&classes, &["ingressclass.kubernetes.io/is-default-class"]) {
        ingress["spec"]["ingressClassName"] = class;
    }
}

/// Volumes and claims go only when nobody uses them: a controller takes these finalizers off.
pub fn finalizers(attributes: &Attributes<'_>, object: &mut Value) {
    for (plural, finalizer) in [
        ("persistentvolumeclaims", "kubernetes.io/pvc-protection"),
        ("persistentvolumes", "kubernetes.io/pv-protection"),
    ] {
        if attributes.creates(plural) && !items(&object["metadata"]["finalizers"]).any(|own| own == finalizer)
        {
            push(&mut object["metadata"]["finalizers"], json!(finalizer));
        }
    }
}
