//! No watcher loses, repeats or reorders an event, however slow it is and whatever is compacted or replaced meanwhile.

use super::hub::{FEW, OF_MANY, REST};
use super::{Hub, Outlet, WatcherId};
use crate::command::{Command, Op};
use crate::error::StoreError;
use crate::machine::{KeyRange, Machine, Restore};
use crate::shared::Shared;
use bytes::Bytes;
use coracle_daemon::clock;
use coracle_etcd::proto::{CompactionRequest, DeleteRangeRequest, PutRequest};
use futures::FutureExt;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    /// Puts of these keys, applied in one batch.
    Put(Vec<u8>),
    DeleteAll,
    Compact {
        back: i64,
    },
    Watch {
        from: u8,
        to: u8,
        back: i64,
    },
    Read {
        stream: bool,
        times: usize,
    },
    /// A snapshot of these puts later replaces the machine.
    Install(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Step> {
    let keys = || proptest::collection::vec(0u8..4, 1..6);
    prop_oneof![
        6 => keys().prop_map(Step::Put),
        1 => Just(Step::DeleteAll),
        1 => (0i64..8).prop_map(|back| Step::Compact { back }),
        3 => (0u8..4, 0u8..6, -2i64..8).prop_map(|(from, to, back)| Step::Watch { from, to, back }),
        4 => (any::<bool>(), 1usize..4).prop_map(|(stream, times)| Step::Read { stream, times }),
        1 => keys().prop_map(Step::Install),
    ]
}

fn put(key: u8) -> Command {
    let put = PutRequest { key: vec![b'a' + key].into(), ..PutRequest::default() };
    Command { proposed_at_millis: 0, op: Op::Put(put) }
}

struct Reader {
    id: WatcherId,
    range: KeyRange,
    from: i64,
    told: Vec<(i64, Bytes)>,
    read_to: i64,
    cancelled: bool,
}

struct World {
    shared: Arc<Shared>,
    outlets: [Arc<Outlet>; 2],
    readers: Vec<Reader>,
    /// All events ever: revision and key.
    events: Vec<(i64, Bytes)>,
}

impl World {
    fn hub(&self) -> &Hub {
        self.shared.hub()
    }

    fn apply(&mut self, commands: &[Command]) {
        let before = self.shared.machine().revision();
        for outcome in self.shared.apply_batch(commands).outcomes {
            outcome.expect("applies");
        }
        let all = KeyRange::new(&Bytes::from_static(&[0]), &Bytes::from_static(&[0]));
        let (batches, _) = self.shared.machine().history(&all, before + 1, usize::MAX).expect("just written");
        for batch in batches {
            self.events.extend(batch.events.iter().map(|event| (batch.revision, event.key().clone())));
        }
    }

    fn read(&mut self, stream: usize) -> bool {
        let Some((id, from)) = self.shared.hub().next_unread(&self.outlets[stream]) else { return false };
        let shared = self.shared.clone();
        let reader = self.readers.iter_mut().find(|reader| reader.id == id).expect("known");
        match shared.hub().pull(id, &reader.range, from, || shared.machine()) {
            Ok(pulled) => {
                for batch in pulled.batches {
                    for event in batch.events.iter().filter(|event| reader.range.contains(event.key())) {
                        reader.told.push((batch.revision, event.key().clone()));
                    }
                }
                reader.read_to = pulled.revision;
            }
            Err(error) => {
                assert_eq!(error, StoreError::Compacted);
                assert!(from < shared.machine().compacted(), "what it wants next is there");
                reader.cancelled = true;
                shared.hub().remove(id);
            }
        }
        true
    }

    fn check(&self) {
        for reader in self.readers.iter().filter(|reader| !reader.cancelled) {
            let wanted: Vec<_> = self
                .events
                .iter()
                .filter(|(revision, key)| *revision >= reader.from && reader.range.contains(key))
                .cloned()
                .collect();
            assert_eq!(reader.told, wanted, "{:?} from {}", reader.range, reader.from);
        }
    }
}

fn take(world: &mut World, step: &Step) {
    let revision = world.shared.machine().revision();
    match step {
        Step::Put(keys) => world.apply(&keys.iter().map(|key| put(*key)).collect::<Vec<_>>()),
        Step::DeleteAll => {
            let all = DeleteRangeRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                ..DeleteRangeRequest::default()
            };
            world.apply(&[Command { proposed_at_millis: 0, op: Op::DeleteRange(all) }]);
        }
        Step::Compact { back } => {
            let target = CompactionRequest { revision: revision - back, physical: false };
            let command = Command { proposed_at_millis: 0, op: Op::Compact(target) };
            // It may be compacted already.
            let _ = world.shared.apply_batch([&command]);
        }
        Step::Watch { from, to, back } => {
            // A watch from before what is left is told so; it is not what is tested here.
            let from_revision = (revision + 1 - back).max(world.shared.machine().compacted()).max(1);
            let end = if *to == 0 { Bytes::new() } else { vec![b'a' + to].into() };
            let range = KeyRange::new(&vec![b'a' + from].into(), &end);
            let stream = usize::from(*from % 2);
            let (id, _) = world.hub().add(&world.outlets[stream], range.clone(), from_revision);
            let reader =
                Reader { id, range, from: from_revision, told: Vec::new(), read_to: 0, cancelled: false };
            // What history no longer has of the beginning, it does not owe.
            world.readers.push(reader);
        }
        Step::Read { stream, times } => {
            for _ in 0..*times {
                world.read(usize::from(*stream));
            }
        }
        Step::Install(keys) => {
            let mut restore = Restore::new();
            for chunk in world.shared.view().chunks(1 << 20) {
                restore.chunk(&chunk).expect("a chunk");
            }
            let mut machine = restore.finish();
            for key in keys {
                machine.apply(&put(*key)).expect("puts");
                world.events.push((machine.revision(), vec![b'a' + key].into()));
            }
            let _ = machine.take_effects();
            world.shared.install(machine);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_watcher_is_told_every_event_once_in_order(steps in proptest::collection::vec(steps(), 1..60)) {
        let shared = Shared::new(Machine::new());
        let mut world = World { shared, outlets: [Arc::default(), Arc::default()], readers: Vec::new(), events: Vec::new() };
        for step in &steps {
            take(&mut world, step);
        }
        // History before the last compaction may be gone in part for those who start below it; they start above here.
        while world.read(0) || world.read(1) {}
        world.check();
        for (stream, outlet) in world.outlets.iter().enumerate() {
            prop_assert_eq!(world.hub().all_read(outlet), Some(world.shared.machine().revision()), "stream {}", stream);
        }
    }
}

#[test]
fn a_slow_watcher_reads_on_from_history_when_recent_events_are_gone() {
    let shared = Shared::new(Machine::new());
    let outlet = Arc::default();
    let range = KeyRange::new(&"a".into(), &"b".into());
    let (id, _) = shared.hub().add(&outlet, range.clone(), 0);
    let commands: Vec<Command> =
        (0..20_000).map(|number| put(u8::try_from(number % 2).expect("small"))).collect();
    for batch in commands.chunks(500) {
        let _ = shared.apply_batch(batch);
    }
    let mut told = Vec::new();
    while let Some((_, from)) = shared.hub().next_unread(&outlet) {
        let pulled = shared.hub().pull(id, &range, from, || shared.machine()).expect("kept");
        for batch in pulled.batches {
            assert!(batch.events.len() == 1);
            told.extend(
                batch.events.iter().filter(|event| range.contains(event.key())).map(|_| batch.revision),
            );
        }
    }
    assert_eq!(told, (0..10_000).map(|number| 2 + 2 * number).collect::<Vec<i64>>());
}

/// Streams that each watch everything.
fn streams(shared: &Shared, count: usize) -> Vec<(WatcherId, Arc<Outlet>)> {
    let all = KeyRange::new(&Bytes::from_static(&[0]), &Bytes::from_static(&[0]));
    let stream = |_| {
        let outlet = Arc::default();
        (shared.hub().add(&outlet, all.clone(), 0).0, outlet)
    };
    (0..count).map(stream).collect()
}

#[tokio::test(start_paused = true)]
async fn few_streams_are_woken_at_once_and_many_some_at_a_time() {
    for (count, at_first) in [(FEW, FEW), (FEW + 1, OF_MANY)] {
        let shared = Shared::new(Machine::new());
        let streams = streams(&shared, count);
        let woken = || streams.iter().filter(|(_, outlet)| outlet.woken().now_or_never().is_some()).count();
        let mut waking = std::pin::pin!(shared.hub().wake());
        let mut woken_then = || {
            let mut all = 0;
            loop {
                assert!(waking.as_mut().now_or_never().is_none());
                let some = woken();
                assert!(some <= OF_MANY, "{some} at a time");
                if some == 0 {
                    return all;
                }
                all += some;
            }
        };
        let _ = shared.apply_batch(&[put(0)]);
        assert_eq!(woken(), at_first);
        assert_eq!(woken_then(), count - at_first);
        for (_, outlet) in &streams {
            while shared.hub().next_unread(outlet).is_some() {}
        }
        let _ = shared.apply_batch(&[put(0)]);
        if count == FEW {
            assert_eq!(woken(), FEW);
        } else {
            assert_eq!(woken(), 0, "it came in the rest after many");
            tokio::time::advance(REST).await;
            assert_eq!(woken_then(), count);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_burst_each_of_many_streams_reads_all_in_few_turns_and_one_that_does_not_read_holds_nobody_up() {
    const PUTS: usize = 200;
    let shared = Shared::new(Machine::new());
    let mut streams = streams(&shared, 10 * FEW);
    let asleep = streams.split_off(streams.len() - 2 * FEW);
    let range = KeyRange::new(&Bytes::from_static(&[0]), &Bytes::from_static(&[0]));
    let read = |(id, outlet): (WatcherId, Arc<Outlet>)| {
        let (shared, range) = (&shared, &range);
        async move {
            let (mut told, mut turns) = (Vec::new(), 0);
            while told.len() < PUTS {
                outlet.woken().await;
                while let Some((_, from)) = shared.hub().next_unread(&outlet) {
                    let pulled = shared.hub().pull(id, range, from, || shared.machine()).expect("kept");
                    told.extend(pulled.batches.iter().map(|batch| batch.revision));
                    turns += 1;
                }
            }
            (told, turns)
        }
    };
    let write = async {
        for number in 1..=PUTS {
            let _ = shared.apply_batch(&[put(0)]);
            tokio::task::yield_now().await;
            if number % 10 == 0 {
                clock::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let all = async { tokio::join!(futures::future::join_all(streams.into_iter().map(read)), write).0 };
    let all = tokio::select! { all = all => all, () = shared.hub().wake() => panic!("ended") };
    for (told, turns) in all {
        assert_eq!(told, (2..2 + i64::try_from(PUTS).expect("small")).collect::<Vec<i64>>());
        assert!(turns <= PUTS / 2, "{turns} turns for {PUTS} events");
    }
    for (_, outlet) in asleep {
        assert!(outlet.woken().now_or_never().is_some(), "it was told as well");
    }
}
