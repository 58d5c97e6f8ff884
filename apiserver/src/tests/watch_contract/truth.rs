//! What the store's own history says that watchers must have been told.

use super::watcher::{Event, Watcher, What};
use super::writer::Outcome;
use super::{LAST, MAPS};
use coracle_etcd::memory::MemoryKv;
use coracle_etcd::proto::EventType;
use coracle_etcd::{Kv, WatchBatch};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

const PREFIX: &str = "/registry/configmaps/";

/// An object, as far as this test looks: who wrote it (each write says something else), and its label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    pub said: String,
    pub label: String,
}

/// Objects by namespace and name.
pub type Objects = BTreeMap<String, Object>;

/// What a watcher asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    Namespace,
    All,
    /// `v=1`
    Label,
    /// `v notin (0)`
    Labels,
    /// All but one name.
    Field,
}

/// The name that [`Selection::Field`] leaves out.
const LEFT_OUT: &str = "shared-0";

impl Selection {
    pub fn of(n: u64) -> Self {
        [Self::Namespace, Self::All, Self::Label, Self::Labels, Self::Field]
            [usize::try_from(n % 5).expect("small")]
    }

    /// The path and query of its list.
    pub fn path(self) -> String {
        match self {
            Self::Namespace => format!("{MAPS}?"),
            Self::All => "/api/v1/configmaps?".to_owned(),
            Self::Label => format!("{MAPS}?labelSelector=v%3D1&"),
            Self::Labels => format!("{MAPS}?labelSelector=v%20notin%20%280%29&"),
            Self::Field => format!("{MAPS}?fieldSelector=metadata.name%21%3D{LEFT_OUT}&"),
        }
    }

    fn takes(self, key: &str, object: &Object) -> bool {
        let inside = key.starts_with("default/");
        match self {
            Self::All => true,
            Self::Namespace => inside,
            Self::Label => inside && object.label == "1",
            Self::Labels => inside && object.label != "0",
            Self::Field => inside && key != format!("default/{LEFT_OUT}"),
        }
    }
}

struct Change {
    revision: u64,
    key: String,
    before: Option<Object>,
    after: Option<Object>,
}

pub struct Truth {
    changes: Vec<Change>,
}

impl Truth {
    pub async fn read(memory: &MemoryKv) -> Self {
        let mut watch =
            memory.watch(PREFIX.into(), "/registry/configmaps0".into(), 1, false).await.expect("watch");
        let Ok(WatchBatch::Events { events, .. }) = watch.next().await else { panic!("the history first") };
        let mut now = Objects::new();
        let changes = events.into_iter().map(|event| {
            let deleted = event.r#type() == EventType::Delete;
            let kv = event.kv.expect("a key");
            let key = String::from_utf8_lossy(&kv.key[PREFIX.len()..]).into_owned();
            let after = (!deleted).then(|| object(&serde_json::from_slice(&kv.value).expect("an object")));
            let before = match &after {
                Some(after) => now.insert(key.clone(), after.clone()),
                None => now.remove(&key),
            };
            Change { revision: u64::try_from(kv.mod_revision).expect("a revision"), key, before, after }
        });
        Self { changes: changes.collect() }
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    fn at(&self, selection: Selection, revision: u64) -> Objects {
        let mut now = Objects::new();
        for change in self.changes.iter().filter(|change| change.revision <= revision) {
            match &change.after {
                Some(after) => now.insert(change.key.clone(), after.clone()),
                None => now.remove(&change.key),
            };
        }
        now.retain(|key, object| selection.takes(key, object));
        now
    }

    /// The events of a selection after `from` and up to `to`.
    fn events(&self, selection: Selection, from: u64, to: u64) -> Vec<Event> {
        let within = self.changes.iter().filter(|change| change.revision > from && change.revision <= to);
        let seen = within.filter_map(|change| {
            let taken = |object: &Option<Object>| {
                object.clone().filter(|object| selection.takes(&change.key, object))
            };
            let (what, object) = match (taken(&change.before), taken(&change.after)) {
                (None, Some(after)) => (What::Added, after),
                (Some(_), Some(after)) => (What::Modified, after),
                (Some(before), None) => (What::Deleted, before),
                (None, None) => return None,
            };
            Some(Event { what, revision: change.revision, key: change.key.clone(), object })
        });
        seen.collect()
    }

    pub fn check_watcher(&self, watcher: &Watcher) {
        let (number, selection) = (watcher.number, watcher.selection);
        let who = format!("watcher {number} of {selection:?}");
        for segment in &watcher.segments {
            assert_eq!(
                segment.listed,
                self.at(selection, segment.from),
                "{who}: the list at {}",
                segment.from
            );
            let to = segment.told.last().map_or(segment.from, |event| event.revision);
            let wanted = self.events(selection, segment.from, to);
            let differs = wanted.iter().zip(&segment.told).position(|(wanted, told)| wanted != told.as_ref());
            if let Some(at) = differs {
                let around = |events: &[&Event]| {
                    format!("{:#?}", &events[at.saturating_sub(2)..(at + 2).min(events.len())])
                };
                let told: Vec<&Event> = segment.told.iter().map(AsRef::as_ref).collect();
                panic!("{who}: wanted {} told {}", around(&wanted.iter().collect::<Vec<_>>()), around(&told));
            }
            assert_eq!(segment.told.len(), wanted.len(), "{who}: events after {}", segment.from);
        }
        let last = self.changes.last().expect("changes").revision;
        assert_eq!(watcher.rebuilt(), self.at(selection, last), "{who}: the state rebuilt");
        assert!(watcher.rebuilt().contains_key(&format!("default/{LAST}")), "{who}: the end");
    }

    /// Acknowledged writes were done once, refused ones never, the others at most once.
    pub fn check_writes(&self, outcomes: &[Outcome]) {
        let mut done: HashMap<&str, Vec<&Change>> = HashMap::new();
        for change in &self.changes {
            if let Some(after) = &change.after {
                done.entry(&after.said).or_default().push(change);
            }
        }
        let mut acknowledged = 0;
        for outcome in outcomes {
            let found = done.get(outcome.says.as_str()).map_or(&[][..], Vec::as_slice);
            let revisions: Vec<u64> = found.iter().map(|change| change.revision).collect();
            match outcome.code {
                Some(200 | 201) => {
                    acknowledged += 1;
                    assert_eq!(revisions, [outcome.revision], "an acknowledged write: {outcome:?}");
                }
                Some(400..=499) => {
                    assert!(revisions.is_empty(), "a refused write: {outcome:?} {revisions:?}");
                }
                _ => assert!(revisions.len() <= 1, "a write of unknown outcome: {outcome:?} {revisions:?}"),
            }
        }
        assert!(acknowledged * 3 > outcomes.len(), "{acknowledged} of {} writes", outcomes.len());
    }
}

/// What this test looks at.
pub fn object(value: &Value) -> Object {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Object { said: text(&value["data"]["said"]), label: text(&value["metadata"]["labels"]["v"]) }
}
