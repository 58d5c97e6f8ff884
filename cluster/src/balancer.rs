//! The one address of the API: TCP passed through to an apiserver that accepts, the next one when one refuses.
//!
//! TLS ends in the apiserver, so clients are still known by their certificates. While no apiserver accepts, a connection waits.

use anyhow::{Context, Result};
use clap::Args;
use coracle_daemon::{Tasks, clock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections carried at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection waits for an apiserver.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long one apiserver may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// `coracle run-balancer`
#[derive(Args, Clone, Debug)]
pub struct BalancerArgs {
    /// Addresses to listen on.
    #[arg(long, required = true)]
    pub listen: Vec<SocketAddr>,
    /// Apiservers.
    #[arg(long, required = true)]
    pub backend: Vec<SocketAddr>,
}

/// Listens and passes connections on until the process stops.
///
/// # Errors
/// An address cannot be bound.
pub async fn run(args: BalancerArgs, tasks: Tasks) -> Result<()> {
    let backends = Arc::new(Backends { addresses: args.backend, next: AtomicUsize::new(0) });
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for address in args.listen {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        tasks.spawn(
            format!("listener {address}"),
            accept(listener, backends.clone(), permits.clone(), tasks.clone()),
        );
    }
    Ok(())
}

struct Backends {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
}

async fn accept(
    listener: TcpListener,
    backends: Arc<Backends>,
    permits: Arc<Semaphore>,
    tasks: Tasks,
) -> Result<()> {
    let stop = tasks.stopping();
    loop {
        let permit = permits.clone().acquire_owned().await.context("the balancer's permits are gone")?;
        let client = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                // Out of file descriptors, or the client left between SYN and accept: neither ends the balancer.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    clock::sleep(PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => return Ok(()),
        };
        let (backends, stop) = (backends.clone(), stop.clone());
        tasks.run("connection", async move {
            let _permit = permit;
            tokio::select! { () = carry(client, &backends) => {}, () = stop.cancelled() => {} }
        });
    }
}

async fn carry(mut client: TcpStream, backends: &Backends) {
    let Ok(mut server) = clock::timeout(WAIT_MAX, backends.connect()).await else {
        tracing::warn!("no apiserver accepts connections");
        return;
    };
    // Both sides send small frames and wait for answers.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    // An end by reset is as good as one by close here.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

impl Backends {
    /// The first that accepts, beginning with the one after the last used.
    async fn connect(&self) -> TcpStream {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        loop {
            for i in 0..self.addresses.len() {
                let address = self.addresses[(first + i) % self.addresses.len()];
                if let Ok(Ok(stream)) = clock::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
                    return stream;
                }
            }
            clock::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_dead_apiserver_is_passed_over() {
        let alive = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address");
        let backends = Backends {
            addresses: vec![dead, alive.local_addr().expect("address")],
            next: AtomicUsize::new(0),
        };
        let serve = async {
            let (mut stream, _) = alive.accept().await.expect("accept");
            stream.write_all(b"hello").await.expect("write");
        };
        let ask = async {
            let mut text = String::new();
            backends.connect().await.read_to_string(&mut text).await.expect("read");
            text
        };
        let ((), text) = tokio::join!(serve, ask);
        assert_eq!(text, "hello");
    }
}
