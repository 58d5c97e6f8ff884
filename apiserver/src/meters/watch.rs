//! What watches send.

use super::{Histogram, Histograms};
use crate::meters::Register;
use coracle_api::kinds::Kind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

const BOUNDS: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    group: String,
    version: String,
    kind: String,
}

/// Of all watches.
#[derive(Clone)]
pub struct Watches {
    events: Family<OfKind, Counter>,
    sizes: Histograms<OfKind>,
}

/// Of the watches of one kind.
#[derive(Clone)]
pub struct Sent {
    events: Counter,
    sizes: Histogram,
}

impl Watches {
    /// At a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let mut to = Register::of(registry, "apiserver_watch_events");
        let sizes = Family::new_with_constructor((|| Histogram::bytes(&BOUNDS)) as fn() -> Histogram);
        Self {
            events: to.add("", "Events that watches have sent", Family::default()),
            sizes: to.add("_sizes", "Sizes of what watches have sent, in bytes", sizes),
        }
    }

    /// Of one kind: asked once for each watch.
    #[must_use]
    pub fn of(&self, kind: &Kind) -> Sent {
        let label =
            OfKind { group: kind.group.clone(), version: kind.version.clone(), kind: kind.kind.clone() };
        Sent {
            events: self.events.get_or_create_owned(&label),
            sizes: self.sizes.get_or_create_owned(&label),
        }
    }
}

impl Sent {
    /// One event of so many bytes.
    pub fn event(&self, bytes: usize) {
        self.events.inc();
        self.sizes.size(bytes);
    }
}
