//! The write end of a named pipe whose reader comes at a time of its own.

use std::io;
use std::path::{Path, PathBuf};
use tokio::net::unix::pipe::{OpenOptions, Sender};

/// Opens the write end once somebody reads. `None` when `ended` came first: nobody will.
///
/// # Errors
/// The pipe cannot be opened, or what `ended` waits for cannot be waited for.
pub async fn open_for(
    path: &Path,
    ended: impl Future<Output = io::Result<()>>,
) -> io::Result<Option<Sender>> {
    match OpenOptions::new().open_sender(path) {
        // A shim starts a command first, and then opens its input.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
        opened => return opened.map(Some),
    }
    let _release = Release(path.to_owned());
    let waits = path.to_owned();
    // Waits for a reader.
    let opening = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(waits));
    tokio::select! {
        opened = opening => Sender::from_file(opened.map_err(io::Error::other)??).map(Some),
        ended = ended => ended.map(|()| None),
    }
}

/// Lets go whoever still waits for a reader: there is one for a moment.
struct Release(PathBuf);

impl Drop for Release {
    fn drop(&mut self) {
        if let Err(error) = OpenOptions::new().open_receiver(&self.0) {
            tracing::warn!(%error, "a thread waits for the reader of a pipe that is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::io::Read;
    use tokio::io::AsyncWriteExt;

    fn pipe() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stdin");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
        (folder, path)
    }

    #[tokio::test]
    async fn a_reader_that_comes_late_gets_everything() {
        let (_folder, path) = pipe();
        let reads = path.clone();
        let late = async {
            // Whoever writes waits already.
            tokio::task::yield_now().await;
            tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                std::fs::File::open(reads)?.read_to_string(&mut text).map(|_| text)
            })
            .await
        };
        let writes = async {
            let mut to = open_for(&path, std::future::pending()).await.expect("opens").expect("is read");
            to.write_all(b"exit 3\n").await.expect("is written");
        };
        let (text, ()) = tokio::join!(late, writes);
        assert_eq!(text.expect("runs").expect("reads"), "exit 3\n");
    }

    /// A thread that still waited would keep the test's runtime from ending.
    #[tokio::test]
    async fn who_ends_without_reading_leaves_nobody_waiting() {
        let (_folder, path) = pipe();
        assert!(open_for(&path, std::future::ready(Ok(()))).await.expect("ends").is_none());
        let left = open_for(&path, std::future::pending());
        let moment = std::time::Duration::from_millis(1);
        assert!(coracle_daemon::clock::timeout(moment, left).await.is_err());
    }
}
