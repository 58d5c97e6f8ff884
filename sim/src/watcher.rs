//! A client that watches: it reads when it gets to it, and goes on elsewhere when its member dies.

use crate::member::Running;
use crate::oracle::Event;
use std::sync::Arc;
use store::error::StoreError;
use store::machine::KeyRange;
use store::watch::{Outlet, WatcherId};

/// A watch of a range from a revision on.
pub struct Watcher {
    pub range: KeyRange,
    /// The first revision it wants.
    pub from: i64,
    /// Everything up to here it was told.
    pub read: i64,
    pub seen: Vec<Event>,
    /// Where it watches now.
    pub at: Option<Place>,
    /// History no longer had what it wanted next.
    pub compacted: bool,
}

/// A watch at a member.
pub struct Place {
    pub member: usize,
    id: WatcherId,
    outlet: Arc<Outlet>,
}

impl Watcher {
    /// Watches at a member from the next revision on.
    pub fn start(range: KeyRange, member: usize, running: &Running) -> Self {
        let outlet = Arc::new(Outlet::default());
        let (id, published) = running.hub.add(&outlet, range.clone(), 0);
        let at = Some(Place { member, id, outlet });
        Self { range, from: published + 1, read: published, seen: Vec::new(), at, compacted: false }
    }

    /// Goes on at another member, from where it was.
    pub fn move_to(&mut self, member: usize, running: &Running) {
        let outlet = Arc::new(Outlet::default());
        let (id, _) = running.hub.add(&outlet, self.range.clone(), self.read + 1);
        self.at = Some(Place { member, id, outlet });
    }

    /// Leaves its member.
    pub fn leave(&mut self, running: Option<&Running>) {
        if let (Some(place), Some(running)) = (self.at.take(), running) {
            running.hub.remove(place.id);
        }
    }

    /// Reads what there is, at most `pulls` times.
    pub fn read(&mut self, running: &Running, pulls: usize) -> Result<(), String> {
        let Some(place) = &self.at else { return Ok(()) };
        for _ in 0..pulls {
            let Some((id, from)) = running.hub.next_unread(&place.outlet) else { break };
            match running.hub.pull(id, &self.range, from, || &running.machine) {
                Ok(pulled) => {
                    for batch in &pulled.batches {
                        for event in batch.events.iter().filter(|event| self.range.contains(event.key())) {
                            let kv = &event.record.kv;
                            let value = (!event.record.tombstone).then(|| kv.value.to_vec());
                            self.seen.push(Event { revision: kv.mod_revision, key: kv.key.to_vec(), value });
                        }
                    }
                    self.read = self.read.max(pulled.revision);
                }
                Err(StoreError::Compacted) => {
                    self.compacted = true;
                    self.leave(Some(running));
                    return Ok(());
                }
                Err(error) => return Err(format!("a watcher was refused: {error}")),
            }
        }
        if let Some(place) = &self.at
            && let Some(read) = running.hub.all_read(&place.outlet)
        {
            self.read = self.read.max(read);
        }
        Ok(())
    }
}
