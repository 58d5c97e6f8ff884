//! What an evaluation does beside what its cost tells.
//!
//! In: steps over values, as they are taken. Out: that there were too many. Invariant: values whose parts are shared are as
//! large as trees as what is made of them, so every step of a walk over them is counted before it is taken.

use super::value::{Fault, Value};

/// Steps that cost as much as one operation: they are as cheap as a character of a text.
const STEPS_OF_ONE: u64 = 10;
/// Characters of a text that are gone over in one step.
const TEXT_OF_ONE: usize = 256;

/// Steps, taken and left.
#[derive(Debug)]
pub struct Work {
    taken: u64,
    most: u64,
}

impl Work {
    /// As many steps as an evaluation may take that may cost so much.
    pub fn within(cost: u64) -> Self {
        Self { taken: 0, most: cost.saturating_mul(STEPS_OF_ONE) }
    }

    /// Takes some steps.
    ///
    /// # Errors
    /// There are none left.
    pub fn step(&mut self, steps: u64) -> Result<(), Fault> {
        self.taken = self.taken.saturating_add(steps);
        if self.taken > self.most { Err(Fault::Limit) } else { Ok(()) }
    }

    /// Goes over the texts among some values once.
    ///
    /// # Errors
    /// There are no steps left.
    pub fn look(&mut self, values: &[Value<'_>]) -> Result<(), Fault> {
        let steps = values.iter().map(|value| match value {
            Value::Text(text) => text.len() / TEXT_OF_ONE,
            Value::Bytes(bytes) => bytes.len() / TEXT_OF_ONE,
            _ => 0,
        });
        self.step(steps.sum::<usize>() as u64)
    }

    /// The steps so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// What the steps since then cost.
    pub fn cost_since(&self, taken: u64) -> u64 {
        (self.taken - taken) / STEPS_OF_ONE
    }
}
