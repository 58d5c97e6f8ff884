//! A client of one real member, which writes down what it asked and was told.

use crate::cluster::clients::{change, draw, get, told, told_range};
use crate::cluster::history::{Asked, History, Told, Value};
use crate::dice::Dice;
use anyhow::Result;
use coracle_daemon::clock;
use coracle_etcd::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_etcd::proto::kv_client::KvClient;
use coracle_etcd::proto::request_op::Request;
use coracle_etcd::proto::{Compare, PutRequest, RequestOp, TxnRequest};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::command::{Op, Outcome};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

const KEYS: u64 = 6;
const PAUSE_MAX_MILLIS: u64 = 25;
/// After this, an answer does not come.
const ANSWER_MAX: Duration = Duration::from_secs(7);

/// A client at work.
pub struct Asking {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Asking {
    pub fn start(number: usize, channel: Channel, history: Arc<Mutex<History>>, dice: Dice) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let handle = tokio::runtime::Handle::try_current()?;
        let task = handle.spawn(ask_on(number, KvClient::new(channel), history, dice, stopped));
        Ok(Self { stop, task })
    }

    /// Ends it after the request that is under way.
    pub async fn stop(self) {
        drop(self.stop);
        // A panic has been told on standard error, and the history is short then.
        let _ = self.task.await;
    }
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask_on(
    number: usize,
    client: KvClient<Channel>,
    history: Arc<Mutex<History>>,
    mut dice: Dice,
    mut stopped: oneshot::Receiver<()>,
) {
    let (mut seen, mut values) = (None, 0);
    while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
        clock::sleep(Duration::from_millis(dice.below(PAUSE_MAX_MILLIS))).await;
        let key = format!("/k/{}", dice.below(KEYS));
        let asked = draw(&mut dice, seen, || fresh(number, &mut values));
        let request = lock(&history).begin(number, &key, asked);
        if let Ok(Ok(told)) = clock::timeout(ANSWER_MAX, ask(client.clone(), &key, asked)).await {
            if let Told::Value(value, _) = told {
                seen = value;
            }
            lock(&history).end(request, told);
        }
    }
}

/// A value that nobody else writes.
fn fresh(number: usize, values: &mut Value) -> Value {
    *values += 1;
    (number as Value + 1) * 1_000_000_000 + *values
}

async fn ask(mut client: KvClient<Channel>, key: &str, asked: Asked) -> Result<Told, Status> {
    let outcome = match change(key, asked) {
        None => return client.range(get(key)).await.map(|found| told_range(found.get_ref())),
        Some(Op::Put(put)) => Outcome::Put(client.put(put).await?.into_inner()),
        Some(Op::DeleteRange(delete)) => {
            Outcome::DeleteRange(client.delete_range(delete).await?.into_inner())
        }
        Some(Op::Txn(txn)) => Outcome::Txn(client.txn(txn).await?.into_inner()),
        Some(_) => return Err(Status::new(Code::Internal, "nothing else is asked")),
    };
    Ok(told(&outcome))
}

/// Puts a key that no history is about.
pub async fn put_mark(channel: Channel) -> Result<()> {
    let request = PutRequest { key: "/mark".into(), value: "x".into(), ..PutRequest::default() };
    clock::timeout(ANSWER_MAX, KvClient::new(channel).put(request)).await??;
    Ok(())
}

/// Makes the log grow by a mebibyte, but not the state: a put within a transaction whose comparison fails.
pub async fn grow_log(channel: Channel) -> Result<()> {
    let put = PutRequest { key: "/mark".into(), value: vec![b'x'; 1 << 20].into(), ..PutRequest::default() };
    let never = Compare {
        result: CompareResult::Less as i32,
        target: CompareTarget::Version as i32,
        key: "/mark".into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Compare::default()
    };
    let then = RequestOp { request: Some(Request::RequestPut(put)) };
    let request = TxnRequest { compare: vec![never], success: vec![then], failure: Vec::new() };
    clock::timeout(ANSWER_MAX, KvClient::new(channel).txn(request)).await??;
    Ok(())
}
