//! `coracle up`: make or resume a cluster, tell each step with its time, leave nothing behind on failure.

use crate::args::{Output, UpArgs};
use crate::control::{Reply, Request, ask};
use crate::layout::Layout;
use crate::spec::Spec;
use crate::{addons, down, http, image, kubeconfig, pki, preflight, supervisor};
use anyhow::{Context, Result};
use coracle_daemon::clock::{self, Instant};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::wait::await_condition;
use serde_json::json;
use std::fs;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};

/// How long each step may take before `up` gives up.
const STEP_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Tells steps as they end, and remembers them.
struct Progress {
    output: Output,
    began: Instant,
    steps: Vec<(String, Duration)>,
}

impl Progress {
    fn done(&mut self, what: impl Into<String>, since: Instant) {
        let (what, took) = (what.into(), since.elapsed());
        if self.output == Output::Text {
            eprintln!("  {:>6.2} s  {what}", took.as_secs_f64());
        }
        self.steps.push((what, took));
    }
}

/// Brings a cluster up.
///
/// # Errors
/// One sentence that says what to do; what was half-made is gone.
pub async fn run(args: UpArgs) -> Result<()> {
    let layout = Layout::of(&args.which);
    preflight::check_folder(&layout)?;
    let began = Instant::now();
    let mut progress = Progress { output: args.output, began, steps: Vec::new() };
    if layout.spec().exists()
        && matches!(ask(&layout.socket(), &Request::Status).await?, Some(Reply::Status(_)))
    {
        let spec = supervisor::read_spec(&layout)?;
        kubeconfig::merge_into(&kubeconfig::users_file(args.kubeconfig.as_deref()), &layout, &spec)?;
        return tell(&args, &spec, &progress, "is already up");
    }
    let resumed = layout.spec().exists();
    anyhow::ensure!(
        resumed || !layout.pki().exists(),
        "{0} holds a half-made cluster: remove it with `coracle down --name {1} --dir {0}`",
        layout.dir().display(),
        args.which.name
    );
    let spec = if resumed { supervisor::read_spec(&layout)? } else { preflight::new_spec(&args)? };
    let made = tokio::select! {
        made = bring_up(&args, &layout, &spec, &mut progress) => made,
        signal = interrupted() => Err(signal.map_or_else(|error| error, |name| anyhow::anyhow!("stopped by {name}"))),
    };
    if let Err(error) = made {
        let culprit = culprit(&layout).await;
        // The first error is the one to tell; what cannot be removed is told by `down`.
        if let Err(left) = down::stop(&layout, &spec).await {
            eprintln!("could not clean up: {left:#}");
        }
        if !resumed {
            let _ = fs::remove_dir_all(layout.dir());
        }
        return Err(error.context(format!("cluster {} could not be brought up{culprit}", spec.name)));
    }
    tell(&args, &spec, &progress, if resumed { "is up again" } else { "is up" })
}

/// The name of the signal that asks us to give up.
async fn interrupted() -> Result<&'static str> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut int, mut term) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(tokio::select! { _ = int.recv() => "SIGINT", _ = term.recv() => "SIGTERM" })
}

async fn bring_up(args: &UpArgs, layout: &Layout, spec: &Spec, progress: &mut Progress) -> Result<()> {
    let step = Instant::now();
    pki::private_dir(layout.dir())?;
    pki::ensure(layout, spec)?;
    kubeconfig::write_all(layout, spec)?;
    pki::write_private(&layout.spec(), &serde_json::to_vec_pretty(spec).context("cannot encode the spec")?)?;
    pki::write_private(&layout.addons(), &addons::list(spec)?)?;
    progress.done("certificates and kubeconfigs", step);

    let step = Instant::now();
    start_supervisor(layout).await?;
    progress.done(
        format!(
            "{} processes started",
            crate::plan::Ground { spec, layout, program: layout.dir() }.host().len()
                + usize::from(spec.nodes) * 4
        ),
        step,
    );

    let step = Instant::now();
    let images = async {
        if spec.nodes > 0 && !args.no_images { image::provide(layout, spec).await } else { Ok(Vec::new()) }
    };
    let (api, provided) = tokio::join!(api_ready(layout, spec, progress), images);
    api?;
    let provided = provided.context("cannot provide the images")?;
    if !provided.is_empty() {
        progress.done(format!("images {}", provided.join(", ")), step);
    }
    kubeconfig::merge_into(&kubeconfig::users_file(args.kubeconfig.as_deref()), layout, spec)
}

async fn api_ready(layout: &Layout, spec: &Spec, progress: &mut Progress) -> Result<()> {
    let step = Instant::now();
    let address = format!("127.0.0.1:{}", spec.balancer_port());
    until("the API", || async {
        http::get_tls(&address, "/readyz", layout).await.is_ok_and(|(code, _)| code == 200)
    })
    .await?;
    progress.done("API ready", step);

    let step = Instant::now();
    let client = coracle_client::connect(&layout.kubeconfig("admin"), "coracle-up")
        .await
        .context("cannot use the admin's kubeconfig")?;
    let names = (0..spec.nodes)
        .map(|i| spec.node_name(i))
        .chain((0..spec.simulated_nodes).map(|i| format!("{}-simulated-{i}", spec.name)));
    let ready = futures::future::try_join_all(names.map(|name| node_ready(client.clone(), name)));
    clock::timeout(STEP_MAX, ready).await.context("not all nodes became Ready in time")??;
    progress.done(format!("{} nodes Ready", spec.nodes + spec.simulated_nodes), step);

    if spec.nodes > 0 {
        let step = Instant::now();
        for i in 0..spec.nodes {
            let server = format!("{}:53", spec.node_address(i));
            until("DNS", || async { resolves(&server).await.is_ok_and(|answered| answered) }).await?;
        }
        progress.done("DNS answers", step);
    }
    Ok(())
}

