//! Which watchers a key concerns: by hash for single keys and prefixes, one by one for other ranges.

use super::WatcherId;
use crate::machine::KeyRange;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// Watchers by what they watch.
#[derive(Default)]
pub(super) struct Index {
    keys: HashMap<Bytes, Vec<WatcherId>>,
    prefixes: HashMap<Bytes, Vec<WatcherId>>,
    /// Lengths of prefixes, each with how many watchers have such a one.
    lengths: BTreeMap<usize, usize>,
    others: Vec<(KeyRange, WatcherId)>,
}

/// The prefix that a range stands for, if it is one.
fn prefix(range: &KeyRange) -> Option<&Bytes> {
    let (last, head) = range.end.split_last()?;
    let from = range.from.as_ref();
    let length = range.end.len();
    // The end is the prefix without its trailing 0xff, plus one at its last byte.
    let is_prefix = from.len() >= length
        && from[..length - 1] == *head
        && from[length - 1].checked_add(1) == Some(*last)
        && from[length..].iter().all(|byte| *byte == 0xff)
        && !range.is_open();
    is_prefix.then_some(&range.from)
}

fn drop_from(map: &mut HashMap<Bytes, Vec<WatcherId>>, key: &Bytes, id: WatcherId) {
    if let Some(ids) = map.get_mut(key) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}

impl Index {
    pub fn insert(&mut self, range: &KeyRange, id: WatcherId) {
        if range.is_one_key() {
            self.keys.entry(range.from.clone()).or_default().push(id);
        } else if let Some(prefix) = prefix(range) {
            *self.lengths.entry(prefix.len()).or_default() += 1;
            self.prefixes.entry(prefix.clone()).or_default().push(id);
        } else {
            self.others.push((range.clone(), id));
        }
    }

    pub fn remove(&mut self, range: &KeyRange, id: WatcherId) {
        if range.is_one_key() {
            drop_from(&mut self.keys, &range.from, id);
        } else if let Some(prefix) = prefix(range) {
            drop_from(&mut self.prefixes, prefix, id);
            if let Some(count) = self.lengths.get_mut(&prefix.len()) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&prefix.len());
                }
            }
        } else {
            self.others.retain(|(_, other)| *other != id);
        }
    }

    /// Calls `found` for each watcher whose range holds `key`, once.
    pub fn each(&self, key: &[u8], mut found: impl FnMut(WatcherId)) {
        self.keys.get(key).into_iter().flatten().for_each(|id| found(*id));
        for length in self.lengths.range(..=key.len()).map(|(length, _)| *length) {
            self.prefixes.get(&key[..length]).into_iter().flatten().for_each(|id| found(*id));
        }
        for (range, id) in &self.others {
            if range.contains(key) {
                found(*id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_etcd::kv::prefix_end;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        let byte = prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(b'b'), Just(0xfe), Just(0xff)];
        proptest::collection::vec(byte, 0..4).prop_map(Bytes::from)
    }

    fn ranges() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            bytes().prop_map(|from| KeyRange { from, end: Bytes::new() }),
            bytes().prop_map(|from| KeyRange { end: prefix_end(&from), from }),
            (bytes(), bytes()).prop_map(|(from, end)| KeyRange { from, end }),
        ]
    }

    proptest! {
        #[test]
        fn a_key_finds_exactly_the_ranges_that_hold_it(
            ranges in proptest::collection::vec(ranges(), 0..12),
            keys in proptest::collection::vec(bytes(), 1..8),
            removed in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let mut index = Index::default();
            for (id, range) in ranges.iter().enumerate() {
                index.insert(range, WatcherId(id as u64));
            }
            for (id, range) in ranges.iter().enumerate().filter(|(id, _)| removed[*id]) {
                index.remove(range, WatcherId(id as u64));
            }
            for key in keys {
                let mut found = Vec::new();
                index.each(&key, |id| found.push(id.0));
                found.sort_unstable();
                let wanted: Vec<u64> = (0..ranges.len())
                    .filter(|id| !removed[*id] && ranges[*id].contains(&key))
                    .map(|id| id as u64)
                    .collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn prefixes_are_recognized() {
        for (from, end, wanted) in [
            ("/a/", "/a0", true),
            ("/a/", "/b", false),
            ("a", "b", true),
            ("a", "c", false),
            ("a", "\0", false),
        ] {
            let range = KeyRange { from: from.into(), end: end.into() };
            assert_eq!(prefix(&range).is_some(), wanted, "{range:?}");
        }
    }
}
