//! Requests for remote group versions, carried to their servers in the caller's name.

use super::Aggregator;
use super::remote::{Found, Remote};
use crate::authentication::identity;
use crate::http::respond::plain;
use crate::outbound::{self, Destination};
use crate::request::UserInfo;
use crate::streaming::proxy::encoded;
use axum::body::Body;
use coracle_api::status::Status;
use coracle_daemon::clock;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderValue, Request, Response};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may think before it answers, unless it is asked for a stream.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const OPENAPI: &str = "/openapi/v3";
/// Who asks for descriptions.
const AGGREGATOR: &str = "system:aggregator";

/// Where a request goes.
pub struct Route {
    found: Found,
    /// In this server's own name.
    own: bool,
}

/// A failure in Kubernetes' form: the aggregator tells it as plain text.
fn failed(code: u16, text: &str) -> Response<Body> {
    let mut response = plain(code, "text/plain; charset=utf-8", format!("{text}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Aggregator {
    /// The remote server of a path, if it has one.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<Route> {
        let remotes = self.remotes();
        if remotes.is_empty() {
            return None;
        }
        let described = path.strip_prefix(OPENAPI).filter(|rest| rest.starts_with('/'));
        let found = remotes.at(described.unwrap_or(path))?.clone();
        Some(Route { found, own: described.is_some() })
    }

    /// Carries an authorized request for `path` (decoded) on and brings the answer back; an upgrade becomes a tunnel.
    ///
    /// # Errors
    /// 500 for a user whom no header can name, 504 when no answer comes in time; `streams` are waited for longer.
    pub async fn pass(
        &self,
        route: &Route,
        path: &str,
        user: &UserInfo,
        streams: bool,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (remote, available) = &route.found;
        if !available {
            return Ok(failed(503, "service unavailable"));
        }
        let found = outbound::service(self.store.as_ref(), &remote.namespace, &remote.service, remote.port);
        let (host, port) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(name = remote.name, error, "cannot find the server of an API");
                return Ok(failed(503, "service unavailable"));
            }
        };
        let tls = match self.verified(remote) {
            Ok(tls) => tls,
            Err(error) => return Ok(failed(500, &error)),
        };
        let own = UserInfo { name: AGGREGATOR.to_owned(), ..UserInfo::default() };
        identity::set(request.headers_mut(), if route.own { &own } else { user })?;
        let destination = Destination { host, port, tls: Some(tls), name: Some(remote.host()) };
        let path = encoded(path, request.uri().query());
        let sent = self.relay.send(&destination, request, &path);
        let answer = if streams {
            sent.await
        } else {
            let late = |_| Status::timeout("request did not complete within the allotted timeout");
            clock::timeout(ANSWER_WITHIN, sent).await.map_err(late)?
        };
        Ok(answer.unwrap_or_else(|error| {
            failed(503, &format!("error trying to reach service: {}", outbound::told(&error)))
        }))
    }

    /// TLS to a remote server as its APIService wants it.
    pub(super) fn verified(&self, remote: &Remote) -> Result<Arc<ClientConfig>, String> {
        if remote.insecure {
            return self.trust.insecure();
        }
        self.trust.config(outbound::bundle(&remote.bundle)?.as_deref())
    }

    /// TLS to whoever answers.
    pub(super) fn unverified(&self) -> Result<Arc<ClientConfig>, String> {
        self.trust.insecure()
    }
}
