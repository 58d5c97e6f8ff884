//! A component's life in five moves: configure, build, start, wait, drain.

use crate::{Tasks, logging};
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How a component runs.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// Its subcommand's name, as in logs and metrics.
    pub name: &'static str,
    /// How long a clean stop may take.
    pub grace: Duration,
    /// Worker threads; 0 lets tokio choose by cores.
    pub threads: usize,
}

/// Runs `start` on a new runtime, waits for SIGTERM, SIGINT or the death of a task, and drains.
///
/// `start` binds ports and spawns tasks, then returns; whatever can fail fails in it. A second signal ends the
/// process at once. Exit codes: 0 stopped when asked, 1 failed.
pub fn run<F, S>(component: Component, start: S) -> ExitCode
where
    S: FnOnce(Tasks) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    logging::init(component.name);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if component.threads > 0 {
        builder.worker_threads(component.threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("coracle {}: cannot start its threads: {error}", component.name);
            return ExitCode::FAILURE;
        }
    };
    // A clone outlives the runtime's drop below.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let code = runtime.block_on(live(component, start));
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn live<F, S>(component: Component, start: S) -> ExitCode
where
    S: FnOnce(Tasks) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let tasks = Tasks::new();
    let asked = match signals() {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("coracle {}: cannot listen for signals: {error}", component.name);
            return ExitCode::FAILURE;
        }
    };
    tokio::pin!(asked);
    let started = tokio::select! {
        started = start(tasks.clone()) => started,
        () = asked.as_mut() => return ExitCode::SUCCESS,
    };
    let mut code = ExitCode::SUCCESS;
    let mut asked_to = false;
    if let Err(error) = started {
        eprintln!("coracle {}: {error:#}", component.name);
        code = ExitCode::FAILURE;
    } else {
        tokio::select! {
            () = asked.as_mut() => {
                tracing::info!("stopping: asked to");
                asked_to = true;
            }
            death = tasks.first_death() => {
                tracing::error!(task = death.name, error = format!("{:#}", death.error), "stopping: a task died");
                eprintln!("coracle {}: {} died: {:#}", component.name, death.name, death.error);
                code = ExitCode::FAILURE;
            }
        }
    }
    let again = async {
        if let Ok(again) = signals() {
            again.await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let stopped = async {
        if asked_to {
            tasks.prepare_stop().await;
        }
        tasks.stop_within(component.grace).await
    };
    tokio::select! {
        stopped = stopped => if let Err(stuck) = stopped { tracing::warn!(%stuck, "leaving without them") },
        () = again => code = ExitCode::FAILURE,
    }
    code
}

/// The returned future ends at the next SIGTERM or SIGINT.
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

/// Runs a command that ends by itself, such as `coracle status`, on a runtime of its own.
///
/// # Errors
/// The command's error, or that no runtime could be started.
pub fn run_command(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // A second call finds the first one's choice, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}
