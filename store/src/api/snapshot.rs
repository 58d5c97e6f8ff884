//! `Maintenance.Snapshot`: all state as a stream of blobs, and a SHA-256 of it at the end, as etcd appends one.

use super::{Api, VERSION};
use coracle_etcd::proto::SnapshotResponse;
use futures::Stream;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes of a blob.
const BLOB: usize = 64 << 10;
/// Blobs that wait for the client.
const WAITING_MAX: usize = 4;

/// The state of this moment.
pub(super) fn stream(api: &Api) -> impl Stream<Item = Result<SnapshotResponse, Status>> + Send + use<> {
    let (view, header) = (api.shared.view(), api.header());
    let (out, blobs) = mpsc::channel(WAITING_MAX);
    // Encoding is work for a thread that may wait; it ends when the client is gone.
    tokio::task::spawn_blocking(move || {
        let total: u64 = view.chunks(BLOB).map(|chunk| chunk.len() as u64).sum();
        let mut remaining = total + 32;
        let mut hash = Sha256::new();
        let mut send = |blob: Vec<u8>| {
            remaining = remaining.saturating_sub(blob.len() as u64);
            let answer = SnapshotResponse {
                header,
                remaining_bytes: remaining,
                blob: blob.into(),
                version: VERSION.to_owned(),
            };
            out.blocking_send(Ok(answer)).is_ok()
        };
        for chunk in view.chunks(BLOB) {
            hash.update(&chunk);
            if !send(chunk) {
                return;
            }
        }
        send(hash.finalize().to_vec());
    });
    ReceiverStream::new(blobs)
}
