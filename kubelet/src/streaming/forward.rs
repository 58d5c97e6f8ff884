//! Port-forward: connections to ports inside a pod, over SPDY (bare or tunnelled in a WebSocket) or over WebSocket channels.

use super::session::told;
use super::spdy::{Connection, Stream};
use super::upgrade::{self, IDLE_MAX, Upgraded, decode, encode, is_base64};
use super::websocket::{closing, farewell, next};
use crate::runtime::Runtime;
use bytes::{Bytes, BytesMut};
use coracle_daemon::clock;
use futures::stream::FuturesUnordered;
use futures::{SinkExt, StreamExt};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// The stream protocol over SPDY, and with its prefix the subprotocol of SPDY in a WebSocket.
pub const SPDY_PROTOCOL: &str = "portforward.k8s.io";
/// Subprotocols of a WebSocket.
pub const PROTOCOLS: [&str; 4] =
    ["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "portforward.k8s.io"];
/// How long the second stream of a pair may stay out.
const PAIRING_MAX: Duration = Duration::from_secs(30);
/// Ports of one WebSocket: two channels each.
pub const PORTS_MAX: usize = 64;
const CHUNK_BYTES: usize = 32 << 10;
const WAITING_MAX: usize = 16;

/// Whose ports.
#[derive(Clone)]
pub struct Pod {
    /// Connects.
    pub runtime: Arc<dyn Runtime>,
    /// The pod's name, for messages.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
}

impl Pod {
    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let Self { name, uid, .. } = self;
        let connected = self.runtime.connect(uid, port).await;
        connected.map_err(|error| {
            format!("error forwarding port {port} to pod {name}, uid {uid}: {}", told(&error))
        })
    }
}

/// Serves SPDY in a WebSocket's binary messages.
pub async fn serve_tunnelled(io: Upgraded, pod: Pod) {
    let (mut sink, mut stream) = upgrade::websocket(io).await.split();
    let (near, far) = tokio::io::duplex(2 * CHUNK_BYTES);
    let (mut from, mut to) = tokio::io::split(far);
    let stop = CancellationToken::new();
    let read = async {
        let reading = async {
            while let Some(bytes) = next(&mut stream).await {
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        };
        stop.run_until_cancelled(reading).await;
        // The end of the client's messages is the end of its bytes.
        let _ = to.shutdown().await;
        if stop.is_cancelled() {
            farewell(&mut stream).await;
        }
    };
    let write = async {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        while from.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
            if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                break;
            }
            buffer.reserve(CHUNK_BYTES);
        }
        // A client that left first has closed it already.
        let _ = sink.send(closing()).await;
        stop.cancel();
    };
    tokio::join!(serve(near, pod), read, write);
}

/// Serves SPDY.
pub async fn serve(io: impl AsyncRead + AsyncWrite, pod: Pod) {
    if let Err(error) = Connection::new(io, IDLE_MAX).run(|streams| pairs(streams, pod)).await {
        tracing::debug!(%error, "a port-forward's connection broke off");
    }
}

/// Pairs each connection's data stream with its error stream, and serves them all side by side.
async fn pairs(mut opened: mpsc::Receiver<Stream>, pod: Pod) {
    let mut waiting: HashMap<String, (Stream, clock::Instant)> = HashMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        let oldest = waiting.values().map(|(_, since)| *since + PAIRING_MAX).min();
        tokio::select! {
            stream = opened.recv() => {
                let Some(stream) = stream else { break };
                let id = request(&stream);
                match waiting.remove(&id) {
                    None => drop(waiting.insert(id, (stream, clock::Instant::now()))),
                    Some((other, _)) => running.push(pair(other, stream, &pod)),
                }
            }
            Some(()) = running.next() => {}
            () = async { match oldest {
                Some(oldest) => clock::sleep_until(oldest).await,
                None => std::future::pending().await,
            } } => {
                let late: Vec<String> = waiting
                    .iter()
                    .filter(|(_, (_, since))| since.elapsed() >= PAIRING_MAX)
                    .map(|(id, _)| id.clone())
                    .collect();
                for (stream, _) in late.iter().filter_map(|id| waiting.remove(id)) {
                    stream.sender().abort().await;
                }
            }
        }
    }
    while running.next().await.is_some() {}
}

/// Which connection a stream belongs to. Old clients do not say so: they open the error stream right before the data stream.
fn request(stream: &Stream) -> String {
    match (stream.header("requestid"), stream.header("streamtype")) {
        (Some(id), _) => format!("id {id}"),
        (None, Some("error")) => format!("stream {}", stream.id),
        (None, _) => format!("stream {}", stream.id.saturating_sub(2)),
    }
}

