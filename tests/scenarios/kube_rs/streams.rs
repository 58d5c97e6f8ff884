//! What a container tells and is told.

use super::run;
use anyhow::{Context, Result, ensure};
use coracle_tests::Cluster;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, DeleteParams, EvictParams, LogParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// exec, attach, logs, port-forward and eviction.
pub fn container_streams(cluster: &Cluster) -> Result<()> {
    run(cluster, "rs-streams", async |client, namespace| {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let script = "echo ahoy; while read line; do echo got $line; done";
        let pod = json!({"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "busybox", "stdin": true, "command": ["sh", "-c", script]},
            {"name": "web", "image": "nginx"}]}});
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        await_condition(pods.clone(), "p", conditions::is_pod_running()).await?;
        logs(&pods).await?;
        exec(&pods).await?;
        attach(&pods).await?;
        forward(&pods).await?;
        pods.evict(
            "p",
            &EvictParams { delete_options: Some(DeleteParams::default()), ..EvictParams::default() },
        )
        .await?;
        await_condition(pods.clone(), "p", |pod: Option<&Pod>| pod.is_none()).await?;
        Ok(())
    })
}

async fn logs(pods: &Api<Pod>) -> Result<()> {
    let of = |follow| LogParams { container: Some("c".to_owned()), follow, ..LogParams::default() };
    let mut lines = pods.log_stream("p", &of(true)).await?.lines();
    ensure!(lines.try_next().await?.as_deref() == Some("ahoy"));
    ensure!(pods.logs("p", &of(false)).await? == "ahoy\n");
    let none = LogParams { container: Some("none".to_owned()), ..LogParams::default() };
    let refusal = super::refused(pods.logs("p", &none).await)?;
    ensure!(refusal.message == "container none is not valid for pod p", "{refusal:?}");
    Ok(())
}

async fn all(stream: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let mut text = String::new();
    stream.context("no stream")?.read_to_string(&mut text).await?;
    Ok(text)
}

async fn exec(pods: &Api<Pod>) -> Result<()> {
    let params = AttachParams::default().container("c");
    let mut run = pods.exec("p", ["sh", "-c", "echo out; echo err >&2; exit 4"], &params).await?;
    let status = run.take_status().context("no status")?;
    let (out, err) = (run.stdout(), run.stderr());
    let (out, err, status) = tokio::join!(all(out), all(err), status);
    ensure!((out?.as_str(), err?.as_str()) == ("out\n", "err\n"));
    let status = status.context("no status came")?;
    ensure!(status.reason.as_deref() == Some("NonZeroExitCode"), "{status:?}");
    let mut cat = pods.exec("p", ["head", "-n1"], &params.stdin(true).stderr(false)).await?;
    cat.stdin().context("no stdin")?.write_all(b"a line\n").await?;
    let out = cat.stdout();
    ensure!(all(out).await? == "a line\n");
    cat.join().await?;
    Ok(())
}

async fn attach(pods: &Api<Pod>) -> Result<()> {
    let params = AttachParams::default().container("c").stdin(true).stderr(false);
    let mut attached = pods.attach("p", &params).await?;
    let mut out = attached.stdout().context("no stdout")?;
    attached.stdin().context("no stdin")?.write_all(b"word\n").await?;
    let mut told = Vec::new();
    while !told.ends_with(b"got word\n") {
        ensure!(
            out.read_buf(&mut told).await? > 0,
            "the container said {:?} only",
            String::from_utf8_lossy(&told)
        );
    }
    attached.abort();
    Ok(())
}

async fn forward(pods: &Api<Pod>) -> Result<()> {
    let mut forwarder = pods.portforward("p", &[80]).await?;
    let mut port = forwarder.take_stream(80).context("no stream")?;
    port.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    ensure!(all(Some(port)).await?.contains("nginx"));
    Ok(())
}
