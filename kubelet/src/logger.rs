//! The process beside each container that keeps its output: `coracle container-logger FILE`.
//!
//! In: the container's stdout and stderr, as fds 3 and 4 when containerd started it (fd 5 is closed to say "ready"), or
//! as the named pipes of `--pipes` when the kubelet did, for containers with a terminal or standard input. Out: FILE in
//! CRI's log format (`time stream F|P text`), at most a few files of bounded size; and the same bytes to whoever attaches.
//! Single-threaded and small: there is one for every container.

mod relay;

use coracle_daemon::clock;
use relay::{Relay, Stream};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Folder on a tmpfs for what ends with the machine.
pub const RUN: &str = "/run/coracle";
/// A file this long is put aside, as upstream's kubelet does by default.
const FILE_MAX_BYTES: u64 = 10 << 20;
/// Files kept, the current one included.
const FILES_MAX: u32 = 5;
/// A longer line is written in parts.
const LINE_MAX_BYTES: usize = 16 << 10;

/// `coracle container-logger`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The log file.
    pub file: PathBuf,
    /// The container, as containerd tells it.
    #[arg(long, env = "CONTAINER_ID", default_value = "")]
    pub container_id: String,
    /// Read the container's named pipes rather than what containerd hands over.
    #[arg(long)]
    pub pipes: bool,
    /// Close the container's standard input when the first who wrote to it leaves.
    #[arg(long)]
    pub stdin_once: bool,
}

/// A container's folder: its named pipes, and the socket to attach to.
#[must_use]
pub fn folder(id: &str) -> PathBuf {
    Path::new(RUN).join("containers").join(id)
}

/// The socket in a container's folder. Frames both ways: one byte that says what, four bytes of length, the bytes.
#[must_use]
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("attach.sock")
}

/// A marker in a container's folder: its standard input was closed, and containerd may not know yet.
#[must_use]
pub fn stdin_closed(folder: &Path) -> PathBuf {
    folder.join("stdin-closed")
}

/// How long what a container said may take to its log when the container has ended: a process of its may live on and hold the
/// streams open.
const LAST_MAX: Duration = Duration::from_secs(2);

/// Waits until the logger behind `socket` has ended, so that all is in the log.
pub async fn ended(socket: &Path) {
    // Where nobody answers, nobody writes.
    if let Ok(mut logger) = tokio::net::UnixStream::connect(socket).await {
        // Either way it is read now.
        let _ = clock::timeout(LAST_MAX, tokio::io::copy(&mut logger, &mut tokio::io::sink())).await;
    }
}

/// What a frame is.
pub mod frame {
    /// Bytes for standard input; none of them close it.
    pub const STDIN: u8 = 0;
    /// Bytes from standard output.
    pub const STDOUT: u8 = 1;
    /// Bytes from standard error.
    pub const STDERR: u8 = 2;
    /// To the logger: nothing will come any more, end.
    pub const END: u8 = 3;
    /// Bytes before the content.
    pub const HEADER_BYTES: usize = 5;
    /// Longest content.
    pub const BYTES_MAX: usize = 64 << 10;

    /// A frame's beginning.
    #[must_use]
    pub fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        [kind, a, b, c, d]
    }

    /// What a frame's beginning says; `None` for one that is too long.
    #[must_use]
    pub fn parse(header: [u8; HEADER_BYTES]) -> Option<(u8, usize)> {
        let [kind, a, b, c, d] = header;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        (length <= BYTES_MAX).then_some((kind, length))
    }
}

/// Keeps the output until both streams end.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    match keep(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle container-logger: {error}");
            ExitCode::FAILURE
        }
    }
}