async fn pair(a: Stream, b: Stream, pod: &Pod) {
    let (error, data) = if a.header("streamtype") == Some("error") { (a, b) } else { (b, a) };
    let is_pair = (error.header("streamtype"), data.header("streamtype")) == (Some("error"), Some("data"));
    if !is_pair {
        error.sender().abort().await;
        data.sender().abort().await;
        return;
    }
    // The connection may end meanwhile, which ends all of this.
    let _ = forward(&error, data, pod).await;
}

async fn forward(error: &Stream, mut data: Stream, pod: &Pod) -> io::Result<()> {
    let connected = match data.header("port").map(str::parse::<u16>) {
        Some(Ok(port)) if port > 0 => pod.connect(port).await,
        other => {
            Err(format!("unable to parse {:?} as a port", other.and(data.header("port")).unwrap_or_default()))
        }
    };
    match connected {
        Ok(tcp) => {
            let (from, to) = tcp.into_split();
            let (sender, reset) = (data.sender(), data.reset());
            let upload = upload(to, data.input());
            let download = async {
                let copied = download(from, |bytes| sender.send(bytes)).await;
                sender.finish().await.and(copied)
            };
            // A broken connection of the pod's shows to the client as an end.
            reset.run_until_cancelled(async { tokio::join!(upload, download) }).await;
        }
        Err(why) => {
            tracing::debug!(pod = pod.name, why, "cannot forward a port");
            error.sender().send(why.into()).await?;
            data.sender().finish().await?;
        }
    }
    error.sender().finish().await
}

/// Writes until the client ends its side, then tells the pod so.
async fn upload(mut to: impl AsyncWrite + Unpin, input: &mut mpsc::Receiver<Bytes>) {
    while let Some(bytes) = input.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // The pod may have closed first.
    let _ = to.shutdown().await;
}

async fn download<F: Future<Output = io::Result<()>>>(
    mut from: impl AsyncRead + Unpin,
    send: impl Fn(Bytes) -> F,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    while from.read_buf(&mut buffer).await? > 0 {
        send(buffer.split().freeze()).await?;
        buffer.reserve(CHUNK_BYTES);
    }
    Ok(())
}

/// Serves WebSocket channels: data on 2n, errors on 2n + 1, each opened by two bytes with its port.
pub async fn serve_channels(io: Upgraded, protocol: &str, ports: &[u16], pod: Pod) {
    let base64 = is_base64(protocol);
    let (mut sink, mut stream) = upgrade::websocket(io).await.split();
    let (output, mut outputs) = mpsc::channel::<(u8, Bytes)>(WAITING_MAX);
    let (inputs, receivers): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel(WAITING_MAX)).unzip();
    let stop = CancellationToken::new();
    let read = async {
        let reading = async {
            while let Some(message) = next(&mut stream).await {
                let Some((channel, bytes)) = decode(base64, &message) else { continue };
                if channel % 2 == 0
                    && let Some(input) = inputs.get(usize::from(channel / 2))
                {
                    // A port whose connection ended takes no more.
                    let _ = input.send(bytes).await;
                }
            }
        };
        stop.run_until_cancelled(reading).await;
        drop(inputs);
        if stop.is_cancelled() {
            farewell(&mut stream).await;
        } else {
            stop.cancel();
        }
    };
    let write = async {
        while let Some((channel, bytes)) = outputs.recv().await {
            if sink.send(encode(base64, channel, &bytes)).await.is_err() {
                break;
            }
        }
        // A client that left first has closed it already.
        let _ = sink.send(closing()).await;
        stop.cancel();
    };
    let all: FuturesUnordered<_> = (0_u8..)
        .zip(ports.iter().zip(receivers))
        .map(|(n, (port, input))| channel(2 * n, *port, input, Channels { output: output.clone() }, &pod))
        .collect();
    drop(output);
    // Once the client is gone the connections of the pod are dropped.
    let connections = async {
        stop.run_until_cancelled(all.collect::<()>()).await;
    };
    tokio::join!(read, write, connections);
}

/// The sending side of one port's two channels.
struct Channels {
    output: mpsc::Sender<(u8, Bytes)>,
}

impl Channels {
    async fn say(&self, channel: u8, bytes: Bytes) -> io::Result<()> {
        self.output.send((channel, bytes)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn channel(data: u8, port: u16, mut input: mpsc::Receiver<Bytes>, to: Channels, pod: &Pod) {
    let error = data + 1;
    for channel in [data, error] {
        if to.say(channel, Bytes::copy_from_slice(&port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    match pod.connect(port).await {
        Ok(tcp) => {
            let (from, writer) = tcp.into_split();
            let upload = async {
                upload(writer, &mut input).await;
                std::future::pending::<()>().await;
            };
            // The pod's end is the connection's end: this protocol cannot tell of half of one.
            tokio::select! {
                _ = download(from, |bytes| to.say(data, bytes)) => {}
                () = upload => {}
            }
        }
        // A client that left does not want to know.
        Err(why) => drop(to.say(error, why.into()).await),
    }
}
