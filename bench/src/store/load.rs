//! Many clients in one thread, each with a connection of its own; the same for both systems.
//!
//! Clients share the cores with the members that they measure. A full gRPC client takes nearly as much for a put as the members
//! do, and a ratio of puts then measures mostly the client, which is why wrk loads web servers the way this does: one loop
//! over sockets that are ready, and no more work for an answer than telling that it is whole and right.

use super::messages::Told;
use super::requests::Request;
use super::wire::Wire;
use crate::report::Took;
use anyhow::{Context, Result, ensure};
use mio::{Events, Interest, Poll, Token};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Sockets that are looked at in one go.
const READY_MAX: usize = 1024;
/// Bytes that are read at once.
const READ_MAX: usize = 256 << 10;
/// How long a call may take, and what was put may take until all are told of it.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Fields of RangeResponse and of WatchResponse.
const COUNT: u64 = 4;
const CREATED: u64 = 3;
const CANCELED: u64 = 4;
const COMPACT_REVISION: u64 = 5;
const EVENTS: u64 = 11;

/// What a client does.
enum Part {
    /// Makes calls, one after the other; each answer counts so many keys, if that is looked at.
    Calls { asked: Option<Instant>, keys: Option<u64>, count: u64 },
    /// Watches, and was told so many events since that began.
    Watches { began: bool, told: u64 },
}

struct Client {
    wire: Wire,
    request: Rc<Request>,
    part: Part,
}

/// All clients.
pub struct Load {
    poll: Poll,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    /// The number of the next call.
    next: u64,
    /// Until when clients call again.
    until: Instant,
    /// Calls under way.
    asking: usize,
    /// Milliseconds that each call took.
    took: Vec<f64>,
}

impl Load {
    /// No clients yet.
    ///
    /// # Errors
    /// The system has no way to wait for many sockets.
    pub fn new() -> Result<Self> {
        Ok(Self {
            poll: Poll::new().context("cannot wait for sockets")?,
            buffer: vec![0; READ_MAX],
            clients: Vec::new(),
            next: 0,
            until: Instant::now(),
            asking: 0,
            took: Vec::new(),
        })
    }

    fn add(&mut self, to: SocketAddr, request: Rc<Request>, part: Part) -> Result<&mut Client> {
        let mut wire = Wire::connect(to)?;
        let token = Token(self.clients.len());
        let either = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(wire.socket(), token, either).context("cannot wait for a socket")?;
        self.clients.push(Client { wire, request, part });
        self.clients.last_mut().context("no client")
    }

    /// Adds a client that calls; answers that do not count `keys`, if that is given, are failures.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn call(&mut self, to: SocketAddr, request: Rc<Request>, keys: Option<u64>) -> Result<()> {
        self.add(to, request, Part::Calls { asked: None, keys, count: 0 }).map(drop)
    }

    /// Adds a client that watches.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn watch(&mut self, to: SocketAddr, request: Rc<Request>) -> Result<()> {
        let client = self.add(to, request, Part::Watches { began: false, told: 0 })?;
        client.wire.ask(&client.request, 0)?;
        client.wire.flush()
    }

    /// Waits until all watches have begun.
    ///
    /// # Errors
    /// One is refused.
    pub fn begin(&mut self) -> Result<()> {
        let begins = |client: &Client| !matches!(client.part, Part::Watches { began: false, .. });
        self.wait("watches do not begin", |this| this.clients.iter().all(begins))
    }

    /// Lets all clients call for so long, and waits for their last answers.
    ///
    /// # Errors
    /// A call failed.
    pub fn run(&mut self, time: Duration) -> Result<Took> {
        let began = Instant::now();
        self.until = began + time;
        for client in &mut self.clients {
            if let Part::Calls { asked, .. } = &mut client.part {
                *asked = Some(Instant::now());
                client.wire.ask(&client.request, self.next)?;
                client.wire.flush()?;
                self.next += 1;
                self.asking += 1;
            }
        }
        self.wait("calls are not answered", |this| this.asking == 0)?;
        Ok(Took { milliseconds: std::mem::take(&mut self.took), time: began.elapsed() })
    }

    /// Events that all watchers were told.
    pub fn told(&self) -> u64 {
        self.each_told().sum()
    }

    fn each_told(&self) -> impl Iterator<Item = u64> {
        self.clients.iter().filter_map(|client| match client.part {
            Part::Watches { told, .. } => Some(told),
            Part::Calls { .. } => None,
        })
    }

    /// Waits until each watcher was told as many events as calls were made, and no more.
    ///
    /// # Errors
    /// A watch ended, missed an event, or was told one twice.
    pub fn complete(&mut self) -> Result<()> {
        let wanted = self.next;
        self.wait("watches miss events", |this| this.each_told().all(|told| told >= wanted))?;
        ensure!(self.each_told().all(|told| told == wanted), "a watch was told more than there was");
        Ok(())
    }

    /// Serves sockets until `done`.
    fn wait(&mut self, otherwise: &'static str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let mut events = Events::with_capacity(READY_MAX);
        while !done(self) {
            self.poll.poll(&mut events, Some(ANSWER_MAX)).context("cannot wait for sockets")?;
            ensure!(!events.is_empty(), "{otherwise}");
            for event in &events {
                self.serve(event.token().0)?;
                ensure!(!event.is_read_closed(), "a server closed a connection");
            }
        }
        Ok(())
    }

    /// Reads what a client's socket has, and calls again.
    fn serve(&mut self, client: usize) -> Result<()> {
        let Client { wire, request, part } = &mut self.clients[client];
        match part {
            Part::Watches { began, told } => {
                let mut ended_by = None;
                let ended = wire.read(&mut self.buffer, &mut |what| match what {
                    Told::Field(CREATED, _) => *began = true,
                    Told::Field(EVENTS, _) => *told += 1,
                    Told::Field(CANCELED | COMPACT_REVISION, number) => ended_by = Some(number),
                    _ => {}
                })?;
                ensure!(ended_by.is_none(), "a watch was canceled: {ended_by:?}");
                ensure!(!ended, "a watch ended");
            }
            Part::Calls { asked, keys, count } => {
                let answered = wire.read(&mut self.buffer, &mut |what| {
                    if let Told::Field(COUNT, number) = what {
                        *count = number;
                    }
                })?;
                if answered && let Some(began) = asked.take() {
                    let now = Instant::now();
                    let found = std::mem::take(count);
                    ensure!(keys.is_none_or(|keys| keys == found), "{found} keys were found of {keys:?}");
                    self.took.push((now - began).as_secs_f64() * 1e3);
                    self.asking -= 1;
                    if now < self.until {
                        *asked = Some(now);
                        wire.ask(request, self.next)?;
                        self.next += 1;
                        self.asking += 1;
                    }
                }
            }
        }
        wire.flush()
    }
}
