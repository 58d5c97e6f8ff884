//! The one executor that carries plans out.
//!
//! In: a [`Plan`]. Out: API calls and events. A step that fails ends the plan; the key is then reconciled again from fresh
//! state.

use crate::expectations::Expectations;
use crate::plan::{Action, Plan};
use coracle_client::controller::ReconcileError;
use coracle_client::{EventType, Key, Recorder, errors};
use futures::StreamExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use serde_json::json;

/// Calls of one plan under way at a time.
const PARALLEL: usize = 16;

/// Carries plans out.
#[derive(Clone)]
pub struct Executor {
    client: kube::Client,
    recorder: Recorder,
}

/// Whose expectations a plan's pod creations and deletions count towards.
pub struct Tracked<'a> {
    pub expectations: &'a Expectations,
    pub owner: &'a Key,
}

impl Executor {
    pub const fn new(client: kube::Client, recorder: Recorder) -> Self {
        Self { client, recorder }
    }

    /// The same, whose events are those of another component.
    #[must_use]
    pub fn reporting_as(&self, component: &str) -> Self {
        Self { client: self.client.clone(), recorder: self.recorder.of(component) }
    }

    /// Takes all steps, or those before the first that fails. Pods created and deleted are expected to show up in the cache.
    pub async fn execute_tracked(
        &self,
        plan: Plan,
        tracked: Option<Tracked<'_>>,
    ) -> Result<(), ReconcileError> {
        for step in plan.steps {
            self.step(step, tracked.as_ref()).await?;
        }
        Ok(())
    }

    /// Runs actions in batches of 1, 2, 4 …, so that what fails for all (a quota, an invalid template) fails once.
    async fn step(
        &self,
        mut actions: Vec<Action>,
        tracked: Option<&Tracked<'_>>,
    ) -> Result<(), ReconcileError> {
        let mut batch = 1;
        while !actions.is_empty() {
            let now: Vec<_> = actions.drain(..batch.min(actions.len())).collect();
            if let Some(tracked) = tracked {
                tracked.expectations.expect(tracked.owner, &now);
            }
            let results: Vec<_> =
                futures::stream::iter(now.into_iter().map(|action| self.act(action, tracked)))
                    .buffer_unordered(PARALLEL)
                    .collect()
                    .await;
            for result in results {
                result?;
            }
            batch *= 2;
        }
        Ok(())
    }

    async fn act(&self, action: Action, tracked: Option<&Tracked<'_>>) -> kube::Result<()> {
        let result = self.call(&action).await;
        if let (Err(_), Some(tracked)) = (&result, tracked) {
            tracked.expectations.failed(tracked.owner, &action);
        }
        self.announce(&action, &result);
        match (action, result) {
            // Gone is what a deletion wants, and makes a change pointless.
            (Action::Delete { .. } | Action::Patch { .. } | Action::Apply { .. }, Err(error))
                if errors::is_not_found(&error) =>
            {
                Ok(())
            }
            (Action::Ensure { .. }, Err(error)) if errors::is_already_exists(&error) => Ok(()),
            (_, result) => result.map(|_| ()),
        }
    }

    /// The name of the object acted on.
    async fn call(&self, action: &Action) -> kube::Result<String> {
        match action {
            Action::Create { resource, body, .. } | Action::Ensure { resource, body } => {
                let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default();
                let mut body = body.clone();
                body["apiVersion"] = json!(resource.api_version());
                body["kind"] = json!(resource.kind);
                let object = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
                let created =
                    resource.api(&self.client, namespace).create(&PostParams::default(), &object).await?;
                Ok(created.metadata.name.unwrap_or_default())
            }
            Action::Patch { resource, key, subresource, patch } => {
                let (api, params, patch) =
                    (resource.api(&self.client, &key.namespace), PatchParams::default(), Patch::Merge(patch));
                match *subresource {
                    "" => api.patch(&key.name, &params, &patch).await?,
                    "status" => api.patch_status(&key.name, &params, &patch).await?,
                    other => api.patch_subresource(other, &key.name, &params, &patch).await?,
                };
                Ok(key.name.clone())
            }
            Action::Apply { resource, key, manager, config, otherwise } => {
                let api = resource.api(&self.client, &key.namespace);
                let mut config = config.clone();
                config["apiVersion"] = json!(resource.api_version());
                config["kind"] = json!(resource.kind);
                let params = PatchParams::apply(manager).force();
                match api.patch(&key.name, &params, &Patch::Apply(&config)).await {
                    Err(kube::Error::Api(status)) if status.code == 415 => {
                        api.patch(&key.name, &PatchParams::default(), &Patch::Merge(otherwise)).await?
                    }
                    done => done?,
                };
                Ok(key.name.clone())
            }
            Action::Delete { resource, key, uid, how, .. } => {
                let params = DeleteParams {
                    grace_period_seconds: how.force.then_some(0),
                    propagation_policy: how.background.then_some(PropagationPolicy::Background),
                    preconditions: uid
                        .clone()
                        .map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
                    ..DeleteParams::default()
                };
                resource.api(&self.client, &key.namespace).delete(&key.name, &params).await?;
                Ok(key.name.clone())
            }
            Action::Event { about, kind, reason, message } => {
                self.recorder.event(about, *kind, reason, message.clone());
                Ok(String::new())
            }
        }
    }

    fn announce(&self, action: &Action, result: &kube::Result<String>) {
        let (owner, resource, verb, done) = match action {
            Action::Create { owner: Some(owner), resource, .. } => (owner, resource, "Create", "Created"),
            Action::Delete { owner: Some(owner), resource, .. } => (owner, resource, "Delete", "Deleted"),
            _ => return,
        };
        let what = if resource.kind == "Pod" { "pod" } else { resource.kind };
        match result {
            Ok(name) => {
                let reason = if verb == "Create" { "SuccessfulCreate" } else { "SuccessfulDelete" };
                self.recorder.event(owner, EventType::Normal, reason, format!("{done} {what}: {name}"));
            }
            Err(error) if errors::is_namespace_terminating(error) || errors::is_not_found(error) => {}
            // A pod of a settled name that still ends or that someone else made: upstream keeps quiet too.
            Err(error) if errors::is_already_exists(error) => {}
            Err(error) => {
                let reason = if verb == "Create" { "FailedCreate" } else { "FailedDelete" };
                let doing = if verb == "Create" { "creating" } else { "deleting" };
                self.recorder.event(
                    owner,
                    EventType::Warning,
                    reason,
                    format!("Error {doing}: {}", text_of(error)),
                );
            }
        }
    }
}

fn text_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
