//! The cluster's supervisor: keeps the host's processes alive, knows all processes, stops everything when asked.

use crate::control::{Reply, Request, read_line, write_line};
use crate::host;
use crate::layout::Layout;
use crate::plan::Ground;
use crate::process::{self, Process, State, Table};
use crate::spec::Spec;
use anyhow::{Context, Result};
use clap::Args;
use coracle_daemon::Tasks;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// `coracle run-supervisor`
#[derive(Args, Clone, Debug)]
pub struct SupervisorArgs {
    /// The cluster's folder.
    #[arg(long)]
    pub dir: PathBuf,
}

/// Reads a cluster's facts.
///
/// # Errors
/// The file is missing or damaged.
pub fn read_spec(layout: &Layout) -> Result<Spec> {
    let path = layout.spec();
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is damaged: remove the cluster with `coracle down`, and its --name and --dir",
            path.display()
        )
    })
}

struct Supervisor {
    table: Table,
    running: parking_lot::Mutex<Vec<(u8, CancellationToken, CancellationToken)>>,
}

/// Starts every process and listens on the socket.
///
/// # Errors
/// The folder, the bridge or the socket cannot be used.
pub async fn run(args: SupervisorArgs, tasks: Tasks) -> Result<()> {
    let layout = Layout::at(&args.dir);
    let spec = read_spec(&layout)?;
    if spec.has_network() {
        host::network_up(&spec).await?;
    }
    let program = std::env::current_exe().context("cannot find the coracle program")?;
    let processes = Ground { spec: &spec, layout: &layout, program: &program }.host();
    let socket = layout.socket();
    let _ = fs::remove_file(&socket);
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    // Processes have their own owner: they are stopped in stages, not all at once.
    let keepers = Tasks::new();
    let supervisor = Arc::new(Supervisor { table: Table::default(), running: parking_lot::Mutex::default() });
    for process in processes {
        supervisor.start(process, &keepers);
    }
    let stop = tasks.stopping();
    let (accepting, owner) = (supervisor, tasks.clone());
    tasks.spawn("control socket", async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.context("cannot accept on the control socket")?;
                    let supervisor = accepting.clone();
                    owner.run("control connection", async move {
                        if let Err(error) = supervisor.answer(stream).await {
                            tracing::debug!(error = format!("{error:#}"), "control connection ended");
                        }
                    });
                }
                () = stop.cancelled() => break,
            }
        }
        accepting.stop().await;
        let _ = fs::remove_file(&socket);
        Ok(())
    });
    Ok(())
}

impl Supervisor {
    fn start(&self, process: Process, keepers: &Tasks) {
        let (stage, stop) = (process.stage, CancellationToken::new());
        let gone = process::keep(process, &self.table, stop.clone(), keepers);
        self.running.lock().push((stage, stop, gone));
    }

    async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        process::stop_in_stages(running).await;
    }

    async fn answer(&self, stream: UnixStream) -> Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            match read_line(&mut stream).await? {
                Request::Status => write_line(&mut stream, &Reply::Status(self.table.all())).await?,
                Request::Stop => {
                    self.stop().await;
                    write_line(&mut stream, &Reply::Done).await?;
                    nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM)
                        .context("cannot end the supervisor")?;
                }
                Request::Report { node, states } => {
                    let init = self
                        .table
                        .all()
                        .into_iter()
                        .find(|state| state.process.id == node)
                        .and_then(|state| state.pid);
                    self.table.put(states.into_iter().map(|state| State {
                        pid: state.pid.zip(init).and_then(|(pid, init)| host::outer_pid(init, pid)),
                        ..state
                    }));
                    write_line(&mut stream, &Reply::Done).await?;
                }
            }
        }
    }
}