/// Asks again and again, for a start-up has no event that another process could wait for.
async fn until<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) -> Result<()> {
    let asking = async {
        while !ask().await {
            clock::sleep(PAUSE).await;
        }
    };
    clock::timeout(STEP_MAX, asking)
        .await
        .with_context(|| format!("{what} did not answer within {} s", STEP_MAX.as_secs()))
}

async fn node_ready(client: kube::Client, name: String) -> Result<()> {
    let is_ready = |node: Option<&Node>| {
        let conditions =
            node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
    };
    await_condition(Api::<Node>::all(client), &name, is_ready)
        .await
        .map(drop)
        .with_context(|| format!("cannot watch the node {name}"))
}

/// One A query for the API's own Service (RFC 1035, section 4.1).
async fn resolves(server: &str) -> Result<bool> {
    const ID: [u8; 2] = [0xc0, 0xac];
    let mut query = [&ID[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in "kubernetes.default.svc.cluster.local".split('.') {
        query.push(u8::try_from(label.len()).context("label too long")?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0").await.context("cannot open a UDP socket")?;
    socket.connect(server).await.context("cannot reach the node")?;
    socket.send(&query).await.context("cannot send a query")?;
    let mut answer = [0; 512];
    let length = clock::timeout(Duration::from_millis(200), socket.recv(&mut answer))
        .await
        .context("no answer")?
        .context("no answer")?;
    let no_error = length >= 12 && answer[..2] == ID && answer[3] & 0x0f == 0;
    Ok(no_error && u16::from_be_bytes([answer[6], answer[7]]) > 0)
}

async fn start_supervisor(layout: &Layout) -> Result<()> {
    let log = layout.log("supervisor");
    pki::private_dir(log.parent().unwrap_or(layout.dir()))?;
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let program = std::env::current_exe().context("cannot find the coracle program")?;
    let mut command = tokio::process::Command::new(program);
    command
        .arg("run-supervisor")
        .arg("--dir")
        .arg(layout.dir())
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("cannot share the log")?)
        .stderr(file);
    own_session(&mut command);
    let mut supervisor = command.spawn().context("cannot start the supervisor")?;
    let socket = layout.socket();
    tokio::select! {
        answered = until("the supervisor", || async { matches!(ask(&socket, &Request::Status).await, Ok(Some(_))) }) => answered,
        ended = supervisor.wait() => anyhow::bail!("the supervisor ended: {}", ended.map_or_else(|error| error.to_string(), |status| status.to_string())),
    }
}

/// The supervisor outlives the terminal it was started from, and holds nothing that was open there: a lock of the
/// calling script would stay taken for as long as the cluster is up.
fn own_session(command: &mut tokio::process::Command) {
    #[expect(unsafe_code, reason = "setsid and close_range are async-signal-safe")]
    // SAFETY: the closure makes two system calls and touches no memory shared with other threads.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            let flags = nix::libc::CLOSE_RANGE_CLOEXEC;
            let done = nix::libc::syscall(nix::libc::SYS_close_range, 3, nix::libc::c_uint::MAX, flags);
            nix::errno::Errno::result(done).map(drop).map_err(std::io::Error::from)
        });
    }
}

/// What the error message says of the process that keeps ending, or of the supervisor if that ended.
async fn culprit(layout: &Layout) -> String {
    let states = match ask(&layout.socket(), &Request::Status).await {
        Ok(Some(Reply::Status(states))) => states,
        _ => Vec::new(),
    };
    let ending = states.into_iter().filter(|state| state.restarts > 0).max_by_key(|state| state.restarts);
    let (who, log) = match ending {
        Some(state) => (state.process.id, state.process.log),
        None => ("the supervisor".to_owned(), layout.log("supervisor")),
    };
    let text = fs::read_to_string(log).unwrap_or_default();
    let told = text.lines().rfind(|line| line.starts_with("coracle ") || line.contains("ERROR"));
    told.map(|line| format!(" ({who} says: {line})")).unwrap_or_default()
}

fn tell(args: &UpArgs, spec: &Spec, progress: &Progress, what: &str) -> Result<()> {
    let server = format!("https://127.0.0.1:{}", spec.balancer_port());
    match args.output {
        Output::Json => {
            let steps: Vec<_> = progress
                .steps
                .iter()
                .map(|(what, took)| json!({"step": what, "seconds": took.as_secs_f64()}))
                .collect();
            let told = json!({"name": spec.name, "context": spec.context(), "server": server, "state": what, "seconds": progress.began.elapsed().as_secs_f64(), "steps": steps});
            println!("{}", serde_json::to_string_pretty(&told).context("cannot encode the result")?);
        }
        Output::Text => eprintln!(
            "cluster {} {what} at {server} after {:.2} s; kubectl's context is {}",
            spec.name,
            progress.began.elapsed().as_secs_f64(),
            spec.context()
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_supervisor_inherits_nothing_but_its_three_streams() {
        let mine = tempfile::NamedTempFile::new().expect("a file");
        // Without close-on-exec, as a script's lock file is.
        let _open = nix::unistd::dup(mine.as_file()).expect("a descriptor");
        let mut command = tokio::process::Command::new("ls");
        command.args(["-l", "/proc/self/fd"]).stdin(Stdio::null()).stderr(Stdio::null());
        own_session(&mut command);
        let told = command.output().await.expect("ls runs");
        let told = String::from_utf8_lossy(&told.stdout);
        assert!(told.contains("/dev/null"), "{told}");
        assert!(!told.contains(&mine.path().to_string_lossy().into_owned()), "{told}");
    }
}
