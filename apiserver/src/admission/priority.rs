//! Priority: a pod's PriorityClass becomes its number and its preemption policy.

use super::{Attributes, CREATE, Context, UPDATE};
use coracle_api::meta;
use coracle_api::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;

const GROUP: &str = "scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

/// Fills `priority`, `preemptionPolicy` and, for the default class, `priorityClassName`.
pub async fn mutate(context: &Context, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if !attributes.is("pods") {
        return Ok(());
    }
    if attributes.operation == UPDATE {
        for key in ["priority", "preemptionPolicy"] {
            if let Some(old) = attributes.old
                && pod["spec"][key].is_null()
                && !old["spec"][key].is_null()
            {
                pod["spec"][key] = old["spec"][key].clone();
            }
        }
        return Ok(());
    }
    if attributes.operation != CREATE {
        return Ok(());
    }
    let named = pod["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let class = match named {
        Some(name) => {
            let class = context.find(GROUP, "priorityclasses", "", &name).await?;
            let missing =
                || attributes.forbidden(pod, &format!("no PriorityClass with name {name} was found"));
            Some(class.ok_or_else(missing)?)
        }
        None => default_class(context),
    };
    let priority = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or(0);
    let policy = class.as_ref().and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or(PREEMPT);
    if let Some(class) = &class {
        pod["spec"]["priorityClassName"] = json!(meta::name(class));
    }
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != priority) {
        let cause = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(pod, &cause));
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy) {
        let cause = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(pod, &cause));
    }
    pod["spec"]["priority"] = json!(priority);
    pod["spec"]["preemptionPolicy"] = json!(policy);
    Ok(())
}

/// The global default; should a race have made two, the lower one.
fn default_class(context: &Context) -> Option<Arc<Value>> {
    let classes = context.list(GROUP, "priorityclasses", "");
    classes
        .into_iter()
        .filter(|class| class["globalDefault"] == true)
        .min_by_key(|class| class["value"].as_i64())
}

/// Only one class may be the default.
pub fn validate(context: &Context, attributes: &Attributes<'_>, class: &Value) -> Result<(), Status> {
    let writes = [CREATE, UPDATE].contains(&attributes.operation);
    if !writes || !attributes.is_of(GROUP, "priorityclasses") || class["globalDefault"] != true {
        return Ok(());
    }
    match default_class(context) {
        Some(other) if meta::name(&other) != meta::name(class) => {
            let name = meta::name(&other);
            let cause =
                format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(attributes.forbidden(class, &cause))
        }
        _ => Ok(()),
    }
}
