//! The network between simulated members: connections as TCP gives them, whose bytes come late, or not while a link is cut.
//!
//! A link is one direction between two members. What TCP would send again comes late here, so nothing is lost on a connection
//! that lives; different connections overtake each other. Time is the world's, in milliseconds.

use crate::dice::Dice;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::server::Connected;

/// How much later what was lost once comes.
const RESENT_AFTER: u64 = 200;

/// The network; clones share it.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    now: u64,
    dice: Dice,
    /// Longest usual delay.
    delay: u64,
    /// How many bits of a hundred are lost once.
    lossy: u64,
    cut: BTreeSet<(usize, usize)>,
    listeners: BTreeMap<usize, mpsc::UnboundedSender<io::Result<End>>>,
    pipes: Vec<Pipe>,
    dialled: Vec<Dialled>,
}

struct Dialled {
    from: usize,
    to: usize,
    at: u64,
    answer: oneshot::Sender<io::Result<End>>,
}

/// One direction of a connection.
#[derive(Clone)]
struct Pipe {
    from: usize,
    to: usize,
    state: Arc<Mutex<Flow>>,
}

#[derive(Default)]
struct Flow {
    /// What is under way, and when it arrives. `None` is the end.
    under_way: VecDeque<(u64, Option<Vec<u8>>)>,
    arrived: VecDeque<u8>,
    ended: bool,
    reset: bool,
    reader: Option<Waker>,
    /// Nobody reads or writes any more.
    done: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held fails its own seed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    pub fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: 0,
            dice,
            delay: 2,
            lossy: 0,
            cut: BTreeSet::new(),
            listeners: BTreeMap::new(),
            pipes: Vec::new(),
            dialled: Vec::new(),
        })))
    }

    /// Takes connections to `host` from now on.
    pub fn listen(&self, host: usize) -> mpsc::UnboundedReceiver<io::Result<End>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.0).listeners.insert(host, sender);
        receiver
    }

    /// Connects.
    pub async fn dial(self, from: usize, to: usize) -> io::Result<End> {
        let (answer, wait) = oneshot::channel();
        {
            let state = &mut *lock(&self.0);
            let at = state.now + 1 + state.delay_of();
            state.dialled.push(Dialled { from, to, at, answer });
        }
        wait.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?
    }

    /// From now on nothing gets from one to the other, until it is healed.
    pub fn cut(&self, from: usize, to: usize) {
        lock(&self.0).cut.insert((from, to));
    }

    /// How well it works from now on.
    pub fn quality(&self, delay: u64, lossy: u64) {
        let mut state = lock(&self.0);
        (state.delay, state.lossy) = (delay, lossy);
    }

    pub fn heal(&self) {
        let mut state = lock(&self.0);
        state.cut.clear();
        (state.delay, state.lossy) = (2, 0);
    }

    /// `host` is gone. Its kernel closes its connections, unless that is gone too.
    pub fn gone(&self, host: usize, silently: bool) {
        let mut state = lock(&self.0);
        state.listeners.remove(&host);
        if silently {
            for pipe in state.pipes.iter().filter(|pipe| pipe.from == host) {
                let mut flow = lock(&pipe.state);
                flow.under_way.retain(|(_, bytes)| bytes.is_some());
            }
        }
    }

    /// `host` has started again: it knows none of its old connections.
    pub fn back(&self, host: usize) {
        let state = lock(&self.0);
        for pipe in state.pipes.iter().filter(|pipe| pipe.from == host) {
            let mut flow = lock(&pipe.state);
            if !flow.ended {
                (flow.ended, flow.reset) = (true, true);
                flow.wake();
            }
        }
    }

    /// Time goes on: what has come is there.
    pub fn advance(&self, now: u64) {
        let due: Vec<Dialled>;
        {
            let state = &mut *lock(&self.0);
            state.now = now;
            (due, state.dialled) = std::mem::take(&mut state.dialled).into_iter().partition(|dialled| {
                let cut = |from, to| state.cut.contains(&(from, to));
                dialled.at <= now && !cut(dialled.from, dialled.to) && !cut(dialled.to, dialled.from)
            });
        }
        for dialled in due {
            self.accept(dialled);
        }
        let state = &mut *lock(&self.0);
        for pipe in &state.pipes {
            if state.cut.contains(&(pipe.from, pipe.to)) {
                continue;
            }
            let flow = &mut *lock(&pipe.state);
            let mut moved = false;
            while flow.under_way.front().is_some_and(|(at, _)| *at <= now)
                && let Some((_, bytes)) = flow.under_way.pop_front()
            {
                moved = true;
                match bytes {
                    Some(bytes) => flow.arrived.extend(bytes),
                    None => flow.ended = true,
                }
            }
            if moved {
                flow.wake();
            }
        }
        state.pipes.retain(|pipe| !lock(&pipe.state).done);
    }

    fn accept(&self, dialled: Dialled) {
        let Dialled { from, to, answer, .. } = dialled;
        let pipe = |from, to| Pipe { from, to, state: Arc::default() };
        let (there, back) = (pipe(from, to), pipe(to, from));
        let end = |reads: &Pipe, writes: &Pipe| End {
            net: self.clone(),
            reads: reads.state.clone(),
            writes: writes.state.clone(),
        };
        let listener = lock(&self.0).listeners.get(&to).cloned();
        let accepted = listener.is_some_and(|listener| listener.send(Ok(end(&there, &back))).is_ok());
        let told =
            if accepted { Ok(end(&back, &there)) } else { Err(io::ErrorKind::ConnectionRefused.into()) };
        lock(&self.0).pipes.extend([there, back]);
        // Whoever dialled may have given up.
        let _ = answer.send(told);
    }
}

impl State {
    fn delay_of(&mut self) -> u64 {
        let resent = if self.dice.percent(self.lossy) { RESENT_AFTER } else { 0 };
        self.dice.below(self.delay + 1) + resent
    }
}

impl Flow {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// One end of a connection.
pub struct End {
    net: Net,
    reads: Arc<Mutex<Flow>>,
    writes: Arc<Mutex<Flow>>,
}

impl End {
    fn send(&self, bytes: Option<Vec<u8>>) {
        let (now, delay) = {
            let state = &mut *lock(&self.net.0);
            (state.now, state.delay_of())
        };
        let mut flow = lock(&self.writes);
        let after = flow.under_way.back().map_or(0, |(at, _)| *at);
        flow.under_way.push_back(((now + 1 + delay).max(after), bytes));
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let flow = &mut *lock(&self.reads);
        if !flow.arrived.is_empty() {
            let (first, _) = flow.arrived.as_slices();
            let count = first.len().min(buffer.remaining());
            buffer.put_slice(&first[..count]);
            flow.arrived.drain(..count);
            return Poll::Ready(Ok(()));
        }
        if flow.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if flow.ended {
            return Poll::Ready(Ok(()));
        }
        flow.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if lock(&self.reads).reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.send(Some(bytes.to_vec()));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send(None);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.send(None);
        lock(&self.reads).done = true;
    }
}

impl Connected for End {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
