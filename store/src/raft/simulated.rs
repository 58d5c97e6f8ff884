//! A member whose disk, network and threads a simulation provides: all that is decided is decided by the same code.
//!
//! In: [`Surroundings`], and the connections that other members make. Out: a [`Node`]. Without an image: such a member starts
//! from its newest snapshot and its log.

use super::node::Node;
use super::open::open_within;
use super::start::serve_incoming;
use super::{NodeConfig, StartError};
use crate::shared::Shared;
use crate::wal::{Disk, Driver, Options};
use coracle_daemon::Tasks;
use futures::Stream;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// A connection in the place of TCP's.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

type Connecting = BoxFuture<'static, io::Result<Box<dyn Connection>>>;

/// Connects to the host and port of a URL.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(String) -> Connecting + Send + Sync>);

impl Dial {
    /// By this function.
    pub fn new(connect: impl Fn(String) -> Connecting + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
    }

    /// A connection that is made when first used.
    pub(super) fn lazily(&self, endpoint: &Endpoint) -> Channel {
        let dial = self.0.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: axum::http::Uri| {
            let connecting = dial(uri.authority().map(ToString::to_string).unwrap_or_default());
            async move { connecting.await.map(TokioIo::new) }
        }))
    }
}

/// A log without threads, and who writes its batches.
pub struct Driven {
    /// Sizes.
    pub options: Options,
    /// Takes the driver, which must write every batch from then on.
    pub take: Box<dyn FnOnce(Driver) + Send>,
}

/// What may take the place of the machine that a member runs on.
#[derive(Default)]
pub struct Surroundings {
    /// The disk of the log.
    pub disk: Option<Arc<dyn Disk>>,
    /// The log's thread.
    pub driven: Option<Driven>,
    /// The way to other members.
    pub dial: Option<Dial>,
}

/// Starts a member that other members reach by `incoming`.
///
/// # Errors
/// Its data is unusable.
pub async fn start<I, C>(
    config: NodeConfig,
    around: Surroundings,
    incoming: I,
    shared: Arc<Shared>,
    tasks: &Tasks,
) -> Result<Arc<Node>, StartError>
where
    I: Stream<Item = io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let node = open_within(config, around, None, shared, tasks).await?;
    serve_incoming(&node, incoming, tasks);
    Ok(node)
}
