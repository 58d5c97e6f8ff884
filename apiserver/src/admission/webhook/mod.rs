//! MutatingWebhookConfigurations and ValidatingWebhookConfigurations.
//!
//! In: a write. Out: the object as the webhooks have patched it, what they warn of, or the Status that refuses.
//!
//! Invariants: a dry run is only shown to webhooks without side effects; a call takes no longer than its configuration says;
//! an answer is bounded; what a webhook has patched is decoded and defaulted like a client's object.

mod call;
mod note;
mod review;

pub use call::{ANSWER_MAX, Dialler};
pub use review::{of_kind, request};

use super::conditions::{self, Answers, Conditions, Shown};
use super::select::{self, GROUP, Target};
use super::{Attributes, Context, Plugins};
use crate::audit;
use crate::meters::admission::Called;
use coracle_api::kinds::{self, Kind};
use coracle_api::status::Status;
use coracle_api::{decode, defaults, meta, patch};
use coracle_daemon::clock::Instant;
use coracle_daemon::{Tasks, random};
use futures::future::join_all;
use note::Note;
use serde_json::Value;
use std::sync::Arc;

/// One webhook of a configuration.
struct Hook {
    configuration: Arc<Value>,
    index: usize,
}

impl Hook {
    fn value(&self) -> &Value {
        &self.configuration["webhooks"][self.index]
    }

    fn name(&self) -> &str {
        self.value()["name"].as_str().unwrap_or_default()
    }

    fn ignores_failure(&self) -> bool {
        self.value()["failurePolicy"] == "Ignore"
    }

    fn is_reinvoked(&self) -> bool {
        self.value()["reinvocationPolicy"] == "IfNeeded"
    }
}

/// Calls webhooks.
pub struct Webhooks {
    mutating: Dialler,
    validating: Dialler,
}

/// The webhooks of all configurations, in the order of the configurations' names.
fn hooks(context: &Context, plural: &str) -> Vec<Hook> {
    let mut all = context.list(GROUP, plural, "");
    all.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    let of = |configuration: Arc<Value>| {
        let count = configuration["webhooks"].as_array().map_or(0, Vec::len);
        (0..count).map(move |index| Hook { configuration: configuration.clone(), index })
    };
    all.into_iter().flat_map(of).collect()
}

/// How the calls of one round went on a mutated object.
#[derive(Default)]
pub struct Round {
    /// Indexes of webhooks that may be called again, in the order in which they were called.
    reinvocable: Vec<usize>,
    /// Those after whose call another webhook has changed the object.
    again: Vec<usize>,
    /// Whether any has changed the object.
    pub changed: bool,
}

impl Webhooks {
    /// With an owner for connections.
    pub fn new(tasks: Tasks, plugins: &Plugins) -> Self {
        Self {
            mutating: Dialler::with(tasks.clone(), plugins.to_mutating.clone()),
            validating: Dialler::with(tasks, plugins.to_validating.clone()),
        }
    }

    /// Lets mutating webhooks patch `object`, one after the other; with an earlier round only those that asked to see what
    /// was changed after them.
    ///
    /// # Errors
    /// The Status that refuses the write.
    pub async fn mutate(
        &self,
        context: &Context,
        conditions: &Conditions,
        attributes: &Attributes<'_>,
        object: &mut Value,
        before: Option<&Round>,
        warnings: &mut Vec<String>,
    ) -> Result<Round, Status> {
        let mut round = Round::default();
        for (index, hook) in hooks(context, "mutatingwebhookconfigurations").iter().enumerate() {
            if before.is_some_and(|before| !before.again.contains(&index)) {
                continue;
            }
            let Some(target) = self.target(context, conditions, attributes, object, hook).await? else {
                continue;
            };
            let note = Note::of_mutating(hook, before.is_some(), index);
            let changed = self.change(context, attributes, object, (hook, &target, &note), warnings).await;
            note.mutated(*changed.as_ref().unwrap_or(&false));
            if changed? {
                round.changed = true;
                round.again.clone_from(&round.reinvocable);
            }
            if hook.is_reinvoked() {
                round.reinvocable.push(index);
            }
        }
        Ok(round)
    }

