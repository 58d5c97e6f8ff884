//! The gRPC health question (`grpc.health.v1.Health/Check`), with messages small enough to write by hand.

use bytes::{Buf, BufMut};
use k8s_openapi::api::core::v1::GRPCAction;
use std::net::IpAddr;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

/// Longest answer; a real one has two bytes.
const ANSWER_MAX: usize = 1 << 10;
const SERVING: u64 = 1;

/// Asks once.
pub async fn ask(ip: IpAddr, action: &GRPCAction) -> Result<(), String> {
    let at = std::net::SocketAddr::new(ip, u16::try_from(action.port).unwrap_or(0));
    let failed = |why: String| format!("error: rpc failed: {why}");
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{at}"))
        .map_err(|error| failed(error.to_string()))?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| format!("timeout: failed to connect service {at:?}: {error}"))?;
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(ANSWER_MAX);
    client.ready().await.map_err(|error| failed(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let service = action.service.clone().unwrap_or_default();
    let answer = client.unary(Request::new(service), path, Health).await;
    match answer.map_err(|status| failed(status.message().to_owned()))?.into_inner() {
        SERVING => Ok(()),
        other => {
            let word = match other {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "INVALID",
            };
            Err(format!("service unhealthy (responded with {word:?})"))
        }
    }
}

/// `{ string service = 1 }` out, `{ ServingStatus status = 1 }` in.
struct Health;

impl Codec for Health {
    type Encode = String;
    type Decode = u64;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Health {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, service: String, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&question(&service));
        Ok(())
    }
}

impl Decoder for Health {
    type Item = u64;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<u64>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        answer(&bytes).map(Some).ok_or_else(|| Status::internal("malformed health answer"))
    }
}

fn question(service: &str) -> Vec<u8> {
    if service.is_empty() {
        return Vec::new();
    }
    let mut out = vec![0x0a];
    let mut length = service.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or(0));
    out.extend_from_slice(service.as_bytes());
    out
}

/// The status; absent fields are zero.
fn answer(bytes: &[u8]) -> Option<u64> {
    match bytes {
        [] => Some(0),
        [0x08, status] if *status < 0x80 => Some(u64::from(*status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_protobuf() {
        assert_eq!(question(""), b"");
        assert_eq!(question("ab"), b"\x0a\x02ab");
        assert_eq!(question(&"x".repeat(200))[..3], [0x0a, 0xc8, 0x01]);
        assert_eq!((answer(b""), answer(&[8, 1]), answer(&[9, 1])), (Some(0), Some(1), None));
    }
}
