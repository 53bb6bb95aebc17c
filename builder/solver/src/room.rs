//! Which processes may run beside each other, as far as memory goes.
//!
//! A process whose earlier run took much memory has a *weight*; one that took little, or of which nothing is known, has none.
//! One with a weight starts beside others only where the weights of all that run, and its own, fit into the memory that was
//! there when somebody looked last.
//!
//! - Something always runs: alone, or alone among those with a weight, a process starts whatever its weight is.
//! - Nobody waits for ever: the first one that does not fit is the next one with a weight to start. Those without one
//!   take no room, so they may go on before it.
//! - Where one process follows the other, nothing is asked and nothing is weighed.

use std::collections::{BTreeMap, BTreeSet};

use crate::Id;

/// The processes that run, and what is known of their memory.
#[derive(Debug, Default)]
pub(crate) struct Room {
    running: BTreeSet<Id>,
    weights: BTreeMap<Id, Weight>,
    memory: Memory,
    /// Did not fit, and is the next one with a weight to start.
    first: Option<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// The driver was asked.
    Asked,
    Known(u64),
}

/// How much memory there is for those that run and further ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Memory {
    #[default]
    Unknown,
    /// The driver was asked.
    Asked,
    Known(u64),
}

/// Whether a process may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Start,
    Wait,
    /// It depends on the weight of this one.
    Weigh(Id),
    /// It depends on the memory that there is.
    Measure,
}

impl Room {
    /// How many processes run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether a process that is ready may start. What is answered to be asked for is taken as asked for.
    pub fn may_start(&mut self, id: Id) -> Answer {
        if self.running.is_empty() {
            return Answer::Start;
        }
        let mut claimed: u64 = 0;
        for one in &self.running {
            match self.weights.get(one) {
                None => return self.weigh(*one),
                Some(Weight::Asked) => return Answer::Wait,
                Some(Weight::Known(weight)) => claimed = claimed.saturating_add(*weight),
            }
        }
        let own = match self.weights.get(&id) {
            None => return self.weigh(id),
            Some(Weight::Asked) => return Answer::Wait,
            Some(Weight::Known(weight)) => *weight,
        };
        if own == 0 {
            return Answer::Start;
        }
        if self.first.is_some_and(|first| first != id) {
            return Answer::Wait;
        }
        if claimed == 0 {
            return Answer::Start;
        }
        match self.memory {
            Memory::Unknown => {
                self.memory = Memory::Asked;
                Answer::Measure
            }
            Memory::Asked => Answer::Wait,
            Memory::Known(bytes) if claimed.saturating_add(own) <= bytes => Answer::Start,
            Memory::Known(_) => {
                self.first = Some(id);
                Answer::Wait
            }
        }
    }

    fn weigh(&mut self, id: Id) -> Answer {
        self.weights.insert(id, Weight::Asked);
        Answer::Weigh(id)
    }

    /// A process takes so much memory; 0 is little, or nobody knows.
    pub fn weighed(&mut self, id: Id, bytes: u64) {
        self.weights.insert(id, Weight::Known(bytes));
    }

    /// There is so much memory.
    pub fn measured(&mut self, bytes: u64) {
        self.memory = Memory::Known(bytes);
    }

    /// A process runs.
    pub fn started(&mut self, id: Id) {
        self.running.insert(id);
        self.let_pass(id);
    }

    /// A process does not run any more.
    pub fn ended(&mut self, id: Id) {
        if self.running.remove(&id) {
            // What it had is free, and the others may have grown.
            self.memory = Memory::Unknown;
        }
    }

    /// A process that was ready is not wanted any more.
    pub fn let_pass(&mut self, id: Id) {
        if self.first == Some(id) {
            self.first = None;
        }
    }
}
