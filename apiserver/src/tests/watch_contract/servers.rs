//! Two apiservers, each in a runtime of its own, so that one can be killed with all that it was doing.

use super::super::Fixture;
use super::faulty::Faulty;
use crate::Server;
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// Frames on their way to a client.
const FRAMES_WAITING: usize = 4;

/// The connection broke: the server died.
#[derive(Clone, Copy, Debug)]
pub struct Broken;

struct Running {
    runtime: Runtime,
    server: Arc<Server>,
    admin: Arc<[u8]>,
}

impl Running {
    async fn start(faulty: &Faulty) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let kv = Arc::new(faulty.clone());
        let started = runtime.spawn(async move {
            let fixture = Fixture::on(kv, &[]).await;
            (fixture.server, fixture.admin)
        });
        let (server, admin) = started.await.expect("a server that is ready");
        Self { runtime, server, admin }
    }
}

pub struct Servers {
    slots: [Mutex<Option<Running>>; 2],
}

impl Servers {
    pub async fn start(faulty: &Faulty) -> Self {
        let (one, two) = tokio::join!(Running::start(faulty), Running::start(faulty));
        Self { slots: [Mutex::new(Some(one)), Mutex::new(Some(two))] }
    }

    fn kill(&self, slot: usize) {
        if let Some(running) = self.slots[slot].lock().take() {
            running.runtime.shutdown_background();
        }
    }

    /// Kills one and starts its successor, while the other goes on.
    pub async fn replace(&self, slot: usize, faulty: &Faulty) {
        self.kill(slot);
        let next = Running::start(faulty).await;
        *self.slots[slot].lock() = Some(next);
    }

    pub fn stop(&self) {
        self.kill(0);
        self.kill(1);
    }

    /// Runs a call in the server of a slot, or in the other one while that is down.
    fn run<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        slot: usize,
        work: impl FnOnce(Arc<Server>, Arc<[u8]>) -> F,
    ) -> Option<tokio::task::JoinHandle<T>> {
        let at = if self.slots[slot].lock().is_some() { slot } else { 1 - slot };
        let running = self.slots[at].lock();
        let running = running.as_ref()?;
        Some(running.runtime.spawn(work(running.server.clone(), running.admin.clone())))
    }

    /// The answer to a request.
    pub async fn call(&self, slot: usize, request: Request<Body>) -> Result<(u16, Bytes), Broken> {
        let call = async |server: Arc<Server>, admin| {
            let answer = server.answer(Some(admin), request).await;
            let code = answer.status().as_u16();
            (code, answer.into_body().collect().await.expect("a body").to_bytes())
        };
        self.run(slot, call).ok_or(Broken)?.await.map_err(|_| Broken)
    }

    /// The chunks of a watch until either side ends it, or the code of a refusal.
    pub async fn watch(&self, slot: usize, path: &str) -> Result<mpsc::Receiver<Bytes>, Option<u16>> {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let (chunks, out) = mpsc::channel(FRAMES_WAITING);
        let (begun, code) = tokio::sync::oneshot::channel();
        let carry = async move |server: Arc<Server>, admin| {
            let answer = server.answer(Some(admin), request).await;
            // The client may be gone already.
            let _ = begun.send(answer.status().as_u16());
            let mut body = answer.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(chunk) = frame.into_data() else { continue };
                if chunks.send(chunk).await.is_err() {
                    return;
                }
            }
        };
        self.run(slot, carry).ok_or(None)?;
        match code.await {
            Ok(200) => Ok(out),
            Ok(code) => Err(Some(code)),
            Err(_) => Err(None),
        }
    }
}
