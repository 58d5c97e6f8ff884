//! The logger's loop: output into the log and to everyone attached, their input into the container.
//!
//! Nobody attached loses output: while one is slow, the container waits; one that takes nothing for long is cut off.

use super::{LINE_MAX_BYTES, Log, entries, frame, socket, stdin_closed};
use coracle_daemon::clock::{self, Instant};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Attached at once, at most.
const CLIENTS_MAX: usize = 32;
/// With this much unsent to someone, the container waits.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// With this much input waiting for the container, those attached wait.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// One who takes nothing for so long while the container waits is cut off.
const STALL_MAX: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(10) };

/// One of the container's output streams.
pub struct Stream {
    kind: u8,
    file: File,
    /// The line that has not ended yet.
    held: Vec<u8>,
}

impl Stream {
    pub fn new(kind: u8, file: File) -> Self {
        Self { kind, file, held: Vec::new() }
    }

    fn name(&self) -> &'static str {
        if self.kind == frame::STDERR { "stderr" } else { "stdout" }
    }
}

/// Someone attached.
struct Client {
    socket: UnixStream,
    /// Not sent yet.
    out: Vec<u8>,
    /// Received, not a whole frame yet.
    partial: Vec<u8>,
    /// Has sent input.
    wrote: bool,
    /// Since when nothing could be sent although others wait for that.
    stalled: Option<Instant>,
    /// Not to be polled again.
    gone: bool,
}

/// All that the loop turns on.
pub struct Relay {
    log: Log,
    streams: Vec<Stream>,
    listener: UnixListener,
    clients: Vec<Client>,
    stdin: Option<File>,
    stdin_once: bool,
    /// Close standard input as soon as all input is written.
    closing: bool,
    input: Vec<u8>,
    folder: PathBuf,
    /// The log could not be written, and that was said.
    failing: bool,
}

/// What poll found for one file.
#[derive(Clone, Copy, Default)]
struct Ready {
    read: bool,
    write: bool,
}

