//! `Maintenance.Snapshot`: all state as a stream of blobs, and a SHA-256 of it at the end, as etcd appends one.
//! Zeros fill the state up to a whole number of sectors: by that its clients know that a hash follows.

use super::{Api, VERSION};
use coracle_etcd::proto::SnapshotResponse;
use futures::Stream;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes of a blob.
const BLOB: usize = 64 << 10;
/// `etcdctl` takes 32 bytes after the last whole sector for the hash (etcd's `clientv3/snapshot`).
const SECTOR: u64 = 512;
/// Blobs that wait for the client.
const WAITING_MAX: usize = 4;

/// The state of this moment.
pub(super) fn stream(api: &Api) -> impl Stream<Item = Result<SnapshotResponse, Status>> + Send + use<> {
    let (view, header) = (api.shared.view(), api.header());
    let (out, blobs) = mpsc::channel(WAITING_MAX);
    // Encoding is work for a thread that may wait; it ends when the client is gone.
    tokio::task::spawn_blocking(move || {
        let total: u64 = view.chunks(BLOB).map(|chunk| chunk.len() as u64).sum();
        let padding = total.next_multiple_of(SECTOR) - total;
        let mut remaining = total + padding + 32;
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
        let zeros = vec![0; usize::try_from(padding).unwrap_or_default()];
        for chunk in view.chunks(BLOB).chain([zeros]) {
            hash.update(&chunk);
            if !send(chunk) {
                return;
            }
        }
        send(hash.finalize().to_vec());
    });
    ReceiverStream::new(blobs)
}
