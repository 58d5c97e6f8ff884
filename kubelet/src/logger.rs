//! The process that containerd starts beside each container to keep its output: `coracle container-logger FILE`.
//!
//! In: the container's stdout and stderr as fds 3 and 4; fd 5 is closed to say "ready". Out: FILE in CRI's log format
//! (`time stream F|P text`), at most a few files of bounded size. Single-threaded and small: there is one for every container.

use coracle_daemon::clock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
}

/// Keeps the output until both streams end.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    match keep(args.file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle container-logger: {error}");
            ExitCode::FAILURE
        }
    }
}

fn keep(file: PathBuf) -> io::Result<()> {
    let mut log = Log::open(file)?;
    // Opened anew by name rather than taken over by number: owning a number needs unsafe code.
    let mut streams =
        vec![Stream::new("stdout", "/proc/self/fd/3")?, Stream::new("stderr", "/proc/self/fd/4")?];
    nix::unistd::close(5)?;
    while !streams.is_empty() {
        let ready: Vec<bool> = {
            let mut fds: Vec<_> =
                streams.iter().map(|stream| PollFd::new(stream.file.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                polled => polled?,
            };
            fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()
        };
        let mut still = Vec::new();
        for (mut stream, ready) in streams.into_iter().zip(ready) {
            if !ready || stream.take_in(&mut log)? {
                still.push(stream);
            }
        }
        streams = still;
    }
    Ok(())
}

struct Stream {
    name: &'static str,
    file: File,
    /// The line that has not ended yet.
    held: Vec<u8>,
}

impl Stream {
    fn new(name: &'static str, path: &str) -> io::Result<Self> {
        Ok(Self { name, file: File::open(path)?, held: Vec::new() })
    }

    /// Reads once and writes what is whole. `false` at the stream's end.
    fn take_in(&mut self, log: &mut Log) -> io::Result<bool> {
        let mut buffer = [0; LINE_MAX_BYTES];
        let read = match self.file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            read => read?,
        };
        self.held.extend_from_slice(&buffer[..read]);
        let (entries, rest) = entries(self.name, &self.held, read == 0, &clock::now().to_string());
        if !entries.is_empty() {
            log.write(&entries)?;
        }
        self.held.drain(..self.held.len() - rest);
        Ok(read > 0)
    }
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
