//! `Maintenance.Snapshot`: all state as etcd's database, streamed in blobs, and a SHA-256 of it at the end.

use super::{Api, VERSION};
use crate::database::Dump;
use coracle_etcd::proto::{ResponseHeader, SnapshotResponse};
use futures::Stream;
use std::io::{self, Write};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes of a blob.
const BLOB: usize = 64 << 10;
/// Blobs that wait for the client.
const WAITING_MAX: usize = 4;

type Out = mpsc::Sender<Result<SnapshotResponse, Status>>;

/// The state of this moment.
pub(super) fn stream(api: &Api) -> impl Stream<Item = Result<SnapshotResponse, Status>> + Send + use<> {
    let (view, header) = (api.shared.view(), api.header());
    let (consensus, members) = (api.consensus.clone(), api.consensus.members());
    let (out, blobs) = mpsc::channel(WAITING_MAX);
    // Encoding is work for a thread that may wait; it ends when the client is gone.
    tokio::task::spawn_blocking(move || {
        let status = consensus.status();
        let sent = Dump::new(view, members, status.applied, status.term).and_then(|dump| {
            let mut blobs =
                Blobs { out: &out, header, blob: Vec::with_capacity(BLOB), remaining: dump.bytes() };
            let hash = dump.write(&mut blobs)?;
            blobs.flush()?;
            blobs.send(hash.to_vec())
        });
        if let Err(error) = sent {
            // A client that is gone needs no reason.
            let _ = out.blocking_send(Err(Status::internal(format!("etcdserver: {error}"))));
        }
    });
    ReceiverStream::new(blobs)
}

/// Sends what is written.
struct Blobs<'a> {
    out: &'a Out,
    header: Option<ResponseHeader>,
    blob: Vec<u8>,
    /// Bytes of the database that are not sent yet.
    remaining: u64,
}

impl Blobs<'_> {
    fn send(&mut self, blob: Vec<u8>) -> io::Result<()> {
        let answer = SnapshotResponse {
            header: self.header,
            remaining_bytes: self.remaining,
            blob: blob.into(),
            version: VERSION.to_owned(),
        };
        self.out.blocking_send(Ok(answer)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Blobs<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(BLOB - self.blob.len());
        self.blob.extend_from_slice(&bytes[..fits]);
        if self.blob.len() == BLOB {
            self.flush()?;
        }
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.blob.is_empty() {
            return Ok(());
        }
        let blob = std::mem::replace(&mut self.blob, Vec::with_capacity(BLOB));
        self.remaining = self.remaining.saturating_sub(blob.len() as u64);
        self.send(blob)
    }
}
