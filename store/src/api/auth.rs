//! `etcdserverpb.Auth`: there are no users and roles here, and every call says so. Who may connect is a matter of certificates.

use super::Api;
use crate::error::StoreError;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_etcd::proto::ResponseHeader;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::Status;

/// All methods of the service.
pub(super) const PATH: &str = "/etcdserverpb.Auth/{method}";

/// `etcdserverpb.AuthStatusResponse`, less what is false.
#[derive(Clone, PartialEq, Message)]
struct AuthStatus {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "3")]
    auth_revision: u64,
}

/// Answers one call; the request is read to its end, as its content does not matter.
pub(super) async fn answer(State(api): State<Api>, Path(method): Path<String>, _request: Bytes) -> Response {
    if method != "AuthStatus" {
        return Status::from(StoreError::AuthNotEnabled).into_http();
    }
    let status = AuthStatus { header: api.header(), auth_revision: 1 };
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(status.encoded_len()).unwrap_or_default());
    message.extend_from_slice(&status.encode_to_vec());
    let ok = HeaderMap::from_iter([(
        header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::new(message.freeze()).with_trailers(std::future::ready(Some(Ok(ok))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
