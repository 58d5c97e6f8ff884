//! Eviction: a delete that asks the pod's disruption budget first.

use super::call::warned;
use super::create::place;
use super::delete::{self, DeleteOptions};
use super::options::WriteOptions;
use super::review::own;
use super::update::Made;
use super::{At, Call, Registry, Reply, body};
use crate::reader::Reader;
use crate::storage::encode::Media;
use coracle_api::decode;
use coracle_api::kinds::{self, Kind};
use coracle_api::meta;
use coracle_api::protobuf;
use coracle_api::selector::LabelSelector;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::clock;
use serde_json::{Value, json};
use std::sync::Arc;

const CANNOT: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// The kind of an eviction in the version that it was sent in: both versions that there ever were are taken.
fn sent_kind(call: &Call) -> Arc<Kind> {
    const OLD: &str = "v1beta1";
    let of = body::loose_kind("policy", "v1", "Eviction");
    let sent = match body::media(&call.content_type) {
        Ok(Media::Protobuf) => protobuf::decode(&call.body).ok(),
        Ok(_) => decode::any(&call.body).ok(),
        Err(_) => None,
    };
    let is_old = sent.is_some_and(|sent| sent["apiVersion"] == format!("{}/{OLD}", of.group));
    if is_old { Arc::new(Kind { version: OLD.to_owned(), ..of.as_ref().clone() }) } else { of }
}

impl Registry {
    pub(super) async fn evict(&self, call: &Call) -> Result<Reply, Status> {
        let options = WriteOptions::read(call, "CreateOptions", false)?;
        let of = sent_kind(call);
        let body::Read { object, warnings, .. } =
            body::read(&call.content_type, &call.body, &of, options.validation)?;
        warned(self.evicted(call, &of, object, options).await, warnings)
    }

    async fn evicted(
        &self,
        call: &Call,
        of: &Kind,
        mut eviction: Value,
        options: WriteOptions,
    ) -> Result<Reply, Status> {
        place(&mut eviction, of, &call.info.namespace)?;
        own(&mut eviction, of, &options, &call.info.subresource);
        let mut at = At::new(call, self.resource(call.kind()?)?, options)?;
        let mut warnings = self.mutate(&at, "CREATE", None, &mut eviction).await?;
        if meta::name(&eviction) != call.info.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        warnings.extend(self.admit(&at, "CREATE", None, &eviction).await?);
        // The pod itself goes past admission.
        at.own = true;
        let pod = self.find(call).await?;
        at.info.subresource = String::new();
        at.info.verb = "delete".to_owned();
        let asked = DeleteOptions::of(&eviction["deleteOptions"], &[]);
        at.options.dry_run |= meta::strings(&eviction["deleteOptions"]["dryRun"]).next().is_some();
        let pod = pod.value();
        let free = matches!(pod["status"]["phase"].as_str(), Some("Pending" | "Succeeded" | "Failed"))
            || !meta::field(pod, "deletionTimestamp").is_empty();
        if !free {
            self.ask_budget(call, pod, at.options.dry_run).await?;
        }
        // What is wrong with them is seen once the budget has paid, and the pod tells what it goes for.
        let conditions = DeleteOptions::conditions(&eviction["deleteOptions"], &[]);
        let noted =
            if at.options.dry_run { None } else { Some(self.note_eviction(call, &conditions).await?) };
        let mut options = asked?;
        options.dry_run = at.options.dry_run;
        if let (Some(noted), Some(revision)) = (noted, &mut options.revision) {
            // It is the one that was asked for, with the note.
            *revision = noted;
        }
        self.delete_object(&at, &options, &mut Vec::new()).await?;
        let done =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(Reply::value(201, call.format, &done)?.warned(warnings))
    }

    /// Tells in the status of a pod what it goes for, where it is the pod that is meant; returns its resourceVersion. Nobody
    /// owns that.
    async fn note_eviction(&self, call: &Call, conditions: &DeleteOptions) -> Result<String, Status> {
        let mut at = At::new(call, self.resource(call.kind()?)?, WriteOptions::of_server())?;
        (at.own, at.info.subresource) = (true, "status".to_owned());
        let make = |old: &Value| {
            delete::check(&at, conditions, old)?;
            Ok(Made::owned(evicted(old)))
        };
        let (outcome, _) = self.change(&at, &make).await?;
        Ok(meta::field(&outcome.object(&at.kind), "resourceVersion").to_owned())
    }