    /// Lets one webhook patch `object`; whether it did.
    async fn change(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: &mut Value,
        (hook, target, note): (&Hook, &Target, &Note<'_>),
        warnings: &mut Vec<String>,
    ) -> Result<bool, Status> {
        let Some(answer) = self.ask(context, attributes, object, (hook, target), note).await? else {
            return Ok(false);
        };
        warnings.extend(answer.warnings.iter().cloned());
        if !answer.allowed {
            return Err(review::refusal(hook.name(), &answer.status));
        }
        let Some(patched) = patched(attributes, object, hook, target, &answer)? else { return Ok(false) };
        note.patched(&answer);
        let changed = patched != *object;
        *object = patched;
        Ok(changed)
    }

    /// Asks validating webhooks, all at once.
    ///
    /// # Errors
    /// The Status that refuses the write.
    pub async fn validate(
        &self,
        context: &Context,
        conditions: &Conditions,
        attributes: &Attributes<'_>,
        object: &Value,
    ) -> Result<Vec<String>, Status> {
        let hooks = hooks(context, "validatingwebhookconfigurations");
        let mut asked = Vec::new();
        for hook in &hooks {
            if let Some(target) = self.target(context, conditions, attributes, object, hook).await? {
                asked.push((hook, target));
            }
        }
        let asked = asked.iter().enumerate().map(|(index, (hook, target))| async move {
            let note = Note::of_validating(hook, index);
            match self.ask(context, attributes, object, (hook, target), &note).await? {
                Some(answer) if !answer.allowed => {
                    Err(review::refusal(hook.name(), &answer.status).warned(answer.warnings))
                }
                Some(answer) => Ok(answer.warnings),
                None => Ok(Vec::new()),
            }
        });
        let mut warnings = Vec::new();
        let mut refused = None;
        for answer in join_all(asked).await {
            match answer {
                Ok(told) => warnings.extend(told),
                Err(status) => refused = refused.or(Some(status)),
            }
        }
        match refused {
            Some(status) => Err(status.warned(warnings)),
            None => Ok(warnings),
        }
    }

    /// In which version a webhook wants to see a write, if it wants to.
    async fn target(
        &self,
        context: &Context,
        conditions: &Conditions,
        attributes: &Attributes<'_>,
        object: &Value,
        hook: &Hook,
    ) -> Result<Option<Target>, Status> {
        let value = hook.value();
        let (rules, policy) = (&value["rules"], &value["matchPolicy"]);
        let Some(target) = select::target(context, rules, policy, attributes, object) else {
            return Ok(None);
        };
        if !select::of_object(&value["objectSelector"], attributes, object)?
            || !select::in_namespace(context, &value["namespaceSelector"], attributes, object).await?
        {
            return Ok(None);
        }
        let list = &value["matchConditions"];
        if list.as_array().is_none_or(Vec::is_empty) {
            return Ok(Some(target));
        }
        let programs = conditions.of_webhook(list);
        let (authorization, answers) = (&context.authorization, Answers::default());
        let met = loop {
            let met = {
                let shown = Shown::new(authorization, attributes, object, &target, None, &answers);
                conditions::met(list, &programs, hook.ignores_failure(), &shown.scope())
            };
            if !answers.fetch(authorization).await {
                break met;
            }
        };
        let met = met.map_err(|error| attributes.forbidden(object, &error))?;
        Ok(met.then_some(target))
    }

    /// A webhook's answer; `None` where none came and that does not matter.
    async fn ask(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: &Value,
        (hook, target): (&Hook, &Target),
        note: &Note<'_>,
    ) -> Result<Option<review::Answer>, Status> {
        let (value, name) = (hook.value(), hook.name());
        if attributes.dry_run && value["sideEffects"] != "None" && value["sideEffects"] != "NoneOnDryRun" {
            return Err(Status::bad_request(format!("admission webhook {name:?} does not support dry run")));
        }
        let uid = random::uuid();
        let answered = async {
            let version =
                review::version(value).ok_or("webhook does not accept known AdmissionReview versions")?;
            let question = review::question(version, &uid, attributes, object, target);
            let dialler = if note.mutating { &self.mutating } else { &self.validating };
            let reply = dialler.call(context.reader.as_ref(), value, &question).await;
            let reply = reply.and_then(|reply| review::decoded(version, &reply).map(|()| reply));
            let reply = reply.map_err(|error| format!("failed to call webhook: {error}"))?;
            review::answer(version, &uid, note.mutating, &reply)
                .map_err(|error| format!("received invalid webhook response: {error}"))
        };
        let began = Instant::now();
        let answered = answered.await;
        let called = match &answered {
            Ok(answer) if answer.allowed => Called::Allowed,
            Ok(answer) => Called::Refused(review::refusal(name, &answer.status).code),
            Err(_) => Called::Failed { open: hook.ignores_failure() },
        };
        context.meters.called(name, note.mutating, attributes.operation, began.elapsed(), called);
        match answered {
            Ok(answer) => {
                for (key, value) in &answer.annotations {
                    audit::annotate(&format!("{name}/{key}"), || value.clone());
                }
                Ok(Some(answer))
            }
            Err(error) if hook.ignores_failure() => {
                tracing::warn!(webhook = name, error, "cannot call a webhook; going on without it");
                note.failed_open();
                Ok(None)
            }
            Err(error) => Err(Status::internal(format!("failed calling webhook {name:?}: {error}"))),
        }
    }
}

/// The Status for an object that a webhook has made one of another kind.
fn of_another(patched: &Value, kind: &Kind) -> Status {
    let text = |key: &str| patched[key].as_str().unwrap_or_default();
    let (api, other) = (text("apiVersion"), text("kind"));
    if kinds::builtin().iter().any(|known| known.api_version() == api && known.kind == other) {
        let version = api.rsplit('/').next().unwrap_or_default();
        let group = if kind.group.is_empty() { "core" } else { &kind.group };
        let group = group.split('.').next().unwrap_or_default();
        let text = format!("converting ({version}.{other}) to ({group}.{}): unknown conversion", kind.kind);
        return Status::new(500, "", text);
    }
    Status::internal(format!(
        "no kind {other:?} is registered for version {api:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
    ))
}

/// The object with a webhook's patch; `None` without one.
fn patched(
    attributes: &Attributes<'_>,
    object: &Value,
    hook: &Hook,
    target: &Target,
    answer: &review::Answer,
) -> Result<Option<Value>, Status> {
    if answer.patch.is_empty() {
        return Ok(None);
    }
    let operations = patch::operations(&answer.patch).map_err(Status::internal)?;
    if operations.is_empty() {
        return Ok(None);
    }
    if object.is_object() && answer.patch_type != "JSONPatch" {
        let text = format!(
            "failed calling webhook {:?}: unsupported patch type {:?}",
            hook.name(),
            answer.patch_type
        );
        return Err(Status::internal(text));
    }
    if !object.is_object() {
        let text = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name()
        );
        return Err(Status::internal(text));
    }
    let shown = select::converted(target, attributes, object);
    let patched = patch::operated(&shown, &operations).map_err(Status::internal)?;
    let mut patched = select::converted_back(target, attributes, patched);
    if let Some(kind) = &attributes.request.kind
        && select::is_of(object, kind)
    {
        if !select::is_of(&patched, kind) {
            return Err(of_another(&patched, kind));
        }
        patched = decode::canonical(patched, kind).map_err(Status::internal)?.object;
        defaults::apply(&mut patched, kind);
        if patched["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty) {
            meta::remove(&mut patched, "managedFields");
        }
    }
    Ok(Some(patched))
}
