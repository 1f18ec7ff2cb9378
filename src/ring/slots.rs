//! What is in flight: one slot per operation, holding what the operation owns until it completes.

use std::time::Instant;

use super::op::{Op, Token};

/// A table of operations in flight; `S` is what the driver has to remember of each.
#[derive(Debug)]
pub(super) struct Slots<S> {
    entries: Vec<Option<Slot<S>>>,
    free: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) token: Token,
    pub(super) op: Op,
    pub(super) submitted: Instant,
    pub(super) state: S,
}

impl<S> Slots<S> {
    pub(super) fn new() -> Slots<S> {
        Slots { entries: Vec::new(), free: Vec::new() }
    }

    /// Takes an operation in and returns its slot.
    pub(super) fn insert(&mut self, token: Token, op: Op, submitted: Instant, state: S) -> u32 {
        debug_assert!(self.find(token).is_none(), "{token:?} is in flight already");
        let slot = Some(Slot { token, op, submitted, state });
        match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = slot;
                index
            }
            None => {
                self.entries.push(slot);
                (self.entries.len() - 1) as u32
            }
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Slot<S>> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// Takes a completed operation out; what it owned goes to the caller.
    pub(super) fn remove(&mut self, index: u32) -> Option<Slot<S>> {
        let slot = self.entries.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(slot)
    }

    /// The slot of the operation with this name, if it is in flight.
    pub(super) fn find(&self, token: Token) -> Option<u32> {
        let named = |slot: &Option<Slot<S>>| slot.as_ref().is_some_and(|slot| slot.token == token);
        self.entries.iter().position(named).map(|index| index as u32)
    }

    /// Every slot in use.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Slot<S>)> {
        let numbered = self.entries.iter_mut().enumerate();
        numbered.filter_map(|(index, slot)| Some((index as u32, slot.as_mut()?)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.entries.len()
    }
}
