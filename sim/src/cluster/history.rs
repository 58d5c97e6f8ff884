//! What clients asked and were told, and whether one order explains all of it.
//!
//! The store names its own order: revisions. So nothing has to be searched: the history is linearizable, per key and over
//! all keys, when each answer is right at its revision, and no revision is older than what anybody was told before the
//! request began. The truth is the list of events that the healed cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A value, different for each write.
pub type Value = u64;

/// What was asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Get,
    Put(Value),
    /// Put the second if it is the first.
    Swap(Option<Value>, Value),
    Delete,
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The value at the revision.
    Value(Option<Value>, i64),
    /// Done, as the revision.
    Done(i64),
    /// Not done, as the key was otherwise at the revision (a swap) or not there (a deletion).
    Otherwise(i64),
    /// Surely not done.
    Refused,
}

impl Told {
    fn revision(self) -> Option<i64> {
        match self {
            Self::Value(_, revision) | Self::Done(revision) | Self::Otherwise(revision) => Some(revision),
            Self::Refused => None,
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub client: usize,
    pub key: String,
    pub asked: Asked,
    /// When, in the order of all requests and answers.
    pub began: u64,
    pub ended: Option<(u64, Told)>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} at {}: {:?} of {}", self.client, self.began, self.asked, self.key)?;
        match self.ended {
            Some((at, told)) => write!(f, ", at {at}: {told:?}"),
            None => write!(f, ", no answer"),
        }
    }
}

/// All requests.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub requests: Vec<Request>,
    clock: u64,
}

/// A change: revision, key, and the new value, none for a deletion.
pub type Change = (i64, String, Option<Value>);

impl History {
    /// A request begins. Returns its number.
    pub fn begin(&mut self, client: usize, key: &str, asked: Asked) -> usize {
        self.clock += 1;
        let request = Request { client, key: key.to_owned(), asked, began: self.clock, ended: None };
        self.requests.push(request);
        self.requests.len() - 1
    }

    /// A request was answered.
    pub fn end(&mut self, request: usize, told: Told) {
        self.clock += 1;
        if let Some(request) = self.requests.get_mut(request) {
            request.ended = Some((self.clock, told));
        }
    }

    /// Requests that have an answer other than a refusal.
    pub fn answered(&self) -> usize {
        self.requests
            .iter()
            .filter(|request| matches!(request.ended, Some((_, told)) if told != Told::Refused))
            .count()
    }

