//! The one state machine of a member, shared by who applies commands, who reads and who watches.
//!
//! Invariants: no lock is held across an await; events are published in the order of their revisions, after the machine
//! shows them; the lock on the machine is taken before any lock of the hub or the lessor.

use crate::command::{Command, Outcome};
use crate::error::StoreError;
use crate::lessor::Lessor;
use crate::machine::{Change, Machine, View};
use crate::watch::Hub;
use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::Arc;

/// State machine, watch hub and lease clock of this member.
pub struct Shared {
    machine: RwLock<Machine>,
    hub: Hub,
    lessor: Lessor,
}

/// What came of a batch of commands.
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Result<Outcome, StoreError>>,
    /// What the durable image has to take over, in order.
    pub changes: Vec<Change>,
}

impl Shared {
    /// Around a machine that was just made or restored.
    #[must_use]
    pub fn new(machine: Machine) -> Arc<Self> {
        let hub = Hub::new(machine.revision());
        let lessor = Lessor::default();
        lessor.reset(machine.leases());
        Arc::new(Self { machine: RwLock::new(machine), hub, lessor })
    }

    /// Applies committed commands in the order of the log, and tells watchers.
    pub fn apply_batch<'a>(&self, commands: impl IntoIterator<Item = &'a Command>) -> Applied {
        let mut machine = self.machine.write();
        let outcomes = commands.into_iter().map(|command| machine.apply(command)).collect();
        let effects = machine.take_effects();
        self.lessor.apply(&effects.changes);
        self.hub.publish(machine.revision(), effects.batches);
        Applied { outcomes, changes: effects.changes }
    }

    /// Takes over the state of a snapshot. Watchers go on: what they missed comes from the new history.
    pub fn install(&self, new: Machine) {
        let mut machine = self.machine.write();
        self.lessor.reset(new.leases());
        self.hub.jump(new.revision());
        let old = std::mem::replace(&mut *machine, new);
        drop(machine);
        // Freeing a large state takes a while; readers need not wait for it.
        drop(old);
    }

    /// For reading. Never hold it across an await.
    pub fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read()
    }

    /// A consistent view of all state, for snapshots: made at once, read at leisure.
    #[must_use]
    pub fn view(&self) -> View {
        self.machine.read().view()
    }

    /// The watchers.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The leases' clock; only the leader's counts.
    #[must_use]
    pub fn lessor(&self) -> &Lessor {
        &self.lessor
    }
}
