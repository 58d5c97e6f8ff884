//! Small GETs for health checks: one connection, one request, a bounded answer.

use crate::layout::Layout;
use crate::process::Probe;
use anyhow::{Context, Result};
use coracle_daemon::{Tasks, clock, tls};
use futures::TryStreamExt;
use http_body_util::{BodyStream, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const ANSWER_MAX: usize = 4 << 20;
const TIME_MAX: Duration = Duration::from_secs(2);

/// Asks a process whether it is well.
///
/// # Errors
/// It is not, and why.
pub async fn probe(probe: &Probe, layout: &Layout) -> Result<()> {
    let ask = async {
        match probe {
            Probe::Alive => Ok(()),
            Probe::Tcp { address } => {
                TcpStream::connect(address).await.map(drop).context("refuses connections")
            }
            Probe::Http { address, path } => healthy(get_plain(address, path).await?),
            Probe::Https { address, path } => healthy(get_tls(address, path, layout).await?),
        }
    };
    clock::timeout(TIME_MAX, ask).await.context("does not answer in time")?
}

fn healthy((code, body): (u16, String)) -> Result<()> {
    anyhow::ensure!(code == 200, "answers {code}: {}", body.lines().next().unwrap_or_default());
    Ok(())
}

/// Status code and body of a plain GET.
///
/// # Errors
/// No connection, or no HTTP.
pub async fn get_plain(address: &str, path: &str) -> Result<(u16, String)> {
    let stream = TcpStream::connect(address).await.context("refuses connections")?;
    get(stream, address, path).await
}

/// Status code and body of a GET with the admin's certificate.
///
/// # Errors
/// No connection, no trust, or no HTTP.
pub async fn get_tls(address: &str, path: &str, layout: &Layout) -> Result<(u16, String)> {
    let identity = tls::Identity { cert: layout.cert("admin"), key: layout.key("admin") };
    let config = tls::client(&layout.cert("ca"), Some(&identity), &[b"http/1.1"])?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
    let name = ServerName::try_from(host).context("not a server name")?;
    let stream = TcpStream::connect(address).await.context("refuses connections")?;
    let stream = TlsConnector::from(config).connect(name, stream).await.context("TLS failed")?;
    get(stream, address, path).await
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: &str,
    path: &str,
) -> Result<(u16, String)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("no HTTP")?;
    let tasks = Tasks::new();
    tasks.run("health connection", async move {
        // The answer, or its absence, tells all.
        let _ = connection.await;
    });
    let request = http::Request::get(path)
        .header("host", address)
        .body(Empty::<bytes::Bytes>::new())
        .context("not a request")?;
    let response = sender.send_request(request).await.context("no answer")?;
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_MAX);
    let frames: Vec<bytes::Bytes> = BodyStream::new(body)
        .try_filter_map(|frame| async move { Ok(frame.into_data().ok()) })
        .try_collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
    Ok((code, String::from_utf8_lossy(&frames.concat()).into_owned()))
}
