//! containerd's gRPC services over its socket, with our namespace on every call.
//!
//! The connection is made when first used and again after containerd was restarted; nothing here waits for it.

use crate::runtime::RuntimeError;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// A call that takes longer has failed; calls that wait for a process have no limit.
const CALL_MAX: Duration = Duration::from_secs(120);
/// A list of all containers has all their specifications in it.
const REPLY_BYTES_MAX: usize = 256 << 20;

type Wire = InterceptedService<Channel, Headers>;

/// What goes with every call.
#[derive(Clone, Debug)]
pub struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
    limit: Option<Duration>,
}

impl tonic::service::Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        if let Some(limit) = self.limit {
            request.set_timeout(limit);
        }
        Ok(request)
    }
}

/// A way to containerd; clones share it.
#[derive(Clone, Debug)]
pub struct Link {
    channel: Channel,
    headers: Headers,
}

impl Link {
    /// `endpoint` is a socket's path, with or without `unix://`.
    pub fn new(endpoint: &str, namespace: &str) -> Result<Self, RuntimeError> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint).to_owned();
        let doing = format!("use containerd's namespace {namespace:?}");
        let namespace = namespace.parse().map_err(failed(doing))?;
        // The address is never looked at: every connection goes to the socket.
        let channel = Endpoint::from_static("http://containerd").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }),
        );
        Ok(Self { channel, headers: Headers { namespace, lease: None, limit: Some(CALL_MAX) } })
    }

    /// The same way, with everything made over it kept from containerd's garbage collector by a lease.
    pub fn leased(&self, lease: &str) -> Result<Self, RuntimeError> {
        let lease = lease.parse().map_err(failed(format!("use the lease {lease:?}")))?;
        Ok(Self { headers: Headers { lease: Some(lease), ..self.headers.clone() }, ..self.clone() })
    }

    /// The same way for calls that wait.
    pub fn patient(&self) -> Self {
        Self { headers: Headers { limit: None, ..self.headers.clone() }, ..self.clone() }
    }

    fn wire(&self) -> Wire {
        InterceptedService::new(self.channel.clone(), self.headers.clone())
    }

    pub fn containers(&self) -> ContainersClient<Wire> {
        ContainersClient::new(self.wire()).max_decoding_message_size(REPLY_BYTES_MAX)
    }

    pub fn content(&self) -> ContentClient<Wire> {
        ContentClient::new(self.wire())
    }

    pub fn diff(&self) -> DiffClient<Wire> {
        DiffClient::new(self.wire())
    }

    pub fn events(&self) -> EventsClient<Wire> {
        EventsClient::new(self.wire())
    }

    pub fn images(&self) -> ImagesClient<Wire> {
        ImagesClient::new(self.wire()).max_decoding_message_size(REPLY_BYTES_MAX)
    }

    pub fn leases(&self) -> LeasesClient<Wire> {
        LeasesClient::new(self.wire())
    }

    pub fn snapshots(&self) -> SnapshotsClient<Wire> {
        SnapshotsClient::new(self.wire())
    }

    pub fn tasks(&self) -> TasksClient<Wire> {
        TasksClient::new(self.wire()).max_decoding_message_size(REPLY_BYTES_MAX)
    }

    pub fn version(&self) -> VersionClient<Wire> {
        VersionClient::new(self.wire())
    }
}

/// Says what was being done when an error came.
pub fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: impl Into<String>,
) -> impl FnOnce(E) -> RuntimeError {
    let doing = doing.into();
    move |error| RuntimeError::Failed { doing, source: error.into() }
}

/// What is not there is no error.
pub fn found<T>(reply: Result<tonic::Response<T>, Status>) -> Result<Option<T>, Status> {
    match reply {
        Ok(reply) => Ok(Some(reply.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// containerd's time as ours.
pub fn time(at: Option<prost_types::Timestamp>) -> Option<jiff::Timestamp> {
    let at = at?;
    // Go's zero time, year 1, is containerd's way to say "never".
    jiff::Timestamp::new(at.seconds, at.nanos).ok().filter(|_| at.seconds > 0)
}