fn keep(args: Args) -> io::Result<()> {
    // containerd asks loggers to end when a container has ended: there may still be output to write. The streams' end is
    // what counts; should that not come, containerd kills.
    let mut asked = nix::sys::signal::SigSet::empty();
    asked.add(nix::sys::signal::Signal::SIGTERM);
    asked.thread_block()?;
    let log = Log::open(args.file)?;
    let folder = folder(&args.container_id);
    let pipe =
        |name: &str| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(folder.join(name));
    let mut streams = Vec::new();
    let mut stdin = None;
    if args.pipes {
        streams.push(Stream::new(frame::STDOUT, pipe("stdout")?));
        // With a terminal there is but one stream.
        if folder.join("stderr").exists() {
            streams.push(Stream::new(frame::STDERR, pipe("stderr")?));
        }
        if folder.join("stdin").exists() {
            let mut both = OpenOptions::new();
            // Reading too, so that it opens before the container's side does.
            both.read(true).write(true).custom_flags(libc::O_NONBLOCK);
            stdin = Some(both.open(folder.join("stdin"))?);
        }
    } else {
        // Opened anew by name rather than taken over by number: owning a number needs unsafe code.
        streams.push(Stream::new(frame::STDOUT, File::open("/proc/self/fd/3")?));
        streams.push(Stream::new(frame::STDERR, File::open("/proc/self/fd/4")?));
    }
    let relay = Relay::new(log, streams, stdin, args.stdin_once, &folder)?;
    if args.pipes {
        // To the kubelet that started us: ready.
        io::stdout().write_all(b"ready\n")?;
    } else {
        nix::unistd::close(5)?;
    }
    relay.run()
}

/// The log entries in `bytes`, and how many bytes at their end wait for more; none do at the stream's end.
fn entries(stream: &str, bytes: &[u8], at_end: bool, now: &str) -> (Vec<u8>, usize) {
    let (mut out, mut rest) = (Vec::new(), bytes);
    let mut entry = |tag: &str, text: &[u8]| {
        out.extend_from_slice(format!("{now} {stream} {tag} ").as_bytes());
        out.extend_from_slice(text);
        out.push(b'\n');
    };
    loop {
        let newline = rest.iter().take(LINE_MAX_BYTES + 1).position(|byte| *byte == b'\n');
        match newline {
            Some(end) => {
                entry("F", &rest[..end]);
                rest = &rest[end + 1..];
            }
            None if rest.len() > LINE_MAX_BYTES => {
                entry("P", &rest[..LINE_MAX_BYTES]);
                rest = &rest[LINE_MAX_BYTES..];
            }
            None => break,
        }
    }
    if at_end && !rest.is_empty() {
        entry("P", rest);
        rest = &[];
    }
    (out, rest.len())
}

struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > FILE_MAX_BYTES {
            rotate(&self.path)?;
            *self = Self::open(std::mem::take(&mut self.path))?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// FILE becomes FILE.1, FILE.1 becomes FILE.2, and the oldest goes.
fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        if n > 0 {
            name.push(format!(".{n}"));
        }
        PathBuf::from(name)
    };
    for n in (0..FILES_MAX - 1).rev() {
        match fs::rename(numbered(n), numbered(n + 1)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_entries() {
        let long = vec![b'x'; LINE_MAX_BYTES + 1];
        let part = format!("T o P {}\n", "x".repeat(LINE_MAX_BYTES));
        let rows: [(&[u8], bool, &str, usize); 6] = [
            (b"a\nb\n", false, "T o F a\nT o F b\n", 0),
            (b"a\nb", false, "T o F a\n", 1),
            (b"a\nb", true, "T o F a\nT o P b\n", 0),
            (b"\n", false, "T o F \n", 0),
            (b"", true, "", 0),
            (&long, false, &part, 1),
        ];
        for (input, at_end, expected, rest) in rows {
            let (out, held) = entries("o", input, at_end, "T");
            assert_eq!((String::from_utf8(out).unwrap().as_str(), held), (expected, rest));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_whole_when_the_logger_is_gone_and_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(folder.path());
        ended(&path).await;
        let logger = tokio::net::UnixListener::bind(&path).unwrap();
        let began = clock::Instant::now();
        let waits = ended(&path);
        let goes = async {
            let (mut asked, _) = logger.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut asked, b"output").await.unwrap();
        };
        tokio::join!(waits, goes);
        assert!(began.elapsed() < LAST_MAX);
        let stays = async { logger.accept().await.unwrap() };
        let (_asked, ()) = tokio::join!(stays, ended(&path));
        assert!(began.elapsed() >= LAST_MAX);
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(path.clone()).unwrap();
        for n in 0..8_u8 {
            log.size = FILE_MAX_BYTES;
            log.write(&[b'0' + n]).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"7");
        assert_eq!(fs::read(folder.path().join("0.log.4")).unwrap(), b"3");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    }
}