    /// Takes one disruption from the budget of a pod.
    async fn ask_budget(&self, call: &Call, pod: &Arc<Value>, dry_run: bool) -> Result<(), Status> {
        let of = GroupResource::new("policy", "poddisruptionbudgets");
        let covers = |budget: &Arc<Value>| {
            LabelSelector::from_object(&budget["spec"]["selector"])
                .is_ok_and(|selector| selector.matches(&pod["metadata"]["labels"]))
        };
        let budgets: Vec<Arc<Value>> =
            self.store.list(&of, &call.info.namespace).into_iter().filter(covers).collect();
        let budget = match budgets.as_slice() {
            [] => return Ok(()),
            [budget] => budget,
            _ => {
                return Err(Status::new(
                    500,
                    "",
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let ready = |object: &Value| {
            object["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let healthy = budget["status"]["currentHealthy"].as_i64()
            >= budget["status"]["desiredHealthy"].as_i64()
            && budget["status"]["desiredHealthy"].as_i64() > Some(0);
        let unhealthy_first = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || healthy;
        if !ready(pod) && unhealthy_first {
            return Ok(());
        }
        let missing = || Status::internal("no poddisruptionbudgets");
        let kind = kinds::by_resource("policy", "v1", "poddisruptionbudgets").ok_or_else(missing)?.clone();
        let mut at =
            At::new(call, self.resource(&kind)?, WriteOptions { dry_run, ..WriteOptions::of_server() })?;
        (at.kind, at.own) = (kind, true);
        at.info.name = meta::name(budget).to_owned();
        at.info.subresource = "status".to_owned();
        let name = meta::name(pod).to_owned();
        let make = |old: &Value| Ok(Made::unowned(disrupted(old, &name)?));
        self.change(&at, &make).await.map(drop)
    }
}

/// The pod with the condition DisruptionTarget.
fn evicted(old: &Value) -> Value {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null,
        "lastTransitionTime": clock::rfc3339_seconds(clock::now())});
    let mut pod = old.clone();
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        match conditions.iter_mut().find(|own| own["type"] == "DisruptionTarget") {
            Some(own) if own["status"] == "True" => {
                (own["reason"], own["message"]) = (condition["reason"].clone(), condition["message"].clone());
            }
            Some(own) => *own = condition,
            None => conditions.push(condition),
        }
    }
    pod
}

/// The budget with one disruption less.
fn disrupted(old: &Value, pod: &str) -> Result<Value, Status> {
    let status = &old["status"];
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let name = meta::name(old);
    if number("observedGeneration") < old["metadata"]["generation"].as_i64().unwrap_or(0) {
        let mut refused = Status::too_many_requests(CANNOT, 10);
        let text = format!("The disruption budget {name} is still being processed by the server.");
        refused.details["causes"] = json!([{"reason": "DisruptionBudget", "message": text}]);
        return Err(refused);
    }
    if number("disruptionsAllowed") < 1 {
        let mut refused = Status::too_many_requests(CANNOT, 0);
        let text = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        refused.details = json!({"causes": [{"reason": "DisruptionBudget", "message": text}]});
        return Err(refused);
    }
    let mut budget = old.clone();
    budget["status"]["disruptionsAllowed"] = json!(number("disruptionsAllowed") - 1);
    if number("disruptionsAllowed") == 1 {
        exhaust(&mut budget["status"]);
    }
    if !budget["status"]["disruptedPods"].is_object() {
        budget["status"]["disruptedPods"] = json!({});
    }
    budget["status"]["disruptedPods"][pod] = json!(clock::rfc3339_seconds(clock::now()));
    Ok(budget)
}

/// Tells that a budget allows no more disruptions.
fn exhaust(status: &mut Value) {
    const KIND: &str = "DisruptionAllowed";
    let mut condition = json!({"type": KIND, "status": "False",
        "lastTransitionTime": clock::rfc3339_seconds(clock::now()), "reason": "InsufficientPods", "message": ""});
    if status["observedGeneration"].as_i64().is_some_and(|seen| seen > 0) {
        condition["observedGeneration"] = status["observedGeneration"].clone();
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    if let Some(conditions) = status["conditions"].as_array_mut() {
        match conditions.iter_mut().find(|own| own["type"] == KIND) {
            Some(own) if own["status"] == "False" => {
                condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
                *own = condition;
            }
            Some(own) => *own = condition,
            None => conditions.push(condition),
        }
    }
}