    /// Checks all of it against the truth, which is in the order of revisions.
    pub fn check(&self, truth: &[Change]) -> Result<(), String> {
        let told = Knowledge::new(&self.requests);
        let values = Values::new(truth);
        let mut taken = BTreeSet::new();
        for request in &self.requests {
            let wrong = |why: String| Err(format!("{why}: {request}"));
            let known = told.before(request.began);
            let done = values.written(request);
            match request.ended.map(|(_, told)| told) {
                Some(Told::Refused) => {
                    if let Some(revision) = done {
                        return wrong(format!("refused, but done as revision {revision}"));
                    }
                }
                None => {
                    if done.is_some_and(|revision| revision <= known) {
                        return wrong(format!(
                            "done before it was asked for, when revision {known} was known"
                        ));
                    }
                }
                Some(Told::Done(revision)) => {
                    let wanted = match request.asked {
                        Asked::Put(value) | Asked::Swap(_, value) => Some(value),
                        Asked::Get | Asked::Delete => None,
                    };
                    if values.change(&request.key, revision) != Some(wanted) {
                        return wrong("an acknowledged write is lost".to_owned());
                    }
                    if revision <= known || !taken.insert(revision) {
                        return wrong(format!("a write in the past of revision {known}"));
                    }
                    if let Asked::Swap(from, _) = request.asked
                        && values.at(&request.key, revision - 1) != from
                    {
                        return wrong("swapped though it was another value".to_owned());
                    }
                }
                Some(Told::Value(value, revision)) => {
                    if revision < known {
                        return wrong(format!("a stale read, when revision {known} was known"));
                    }
                    if values.at(&request.key, revision) != value {
                        return wrong("a value that never was at this revision".to_owned());
                    }
                }
                Some(Told::Otherwise(revision)) => {
                    let is = values.at(&request.key, revision);
                    let right = match request.asked {
                        Asked::Swap(from, _) => is != from,
                        _ => is.is_none(),
                    };
                    if revision < known || !right {
                        return wrong(format!(
                            "not done, but it was {is:?}, when revision {known} was known"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The newest revision that anybody had been told of, by time.
struct Knowledge(BTreeMap<u64, i64>);

impl Knowledge {
    fn new(requests: &[Request]) -> Self {
        let mut answers: Vec<(u64, i64)> = requests
            .iter()
            .filter_map(|request| request.ended.and_then(|(at, told)| Some((at, told.revision()?))))
            .collect();
        answers.sort_unstable();
        let mut newest = 0;
        Self(
            answers
                .into_iter()
                .map(|(at, revision)| {
                    newest = newest.max(revision);
                    (at, newest)
                })
                .collect(),
        )
    }

    fn before(&self, at: u64) -> i64 {
        self.0.range(..at).next_back().map_or(0, |(_, revision)| *revision)
    }
}

/// The truth by key.
struct Values<'a> {
    keys: BTreeMap<&'a str, BTreeMap<i64, Option<Value>>>,
    writes: BTreeMap<Value, i64>,
}

impl<'a> Values<'a> {
    fn new(truth: &'a [Change]) -> Self {
        let (mut keys, mut writes) = (BTreeMap::<&str, BTreeMap<_, _>>::new(), BTreeMap::new());
        for (revision, key, value) in truth {
            keys.entry(key).or_default().insert(*revision, *value);
            writes.extend(value.map(|value| (value, *revision)));
        }
        Self { keys, writes }
    }

    fn at(&self, key: &str, revision: i64) -> Option<Value> {
        *self.keys.get(key)?.range(..=revision).next_back()?.1
    }

    fn change(&self, key: &str, revision: i64) -> Option<Option<Value>> {
        self.keys.get(key)?.get(&revision).copied()
    }

    /// The revision that a request's own value was written as.
    fn written(&self, request: &Request) -> Option<i64> {
        match request.asked {
            Asked::Put(value) | Asked::Swap(_, value) => self.writes.get(&value).copied(),
            Asked::Get | Asked::Delete => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of key `k`: asked, began, ended.
    type Line = (Asked, u64, Option<(u64, Told)>);

    fn check(requests: &[Line]) -> Result<(), String> {
        let requests = requests
            .iter()
            .map(|(asked, began, ended)| Request {
                client: 0,
                key: "k".to_owned(),
                asked: *asked,
                began: *began,
                ended: *ended,
            })
            .collect();
        let truth = [(2, "k".to_owned(), Some(1)), (3, "k".to_owned(), Some(2)), (4, "k".to_owned(), None)];
        History { requests, clock: 0 }.check(&truth)
    }

    #[test]
    fn only_histories_that_one_order_explains_pass() {
        use Asked::{Delete, Get, Put, Swap};
        use Told::{Done, Otherwise, Refused};
        let (put, got) = ((Put(1), 1, Some((4, Done(2)))), |value, revision| Told::Value(value, revision));
        check(&[put, (Get, 2, Some((3, got(Some(1), 2))))]).expect("a read during the write sees it");
        check(&[put, (Get, 2, Some((3, got(None, 1))))]).expect("or does not");
        check(&[put, (Swap(Some(1), 2), 5, None), (Delete, 8, Some((9, Done(4))))])
            .expect("no answer, but done");
        check(&[put, (Put(7), 5, None)]).expect("no answer, and not done");
        check(&[put, (Swap(Some(2), 9), 5, Some((6, Otherwise(2))))]).expect("it was 1");
        for (wrong, why) in [
            (vec![put, (Get, 5, Some((6, got(None, 1))))], "stale"),
            (vec![put, (Get, 5, Some((6, got(Some(2), 2))))], "never was"),
            (vec![(Put(7), 1, Some((2, Done(5))))], "lost"),
            (vec![put, (Put(2), 5, Some((6, Refused)))], "refused"),
            (vec![(Get, 1, Some((2, got(Some(2), 3)))), (Put(2), 3, None)], "before it was asked"),
            (vec![put, (Swap(Some(1), 9), 5, Some((6, Otherwise(2))))], "not done"),
            (vec![put, (Put(1), 1, Some((3, Done(2))))], "in the past"),
        ] {
            let told = check(&wrong).expect_err(why);
            assert!(told.contains(why), "{told}");
        }
    }
}
