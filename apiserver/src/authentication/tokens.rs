//! What all kinds of tokens share: whom they are for, and answers about them that are remembered for a while.

use super::service_account::Refused;
use crate::outbound::remembered::{self, Key};
use crate::request::UserInfo;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Tokens that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// The user of a token and the audiences that it is for, or why it is refused: nothing where nobody has a word to say of it.
pub type Answered = Result<(UserInfo, Vec<String>), String>;

/// Remembers answers.
pub struct Remembered {
    answers: remembered::Remembered<Answered>,
    /// How long that a token is good is remembered, and that it is not.
    good: Duration,
    bad: Duration,
}

/// What a token is known by.
fn key(token: &str, audiences: &[String]) -> Key {
    let mut digest = Sha256::new();
    digest.update(token);
    for audience in audiences {
        digest.update([0]);
        digest.update(audience);
    }
    digest.finalize().into()
}

/// Those of the wanted `audiences` that a token is for.
///
/// # Errors
/// It is for none of them.
pub fn fitting(audiences: &[String], of: &[String]) -> Result<Vec<String>, String> {
    let fitting: Vec<String> = audiences.iter().filter(|wanted| of.contains(wanted)).cloned().collect();
    if fitting.is_empty() {
        return Err(format!("token audiences {of:?} is invalid for the target audiences {audiences:?}"));
    }
    Ok(fitting)
}

fn refused(why: String) -> Refused {
    if why.is_empty() { Refused::Token(super::jwt::TokenError::Malformed) } else { Refused::Claims(why) }
}

impl Remembered {
    /// For so long.
    #[must_use]
    pub fn new(good: Duration, bad: Duration) -> Self {
        Self { answers: remembered::Remembered::new(REMEMBERED_MAX), good, bad }
    }

    /// What is remembered of a token, or else what `ask` answers, which is remembered then. That nobody answers is not.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn or(
        &self,
        token: &str,
        audiences: &[String],
        ask: impl Future<Output = Result<Answered, Refused>>,
    ) -> Result<(UserInfo, Vec<String>), Refused> {
        let key = key(token, audiences);
        if let Some(known) = self.answers.get(&key) {
            return known.map_err(refused);
        }
        let answered = ask.await?;
        self.answers.put(key, &answered, if answered.is_ok() { self.good } else { self.bad });
        answered.map_err(refused)
    }
}
