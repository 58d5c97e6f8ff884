//! What the registry is asked, and what it answers: the seam between HTTP and objects.

use crate::request::{RequestInfo, UserInfo};
use crate::storage::encode::{self, Format};
use bytes::Bytes;
use coracle_api::kinds::Kind;
use coracle_api::status::Status;
use futures::stream::BoxStream;
use serde_json::Value;
use std::sync::Arc;

/// One authorized request for a resource.
pub struct Call {
    /// What is asked.
    pub info: RequestInfo,
    /// By whom.
    pub user: UserInfo,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
    /// The body's media type without parameters, e.g. `application/merge-patch+json`; empty when absent.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
    /// How the client wants its answer.
    pub format: Format,
    /// `User-Agent`, from which field managers are named.
    pub user_agent: String,
}

impl Call {
    /// The first query value of that name; empty when absent.
    #[must_use]
    pub fn query(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether the query says anything of it; an empty value is one.
    #[must_use]
    pub fn says(&self, name: &str) -> bool {
        self.query.iter().any(|(key, _)| key == name)
    }

    /// A boolean of the query as Kubernetes reads it: there, and neither `false` nor `0`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .is_some_and(|(_, value)| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// The kind that the URL names.
    ///
    /// # Errors
    /// 404 for a resource that is not served.
    pub fn kind(&self) -> Result<&Arc<Kind>, Status> {
        self.info.kind.as_ref().ok_or_else(Status::no_such_resource)
    }
}

/// A result with warnings, whatever became of it.
pub(super) fn warned(result: Result<Reply, Status>, warnings: Vec<String>) -> Result<Reply, Status> {
    match result {
        Ok(reply) => Ok(reply.warned(warnings)),
        Err(status) => Err(status.warned(warnings)),
    }
}

/// The answer's body.
pub enum ReplyBody {
    /// All of it.
    Bytes(Bytes),
    /// A watch: frames as they come. Ends when the watch does.
    Stream(BoxStream<'static, Bytes>),
}

/// An answer, encoded.
pub struct Reply {
    /// HTTP status.
    pub code: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Texts for `Warning: 299` headers.
    pub warnings: Vec<String>,
    /// The body.
    pub body: ReplyBody,
}

impl Reply {
    /// An encoded answer.
    #[must_use]
    pub fn bytes(code: u16, format: Format, bytes: impl Into<Bytes>) -> Self {
        let content_type = format.content_type(false);
        Self { code, content_type, warnings: Vec::new(), body: ReplyBody::Bytes(bytes.into()) }
    }

    /// An object that no kind of the table describes: Status, Scale, reviews.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn value(code: u16, format: Format, object: &Value) -> Result<Self, Status> {
        Ok(Self::bytes(code, format, encode::value(format, object)?))
    }

    /// With warnings.
    #[must_use]
    pub fn warned(mut self, mut warnings: Vec<String>) -> Self {
        warnings.append(&mut self.warnings);
        self.warnings = warnings;
        self
    }
}
