//! A stop that no client suffers from: not ready first, then no new connections, then what runs is finished.
//!
//!     asked to stop ─► /readyz fails, the address is withdrawn ─ --shutdown-delay-duration ─► listeners close, watches end
//!                                                         short requests are answered ─► everything else stops
//!
//! Invariants: what requests need (caches, the store) lives until they are answered; streams do not hold a stop up; neither
//! does anybody who takes longer than `--request-timeout`.

use crate::{Args, Server, bootstrap};
use coracle_daemon::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How long connections have to send the last answers once all are made.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// How long the withdrawal of the address may take.
const WITHDRAWAL_MAX: Duration = Duration::from_secs(2);

/// Counts the requests that are being answered, long-running ones apart.
#[derive(Default)]
pub struct InFlight {
    count: AtomicUsize,
    none: Notify,
}

/// One of them.
pub struct Counted<'a>(&'a InFlight);

impl InFlight {
    /// One more, until it is dropped.
    pub fn begin(&self) -> Counted<'_> {
        self.count.fetch_add(1, Ordering::AcqRel);
        Counted(self)
    }

    /// Ends when there is none.
    async fn none(&self) {
        loop {
            let none = self.none.notified();
            tokio::pin!(none);
            none.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

impl Server {
    /// Stops serving, as the picture says.
    pub async fn drain(self: Arc<Self>, args: Args) {
        self.health.stopping();
        let withdrawn = clock::timeout(WITHDRAWAL_MAX, bootstrap::withdraw(&self, &args));
        let ((), withdrawn) = tokio::join!(clock::sleep(args.limits.shutdown_delay_duration), withdrawn);
        match withdrawn {
            Ok(Ok(())) => {}
            Ok(Err(status)) => {
                tracing::warn!(error = status.message, "cannot withdraw this server's address");
            }
            Err(_) => tracing::warn!("cannot withdraw this server's address in time"),
        }
        let answered = async {
            self.in_flight.none().await;
            clock::sleep(LAST_BYTES).await;
        };
        tokio::select! {
            stopped = self.serving.stop_within(self.request_timeout) => {
                if let Err(stuck) = stopped {
                    tracing::warn!(%stuck, "not all requests are answered");
                }
            }
            () = answered => {}
        }
    }
}
