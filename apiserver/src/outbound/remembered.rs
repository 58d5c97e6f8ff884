//! Answers of other servers that are remembered for a while, by the digests of what was asked: however long a question is,
//! and whatever secret stands in it, its answer takes the same place.

use coracle_daemon::clock::Instant;
use coracle_daemon::panics::Mutex;
use std::collections::HashMap;
use std::time::Duration;

/// SHA-256 of a question.
pub type Key = [u8; 32];

/// Remembers answers.
pub struct Remembered<T> {
    answers: Mutex<HashMap<Key, (Instant, T)>>,
    most: usize,
}

impl<T: Clone> Remembered<T> {
    /// No more than `most` at a time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { answers: Mutex::default(), most }
    }

    /// The answer, if it is remembered.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<T> {
        let answers = self.answers.lock();
        let (until, answer) = answers.get(key)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    /// Remembers an answer for so long.
    pub fn put(&self, key: Key, answer: &T, life: Duration) {
        if life.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut answers = self.answers.lock();
        if answers.len() >= self.most {
            answers.retain(|_, (until, _)| *until > now);
            if answers.len() >= self.most {
                answers.clear();
            }
        }
        answers.insert(key, (now + life, answer.clone()));
    }
}
