//! The garbage collector: deletes what lost its last owner, in the order that owners asked for.
//!
//! In: the metadata of every object of every resource that can be listed, watched and deleted. Out: deletions
//! (background or foreground), and owner references and finalizers removed.
//!
//!     graph.rs   who depends on whom; who should be looked at after a change
//!     decide.rs  what to do with one object, given what its owners are
//!     collect.rs looks at one object: asks the apiserver, decides, acts
//!     monitor.rs the metadata watches, following discovery
//!
//! Invariant: nothing is deleted on the word of a cache. The object and each owner that is missing from the graph are
//! asked for at the apiserver first, and the deletion names the uid and resourceVersion that were seen.

mod collect;
mod decide;
mod graph;
mod monitor;

use crate::context::Context;
use crate::counts::Counts;
use coracle_client::controller;
use coracle_client::{Queue, Recorder};
use graph::Graph;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// Objects looked at at a time.
const WORKERS: usize = 16;

pub fn start(ctx: &Context) {
    let garbage = Garbage {
        client: ctx.client.clone(),
        graph: Arc::new(Mutex::new(Graph::default())),
        queue: Queue::new(),
        recorder: Recorder::new(ctx.client.clone(), "garbage-collector-controller", None, &ctx.scope),
        counts: ctx.counts.clone(),
    };
    let (synced, mut ready) = watch::channel(false);
    ctx.scope.spawn("garbage monitors", monitor::follow(garbage.clone(), ctx.scope.clone(), synced));
    ctx.scope.spawn("garbage collector", async move {
        // An owner that is merely not listed yet would cost a request for each of its dependents.
        if ready.wait_for(|ready| *ready).await.is_ok() {
            let queue = garbage.queue.clone();
            controller::run("garbage", queue, WORKERS, move |uid| {
                let garbage = garbage.clone();
                async move { collect::look_at(&garbage, &uid).await }
            })
            .await;
        }
    });
}

/// What the parts share.
#[derive(Clone)]
pub struct Garbage {
    client: kube::Client,
    graph: Arc<Mutex<Graph>>,
    /// Uids of objects to look at.
    queue: Queue<String>,
    recorder: Recorder,
    counts: Counts,
}
