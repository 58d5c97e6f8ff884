//! What every controller is started with.

use crate::counts::Counts;
use crate::execute::{Executor, Tracked};
use crate::stores::Stores;
use coracle_client::controller::{self, Next, ReconcileError};
use coracle_client::{Key, Queue, Recorder, Scope};
use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

/// The source of a controller's events, by which people tell them apart.
fn source(controller: &str) -> Cow<'static, str> {
    match controller {
        "disruption" => "controllermanager".into(),
        "endpoints" => "endpoint-controller".into(),
        "endpointslice" => "endpoint-slice-controller".into(),
        "endpointslicemirroring" => "endpoint-slice-mirroring-controller".into(),
        "ephemeral-volume" => "ephemeral_volume".into(),
        "node-lifecycle" => "node-controller".into(),
        "persistentvolume" | "persistentvolumeclaim" => "persistentvolume-controller".into(),
        "replicationcontroller" => "replication-controller".into(),
        other => format!("{other}-controller").into(),
    }
}

#[derive(Clone)]
pub struct Context {
    pub client: kube::Client,
    pub scope: Scope,
    pub stores: Arc<Stores>,
    pub executor: Executor,
    pub counts: Counts,
}

impl Context {
    /// Starts the shared informers in `scope`.
    pub fn new(client: &kube::Client, scope: &Scope) -> Self {
        let recorder = Recorder::new(client.clone(), "kube-controller-manager", None, scope);
        Self {
            client: client.clone(),
            scope: scope.clone(),
            stores: Arc::new(Stores::start(client, scope)),
            executor: Executor::new(client.clone(), recorder),
            counts: Counts::default(),
        }
    }

    /// Runs a controller, once every cache is filled: a controller that saw half the cluster would undo the other half.
    pub fn control<F, R>(&self, name: &'static str, queue: Queue<Key>, workers: usize, reconcile: F)
    where
        F: Fn(Context, Key) -> R + Send + 'static,
        R: Future<Output = Result<Next, ReconcileError>> + Send + 'static,
    {
        let executor = self.executor.reporting_as(&source(name));
        let context = Self { executor, ..self.clone() };
        self.scope.spawn(format!("controller {name}"), async move {
            context.stores.synced().await;
            controller::run(name, queue, workers, move |key| reconcile(context.clone(), key)).await;
        });
    }

    /// Carries a plan out and says when to look again.
    pub async fn execute(
        &self,
        plan: crate::plan::Plan,
        tracked: Option<Tracked<'_>>,
    ) -> Result<Next, ReconcileError> {
        let after = plan.after;
        self.executor.execute_tracked(plan, tracked).await?;
        Ok(after.map_or(Next::Change, Next::After))
    }
}
