//! ResourceQuota: counts what a namespace holds and refuses what would be too much.
//!
//! Usage is what the cache shows plus what this server let through and has not seen yet, so that deletions free quota at
//! once and no controller has to keep count. It is written to each quota's status as it changes. Several servers that
//! admit at the same instant may together pass a quota by what the others' caches have not seen.

mod limited;
mod usage;

pub use limited::LimitedResource;

use super::resources::Amounts;
use super::{Attributes, Context};
use crate::reader::SERVER;
use coracle_api::meta;
use coracle_api::quantity::Quantity;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::clock::Instant;
use coracle_daemon::panics::Mutex;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long an admitted object may take to show up in the cache; one that has not by then was never written.
const UNSEEN_MAX: Duration = Duration::from_secs(5);

/// An object that was let through and is not in the cache yet.
struct Unseen {
    of: GroupResource,
    namespace: String,
    /// Empty for a generated name: then only time clears it.
    name: String,
    object: Value,
    since: Instant,
}

/// What was let through lately.
#[derive(Default)]
pub struct Reservations {
    /// Held while a write is judged and reserved: or two could both see the last free place.
    judging: parking_lot::Mutex<()>,
    unseen: Mutex<Vec<Unseen>>,
}

impl Reservations {
    /// The unseen objects of a resource in a namespace.
    fn current(&self, context: &Context, of: &GroupResource, namespace: &str) -> Vec<Value> {
        let mut unseen = self.unseen.lock();
        unseen.retain(|one| {
            let seen =
                !one.name.is_empty() && context.reader.get(&one.of, &one.namespace, &one.name).is_some();
            one.since.elapsed() < UNSEEN_MAX && !seen
        });
        let own = unseen.iter().filter(|one| one.of == *of && one.namespace == namespace);
        own.map(|one| one.object.clone()).collect()
    }

    fn add(&self, attributes: &Attributes<'_>, object: &Value) {
        self.unseen.lock().push(Unseen {
            of: attributes.group_resource(),
            namespace: attributes.request.namespace.clone(),
            name: meta::name(object).to_owned(),
            object: object.clone(),
            since: Instant::now(),
        });
    }
}

/// Refuses a write that would exceed a quota; counts it otherwise. The last plugin: nothing may refuse after it.
pub async fn validate(
    context: &Context,
    reservations: &Reservations,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<(), Status> {
    let request = attributes.request;
    let counted = if request.subresource.is_empty() {
        usage::handles(attributes.operation, &attributes.group_resource())
    } else {
        attributes.resizes()
    };
    if !counted || !object.is_object() || request.namespace.is_empty() {
        return Ok(());
    }
    let mut quotas = context.list("", "resourcequotas", &request.namespace);
    limited::check(&context.plugins.limited, attributes, object, &quotas)?;
    if quotas.is_empty() {
        return Ok(());
    }
    quotas.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    let of = attributes.group_resource();
    let mut changed: Vec<(Arc<Value>, Amounts)> = Vec::new();
    {
        let _judging = reservations.judging.lock();
        let unseen = reservations.current(context, &of, &request.namespace);
        for quota in quotas.into_iter().filter(|quota| usage::in_scope(quota, &of, object)) {
            if let Some(used) = judge(context, attributes, object, &quota, &unseen)? {
                changed.push((quota, used));
            }
        }
        if !changed.is_empty() && !attributes.dry_run && attributes.operation == super::CREATE {
            reservations.add(attributes, object);
        }
    }
    if attributes.dry_run {
        return Ok(());
    }
    for (quota, used) in changed {
        record(context, &quota, &used).await?;
    }
    Ok(())
}

/// The usage of the quota's resources that this write touches, after it; `None` when it touches none.
fn judge(
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    quota: &Value,
    unseen: &[Value],
) -> Result<Option<Amounts>, Status> {
    let of = attributes.group_resource();
    let hard = super::resources::amounts(&quota["spec"]["hard"]);
    let name = meta::name(quota);
    let missing = usage::unspecified(&of, object, &hard);
    if !missing.is_empty() {
        let cause = format!("failed quota: {name}: must specify {}", missing.join("; "));
        return Err(attributes.forbidden(object, &cause));
    }
    let limited =
        |list: Amounts| -> Amounts { list.into_iter().filter(|(name, _)| hard.contains_key(name)).collect() };
    let new = limited(usage::of(&of, object));
    let old = attributes.old.map(|old| limited(usage::of(&of, old))).unwrap_or_default();
    if new.is_empty() {
        return Ok(None);
    }
    let held = context.reader.list(&of, &attributes.request.namespace);
    let mut used = Amounts::new();
    for one in held.iter().map(Arc::as_ref).chain(unseen) {
        if usage::in_scope(quota, &of, one) {
            super::resources::add(&mut used, &limited(usage::of(&of, one)));
        }
    }
    let (mut after, mut over) = (used.clone(), Vec::new());
    for (resource, amount) in &new {
        let more = *amount - old.get(resource).copied().unwrap_or_default();
        let sum = used.get(resource).copied().unwrap_or_default() + more;
        // A write that asks for nothing more passes even where the quota was lowered below what is used.
        if more > Quantity::ZERO && sum > hard[resource] {
            over.push((resource.clone(), more));
        }
        after.insert(resource.clone(), sum);
    }
    if over.is_empty() {
        return Ok(Some(after));
    }
    let told = |amount: &dyn Fn(&str, Quantity) -> Quantity| {
        let texts: Vec<String> =
            over.iter().map(|(name, more)| format!("{name}={}", amount(name, *more))).collect();
        texts.join(",")
    };
    let cause = format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        told(&|_, more| more),
        told(&|name, _| used.get(name).copied().unwrap_or_default()),
        told(&|name, _| hard[name]),
    );
    Err(attributes.forbidden(object, &cause))
}

/// Writes the usage to the quota's status.
async fn record(context: &Context, quota: &Value, used: &Amounts) -> Result<(), Status> {
    let change = |current: &Value| {
        let mut out = current.clone();
        if !out["status"].is_object() {
            out["status"] = json!({});
        }
        out["status"]["hard"] = current["spec"]["hard"].clone();
        let mut all: Map<String, Value> = current["status"]["used"].as_object().cloned().unwrap_or_default();
        for resource in current["spec"]["hard"].as_object().into_iter().flat_map(Map::keys) {
            all.entry(resource.clone()).or_insert_with(|| json!("0"));
        }
        all.extend(used.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string()))));
        out["status"]["used"] = Value::Object(all);
        (out != *current).then_some(out)
    };
    let of = GroupResource::new("", "resourcequotas");
    let written =
        context.objects.modify(&of, meta::namespace(quota), meta::name(quota), SERVER, &change).await;
    match written {
        // The quota is gone, and with it its limit.
        Err(status) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}