impl Relay {
    pub fn new(
        log: Log,
        streams: Vec<Stream>,
        stdin: Option<File>,
        stdin_once: bool,
        folder: &Path,
    ) -> io::Result<Self> {
        // A logger that was killed left its socket.
        match std::fs::remove_file(socket(folder)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket(folder))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            log,
            streams,
            listener,
            clients: Vec::new(),
            stdin,
            stdin_once,
            closing: false,
            input: Vec::new(),
            folder: folder.to_owned(),
            failing: false,
        })
    }

    /// Until all streams have ended, or one attached says so; what is unsent then is sent first.
    pub fn run(mut self) -> io::Result<()> {
        while !self.streams.is_empty() || self.clients.iter().any(|client| !client.out.is_empty()) {
            if self.turn()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for something to do, and does it. `true` when told to end.
    fn turn(&mut self) -> io::Result<bool> {
        let full = self.clients.iter().any(|client| client.out.len() >= UNSENT_BYTES_MAX);
        let (streams, listener, clients, stdin) = self.poll(full)?;
        if listener.read {
            self.accept()?;
        }
        let mut ended = false;
        for (n, ready) in clients.into_iter().enumerate() {
            if ready.write {
                self.send(n);
            }
            if ready.read {
                ended |= self.receive(n);
            }
        }
        if stdin.write {
            self.write_input()?;
        }
        self.leave();
        if !full {
            self.take_in(&streams)?;
        }
        Ok(ended)
    }

    /// What of streams, listener, clients and standard input is ready.
    fn poll(&self, full: bool) -> io::Result<(Vec<Ready>, Ready, Vec<Ready>, Ready)> {
        let listening = if self.clients.len() < CLIENTS_MAX { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(self.listener.as_fd(), listening)];
        for client in &self.clients {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, self.input.len() < INPUT_BYTES_MAX);
            wanted.set(PollFlags::POLLOUT, !client.out.is_empty());
            fds.push(PollFd::new(client.socket.as_fd(), wanted));
        }
        let waiting_input = self.stdin.as_ref().filter(|_| !self.input.is_empty() || self.closing);
        if let Some(stdin) = waiting_input {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        if !full {
            fds.extend(self.streams.iter().map(|s| PollFd::new(s.file.as_fd(), PollFlags::POLLIN)));
        }
        // Somebody who does not take what is there must be noticed although nothing else happens.
        let limit = if self.clients.iter().any(|client| !client.out.is_empty()) {
            PollTimeout::try_from(STALL_MAX).unwrap_or(PollTimeout::MAX)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut fds, limit) {
            Err(Errno::EINTR) => {}
            polled => drop(polled?),
        }
        let mut ready = fds.iter().map(|fd| {
            let events = fd.revents().unwrap_or(PollFlags::empty());
            let over = PollFlags::POLLHUP | PollFlags::POLLERR;
            Ready {
                read: events.intersects(PollFlags::POLLIN | over),
                write: events.intersects(PollFlags::POLLOUT | over),
            }
        });
        let listener = ready.next().unwrap_or_default();
        let clients = ready.by_ref().take(self.clients.len()).collect();
        let stdin = if waiting_input.is_some() { ready.next().unwrap_or_default() } else { Ready::default() };
        Ok((ready.collect(), listener, clients, stdin))
    }

    fn accept(&mut self) -> io::Result<()> {
        match self.listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(true)?;
                self.clients.push(Client {
                    socket,
                    out: Vec::new(),
                    partial: Vec::new(),
                    wrote: false,
                    stalled: None,
                    gone: false,
                });
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads each ready stream once: whole lines go to the log, all bytes to everyone attached.
    fn take_in(&mut self, ready: &[Ready]) -> io::Result<()> {
        let mut still = Vec::new();
        for (n, mut stream) in std::mem::take(&mut self.streams).into_iter().enumerate() {
            if !ready.get(n).is_some_and(|ready| ready.read) {
                still.push(stream);
                continue;
            }
            let mut buffer = [0; LINE_MAX_BYTES];
            let read = match stream.file.read(&mut buffer) {
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                    still.push(stream);
                    continue;
                }
                read => read?,
            };
            let new = &buffer[..read];
            if read > 0 {
                for client in &mut self.clients {
                    client.out.extend_from_slice(&frame::header(stream.kind, read));
                    client.out.extend_from_slice(new);
                }
            }
            stream.held.extend_from_slice(new);
            let (entries, rest) = entries(stream.name(), &stream.held, read == 0, &clock::now().to_string());
            if !entries.is_empty()
                && let Err(error) = self.log.write(&entries)
                && !std::mem::replace(&mut self.failing, true)
            {
                // A full disk costs these lines; stopping the container for them would cost more.
                eprintln!("coracle container-logger: lines are lost: {error}");
            }
            stream.held.drain(..stream.held.len() - rest);
            if read > 0 {
                still.push(stream);
            }
        }
        self.streams = still;
        Ok(())
    }

    fn send(&mut self, n: usize) {
        let Some(client) = self.clients.get_mut(n) else { return };
        match client.socket.write(&client.out) {
            Ok(sent) => {
                client.out.drain(..sent);
                client.stalled = None;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // Whoever is gone needs nothing any more; `receive` sees the end.
            Err(_) => client.out.clear(),
        }
    }

    /// Takes in what someone attached sent. `true` when told to end.
    fn receive(&mut self, n: usize) -> bool {
        let Some(client) = self.clients.get_mut(n) else { return false };
        let mut buffer = [0; LINE_MAX_BYTES];
        match client.socket.read(&mut buffer) {
            Ok(read) if read > 0 => client.partial.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return false;
            }
            _ => {
                self.gone(n);
                return false;
            }
        }
        let (mut ended, mut close) = (false, false);
        while let Some((header, rest)) = client.partial.split_first_chunk() {
            let Some((kind, length)) = frame::parse(*header) else {
                self.gone(n);
                return ended;
            };
            let Some(content) = rest.get(..length) else { break };
            match kind {
                frame::STDIN if length == 0 => close = true,
                frame::STDIN => {
                    client.wrote = true;
                    self.input.extend_from_slice(content);
                }
                frame::END => ended = true,
                _ => {}
            }
            client.partial.drain(..frame::HEADER_BYTES + length);
        }
        if close {
            self.close_input();
        }
        if self.stdin.is_none() {
            self.input.clear();
        }
        ended
    }

    fn gone(&mut self, n: usize) {
        let Some(client) = self.clients.get_mut(n) else { return };
        client.out.clear();
        client.gone = true;
        if std::mem::take(&mut client.wrote) {
            self.close_input();
        }
    }

    /// Takes off those that are gone, and those that take nothing although the container, or the end, waits for them.
    fn leave(&mut self) {
        let unsent_max = if self.streams.is_empty() { 1 } else { UNSENT_BYTES_MAX };
        for client in &mut self.clients {
            let waited_for = client.out.len() >= unsent_max;
            client.stalled = waited_for.then(|| client.stalled.unwrap_or_else(Instant::now));
        }
        self.clients.retain(|client| {
            let stuck = client.stalled.is_some_and(|since| since.elapsed() >= STALL_MAX);
            !client.gone && !stuck
        });
    }

    fn close_input(&mut self) {
        self.closing |= self.stdin_once;
    }

    fn write_input(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        if !self.input.is_empty() {
            match stdin.write(&self.input) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        if self.closing && self.input.is_empty() {
            // First the mark: whoever sees the end must find it.
            File::create(stdin_closed(&self.folder))?;
            self.stdin = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    /// Closed on exec: a process that another test starts would hold the writing end open, and the stream would never end.
    fn pipe() -> (File, File) {
        let (read, write) = io::pipe().unwrap();
        (File::from(OwnedFd::from(read)), File::from(OwnedFd::from(write)))
    }

    fn frames(mut socket: &UnixStream) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut header = [0; frame::HEADER_BYTES];
        while socket.read_exact(&mut header).is_ok() {
            let (kind, length) = frame::parse(header).unwrap();
            let mut content = vec![0; length];
            socket.read_exact(&mut content).unwrap();
            frames.push((kind, content));
        }
        frames
    }

    #[test]
    fn output_goes_to_the_log_and_to_those_attached_and_input_to_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path().join("0.log")).unwrap();
        let (stdout, mut container_out) = pipe();
        let (stderr, mut container_err) = pipe();
        let (mut container_in, stdin) = pipe();
        let streams = vec![Stream::new(frame::STDOUT, stdout), Stream::new(frame::STDERR, stderr)];
        let relay = Relay::new(log, streams, Some(stdin), true, dir.path()).unwrap();
        let mut client = UnixStream::connect(socket(dir.path())).unwrap();
        let running = std::thread::spawn(move || relay.run());
        client.write_all(&frame::header(frame::STDIN, 3)).unwrap();
        client.write_all(b"in\n").unwrap();
        client.write_all(&frame::header(frame::STDIN, 0)).unwrap();
        let mut input = String::new();
        container_in.read_to_string(&mut input).unwrap();
        assert_eq!(input, "in\n");
        assert!(stdin_closed(dir.path()).exists());
        container_out.write_all(b"out\n").unwrap();
        container_err.write_all(b"err").unwrap();
        drop((container_out, container_err));
        running.join().unwrap().unwrap();
        let mut got = frames(&client);
        got.sort();
        assert_eq!(got, [(frame::STDOUT, b"out\n".to_vec()), (frame::STDERR, b"err".to_vec())]);
        let log = std::fs::read_to_string(dir.path().join("0.log")).unwrap();
        assert!(log.contains(" stdout F out\n") && log.contains(" stderr P err\n"), "{log}");
    }

    #[test]
    fn someone_slow_gets_everything() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path().join("0.log")).unwrap();
        let (stdout, mut container_out) = pipe();
        let relay =
            Relay::new(log, vec![Stream::new(frame::STDOUT, stdout)], None, false, dir.path()).unwrap();
        let client = UnixStream::connect(socket(dir.path())).unwrap();
        // The first byte comes once the client is attached, whatever thread runs first.
        let mut asking = client.try_clone().unwrap();
        asking.write_all(&frame::header(frame::STDIN, 0)).unwrap();
        let running = std::thread::spawn(move || relay.run());
        let lines = 4 * UNSENT_BYTES_MAX / 64;
        let writing = std::thread::spawn(move || {
            for n in 0..lines {
                writeln!(container_out, "{n:063}").unwrap();
            }
        });
        let bytes: usize = frames(&client).into_iter().map(|(_, content)| content.len()).sum();
        writing.join().unwrap();
        running.join().unwrap().unwrap();
        assert_eq!(bytes, lines * 64);
    }

    #[test]
    fn someone_who_takes_nothing_is_cut_off_before_and_at_the_end() {
        for bytes in [1 << 19, 4 << 20] {
            let dir = tempfile::tempdir().unwrap();
            let log = Log::open(dir.path().join("0.log")).unwrap();
            let (stdout, mut container_out) = pipe();
            let streams = vec![Stream::new(frame::STDOUT, stdout)];
            let relay = Relay::new(log, streams, None, false, dir.path()).unwrap();
            let _client = UnixStream::connect(socket(dir.path())).unwrap();
            let running = std::thread::spawn(move || relay.run());
            container_out.write_all(&vec![b'x'; bytes]).unwrap();
            drop(container_out);
            running.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_full_disk_does_not_stop_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open("/dev/full".into()).unwrap();
        let (stdout, mut container_out) = pipe();
        let streams = vec![Stream::new(frame::STDOUT, stdout)];
        let relay = Relay::new(log, streams, None, false, dir.path()).unwrap();
        let client = UnixStream::connect(socket(dir.path())).unwrap();
        let running = std::thread::spawn(move || relay.run());
        let writing = std::thread::spawn(move || container_out.write_all(&[b'\n'; 1 << 17]).unwrap());
        let bytes: usize = frames(&client).into_iter().map(|(_, content)| content.len()).sum();
        writing.join().unwrap();
        running.join().unwrap().unwrap();
        assert_eq!(bytes, 1 << 17);
    }

    #[test]
    fn a_logger_whose_container_never_started_can_be_told_to_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path().join("0.log")).unwrap();
        let (stdout, _container_out) = pipe();
        let relay =
            Relay::new(log, vec![Stream::new(frame::STDOUT, stdout)], None, false, dir.path()).unwrap();
        let mut client = UnixStream::connect(socket(dir.path())).unwrap();
        client.write_all(&frame::header(frame::END, 0)).unwrap();
        relay.run().unwrap();
    }
}
