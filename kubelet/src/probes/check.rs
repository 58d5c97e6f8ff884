//! One check of a container, or one call of a hook: a command in it, an HTTP request, a connection, a gRPC health question.
//!
//! In: what to do, and where the container is. Out: nothing, or what an event says of the failure. Bounded in time by the
//! caller, in size here.

use crate::runtime::{ExecSpec, Runtime, RuntimeError};
use coracle_daemon::tls;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{
    Container, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes of a command's or server's answer that are kept.
const OUTPUT_MAX: usize = 10 << 10;

/// Where a container is.
#[derive(Clone)]
pub struct Place {
    /// What runs it.
    pub runtime: Arc<dyn Runtime>,
    /// The runtime's id.
    pub id: String,
    /// The pod's address.
    pub ip: IpAddr,
    /// Its definition, for named ports.
    pub container: Container,
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Check {
    /// Run a command; it must end with 0.
    Exec(Vec<String>),
    /// Ask over HTTP; 200 to 399 is good.
    Http(HTTPGetAction),
    /// Connect.
    Tcp(TCPSocketAction),
    /// Ask over gRPC.
    Grpc(GRPCAction),
    /// Wait.
    Sleep(Duration),
}

impl Check {
    /// What a probe does.
    pub fn of_probe(probe: &Probe) -> Option<Self> {
        let exec = probe.exec.clone().map(|exec| Self::Exec(exec.command.unwrap_or_default()));
        exec.or_else(|| probe.http_get.clone().map(Self::Http))
            .or_else(|| probe.tcp_socket.clone().map(Self::Tcp))
            .or_else(|| probe.grpc.clone().map(Self::Grpc))
    }

    /// What a hook does.
    pub fn of_hook(hook: &LifecycleHandler) -> Option<Self> {
        let exec = hook.exec.clone().map(|exec| Self::Exec(exec.command.unwrap_or_default()));
        let sleep = |seconds: i64| Self::Sleep(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        exec.or_else(|| hook.http_get.clone().map(Self::Http))
            .or_else(|| hook.tcp_socket.clone().map(Self::Tcp))
            .or_else(|| hook.sleep.as_ref().map(|hook| sleep(hook.seconds)))
    }

    /// Does it once.
    pub async fn run(&self, place: &Place) -> Result<(), String> {
        match self {
            Self::Exec(command) => exec(place, command).await,
            Self::Http(action) => http(place, action).await,
            Self::Tcp(action) => {
                let host = action.host.clone().filter(|host| !host.is_empty());
                let port = port(&place.container, &action.port)?;
                connect(&host.unwrap_or_else(|| place.ip.to_string()), port).await.map(drop)
            }
            Self::Grpc(action) => super::grpc::ask(place.ip, action).await,
            Self::Sleep(time) => {
                coracle_daemon::clock::sleep(*time).await;
                Ok(())
            }
        }
    }
}

async fn exec(place: &Place, command: &[String]) -> Result<(), String> {
    let spec = ExecSpec { command: command.to_vec(), tty: false, stdin: false };
    let told = |error: RuntimeError| error.to_string();
    let mut exec = place.runtime.exec(&place.id, &spec).await.map_err(told)?;
    let output = match exec.streams() {
        None => String::new(),
        Some(streams) => {
            let (out, err) = tokio::join!(kept(Some(streams.stdout)), kept(streams.stderr));
            out + &err
        }
    };
    match exec.wait().await.map_err(told)? {
        0 => Ok(()),
        _ => Err(output),
    }
}

/// The beginning of a stream; the rest is read and dropped, so that the writer never stalls.
async fn kept(stream: Option<Box<dyn AsyncRead + Send + Unpin>>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    // A stream that breaks ends like one that is closed.
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_MAX.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// A port by number, or by a name that the container gives one.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| format!("invalid port: {}", serde_json::json!(port)))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let at = format!("{}:{port}", if host.contains(':') { format!("[{host}]") } else { host.to_owned() });
    TcpStream::connect(&at).await.map_err(|error| format!("dial tcp {at}: connect: {}", os_text(&error)))
}

/// As Go words the kernel's errors.
fn os_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// Probes ask whether a server answers, not who it is, as upstream's do.
static TRUSTING: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(tls::any_server());
    Arc::new(config.with_no_client_auth())
});

async fn http(place: &Place, action: &HTTPGetAction) -> Result<(), String> {
    let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| place.ip.to_string());
    let port = port(&place.container, &action.port)?;
    let secure = action.scheme.as_deref() == Some("HTTPS");
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let scheme = if secure { "https" } else { "http" };
    let url = format!("{scheme}://{host}:{port}{path}");
    let failed = |why: String| format!("Get {url:?}: {why}");
    let stream = connect(&host, port).await.map_err(failed)?;
    let status = if secure {
        let name = ServerName::try_from(host.clone()).map_err(|error| failed(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(TRUSTING.clone());
        let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
        request(stream, action, &path, &format!("{host}:{port}")).await
    } else {
        request(stream, action, &path, &format!("{host}:{port}")).await
    };
    match status.map_err(failed)? {
        200..400 => Ok(()),
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn request<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    action: &HTTPGetAction,
    path: &str,
    host: &str,
) -> Result<u16, String> {
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let mut request = http::Request::get(path);
    let given = action.http_headers.as_deref().unwrap_or_default();
    let has = |name: &str| given.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    for (name, value) in [("host", host), ("user-agent", "kube-probe/1.33"), ("accept", "*/*")] {
        if !has(name) {
            request = request.header(name, value);
        }
    }
    for header in given {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(told)?;
        let status = answer.status().as_u16();
        // The answer counts even if its body is long or breaks off.
        let _ = Limited::new(answer.into_body(), OUTPUT_MAX).collect().await;
        Ok(status)
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        status = &mut exchange => status,
        // The connection may end first: the answer is then on its way already.
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
