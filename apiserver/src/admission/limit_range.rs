//! LimitRanger: fills in a namespace's default requests and limits, and refuses what is outside its bounds.

use super::resources::{Amounts, add, amounts, containers, pod_total};
use super::{Attributes, CREATE, Context, UPDATE};
use coracle_api::meta;
use coracle_api::quantity::Quantity;
use coracle_api::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn ranges(context: &Context, attributes: &Attributes<'_>) -> Vec<Arc<Value>> {
    let mut ranges = context.list("", "limitranges", &attributes.request.namespace);
    ranges.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    ranges
}

fn items<'a>(ranges: &'a [Arc<Value>], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = ranges.iter().flat_map(|range| range["spec"]["limits"].as_array()).flatten();
    all.filter(move |item| item["type"] == kind)
}

/// Fills in the defaults of a new pod's containers and tells so in an annotation.
pub fn mutate(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) {
    if !attributes.creates("pods") {
        return;
    }
    let ranges = ranges(context, attributes);
    let mut told = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            for (key, field, word) in
                [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
            {
                let set = fill(container, field, items(&ranges, "Container").map(|item| &item[key]));
                if !set.is_empty() {
                    let name = container["name"].as_str().unwrap_or_default();
                    told.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = json!({});
        }
        pod["metadata"]["annotations"][ANNOTATION] =
            json!(format!("LimitRanger plugin set: {}", told.join("; ")));
    }
}

/// Sets what `container` lacks; returns the names, sorted.
fn fill<'a>(container: &mut Value, field: &str, defaults: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut own = container["resources"][field].as_object().cloned().unwrap_or_default();
    let mut set = Vec::new();
    for (name, amount) in defaults.flat_map(Value::as_object).flatten() {
        if !own.contains_key(name) {
            own.insert(name.clone(), amount.clone());
            set.push(name.clone());
        }
    }
    if !set.is_empty() {
        container["resources"][field] = Value::Object(own);
    }
    set.sort();
    set
}

/// Refuses pods and claims outside the bounds.
pub fn validate(context: &Context, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    let pod = attributes.creates("pods") || attributes.resizes();
    let claim = attributes.is("persistentvolumeclaims") && [CREATE, UPDATE].contains(&attributes.operation);
    if !pod && !claim {
        return Ok(());
    }
    let ranges = ranges(context, attributes);
    let mut faults = Vec::new();
    if claim {
        let asked =
            Use { requests: amounts(&object["spec"]["resources"]["requests"]), limits: Amounts::new() };
        for item in items(&ranges, "PersistentVolumeClaim") {
            asked.at_least(item, &mut faults);
            asked.request_at_most(item, &mut faults);
        }
    } else {
        let spec = &object["spec"];
        for item in items(&ranges, "Container") {
            for container in containers(spec, "containers").chain(containers(spec, "initContainers")) {
                Use::of_container(container).check(item, &mut faults);
            }
        }
        for item in items(&ranges, "Pod") {
            Use::of_pod(spec).check(item, &mut faults);
        }
    }
    // A sentence is told once, however often it holds.
    let mut said = std::collections::BTreeSet::new();
    faults.retain(|fault| said.insert(fault.clone()));
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(attributes.forbidden(object, one)),
        many => Err(attributes.forbidden(object, &format!("[{}]", many.join(", ")))),
    }
}

/// What a container, pod or claim asks for.
struct Use {
    requests: Amounts,
    limits: Amounts,
}

impl Use {
    fn of_container(container: &Value) -> Self {
        let of = |which: &str| amounts(&container["resources"][which]);
        Self { requests: of("requests"), limits: of("limits") }
    }

    /// A pod has a limit only when all of its containers have one.
    fn of_pod(spec: &Value) -> Self {
        let mut limits = pod_total(spec, "limits");
        limits.retain(|name, _| {
            containers(spec, "containers")
                .all(|container| !container["resources"]["limits"][name.as_str()].is_null())
        });
        let mut requests = Amounts::new();
        add(&mut requests, &pod_total(spec, "requests"));
        Self { requests, limits }
    }

    fn check(&self, item: &Value, faults: &mut Vec<String>) {
        self.at_least(item, faults);
        self.at_most(item, faults);
        self.within_ratio(item, faults);
    }

    fn at_least(&self, item: &Value, faults: &mut Vec<String>) {
        for (name, least) in amounts(&item["min"]) {
            let text = format!("minimum {name} usage per {} is {least}", kind(item));
            match (self.requests.get(&name), self.limits.get(&name)) {
                (None, _) => faults.push(format!("{text}.  No request is specified")),
                (Some(request), _) if *request < least => {
                    faults.push(format!("{text}, but request is {request}"));
                }
                (_, Some(limit)) if *limit < least => faults.push(format!("{text}, but limit is {limit}")),
                _ => {}
            }
        }
    }

    fn at_most(&self, item: &Value, faults: &mut Vec<String>) {
        for (name, most) in amounts(&item["max"]) {
            let text = format!("maximum {name} usage per {} is {most}", kind(item));
            match (self.requests.get(&name), self.limits.get(&name)) {
                (_, None) => faults.push(format!("{text}.  No limit is specified")),
                (_, Some(limit)) if *limit > most => faults.push(format!("{text}, but limit is {limit}")),
                (Some(request), _) if *request > most => {
                    faults.push(format!("{text}, but request is {request}"));
                }
                _ => {}
            }
        }
    }

    fn request_at_most(&self, item: &Value, faults: &mut Vec<String>) {
        for (name, most) in amounts(&item["max"]) {
            let text = format!("maximum {name} usage per {} is {most}", kind(item));
            match self.requests.get(&name) {
                None => faults.push(format!("{text}.  No request is specified")),
                Some(request) if *request > most => faults.push(format!("{text}, but request is {request}")),
                Some(_) => {}
            }
        }
    }

    fn within_ratio(&self, item: &Value, faults: &mut Vec<String>) {
        let some = |list: &Amounts, name: &str| list.get(name).copied().filter(|amount| !amount.is_zero());
        for (name, most) in amounts(&item["maxLimitRequestRatio"]) {
            let text = format!("{name} max limit to request ratio per {} is {most}", kind(item));
            match (some(&self.requests, &name), some(&self.limits, &name)) {
                (None, _) => faults.push(format!("{text}, but no request is specified or request is 0")),
                (_, None) => faults.push(format!("{text}, but no limit is specified or limit is 0")),
                (Some(request), Some(limit)) => {
                    let ratio = limit.fraction_of(request);
                    if ratio > most.fraction_of(Quantity::from_units(1)) {
                        faults.push(format!("{text}, but provided ratio is {ratio:.6}"));
                    }
                }
            }
        }
    }
}

fn kind(item: &Value) -> &str {
    item["type"].as_str().unwrap_or_default()
}
