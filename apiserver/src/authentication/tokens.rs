//! Answers about tokens that are remembered for a while, by the tokens' digests.

use crate::request::UserInfo;
use coracle_daemon::clock::Instant;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::Duration;

/// Tokens that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// The user of a token and the audiences that it is for, or why it is refused.
pub type Answered = Result<(UserInfo, Vec<String>), String>;

type Key = [u8; 32];

/// Remembers answers.
pub struct Remembered {
    answers: Mutex<HashMap<Key, (Instant, Answered)>>,
    /// How long that a token is good is remembered, and that it is not.
    good: Duration,
    bad: Duration,
}

/// What a token is known by.
#[must_use]
pub fn key(token: &str, audiences: &[String]) -> Key {
    let mut digest = Sha256::new();
    digest.update(token);
    for audience in audiences {
        digest.update([0]);
        digest.update(audience);
    }
    digest.finalize().into()
}

impl Remembered {
    /// For so long.
    #[must_use]
    pub fn new(good: Duration, bad: Duration) -> Self {
        Self { answers: Mutex::default(), good, bad }
    }

    /// The answer, if it is remembered.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Answered> {
        let answers = self.answers.lock();
        let (until, answer) = answers.get(key)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    /// Remembers an answer.
    pub fn put(&self, key: Key, answer: &Answered) {
        let now = Instant::now();
        let life = if answer.is_ok() { self.good } else { self.bad };
        if life.is_zero() {
            return;
        }
        let mut answers = self.answers.lock();
        if answers.len() >= REMEMBERED_MAX {
            answers.retain(|_, (until, _)| *until > now);
            if answers.len() >= REMEMBERED_MAX {
                answers.clear();
            }
        }
        answers.insert(key, (now + life, answer.clone()));
    }
}
