//! The admission queue: encoded requests wait here for a free slot, and batches wait for requests.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::latents::Size;

/// An engine's queue. Items of one size leave it in the order in which they arrived.
#[derive(Debug)]
pub(super) struct AdmissionQueue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: BTreeMap<Size, VecDeque<T>>,
    reserved: usize,
    closed: bool,
}

/// Announces an item that may arrive soon. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation<T>(Arc<AdmissionQueue<T>>);

impl<T> AdmissionQueue<T> {
    pub(super) fn new() -> Self {
        let state = State { waiting: BTreeMap::new(), reserved: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Announces an item. Batches with free slots wait for it until the reservation is dropped.
    pub(super) fn reserve(self: &Arc<Self>) -> Reservation<T> {
        self.state().reserved += 1;
        Reservation(Arc::clone(self))
    }

    pub(super) fn push(&self, size: Size, item: T) {
        self.state().waiting.entry(size).or_default().push_back(item);
        self.changed.notify_all();
    }

    /// Takes the items that fit: `free` has the number of free slots of each running batch, and a new batch has `slots`.
    ///
    /// Blocks while a call of the UNet would be wasteful: if nothing runs, or if no batch is full and more items are
    /// reserved. Returns `None` once the queue is closed.
    pub(super) fn take(&self, mut free: BTreeMap<Size, usize>, slots: usize) -> Option<Vec<(Size, T)>> {
        let mut taken = Vec::new();
        let mut state = self.state();
        while !state.closed {
            for (&size, waiting) in &mut state.waiting {
                let free = free.entry(size).or_insert(slots);
                let leaving = waiting.len().min(*free);
                *free -= leaving;
                taken.extend(waiting.drain(..leaving).map(|item| (size, item)));
            }
            state.waiting.retain(|_, waiting| !waiting.is_empty());
            let full = free.values().any(|&free| free == 0);
            if full || (!free.is_empty() && state.reserved == 0) {
                return Some(taken);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Closes the queue and drops its items.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        self.0.state().reserved -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    const SMALL: Size = Size { width: 1, height: 1 };
    const LARGE: Size = Size { width: 2, height: 2 };

    #[test]
    fn items_fill_the_free_slots_of_their_size() {
        let queue = AdmissionQueue::new();
        for number in 0..5 {
            queue.push(SMALL, number);
        }
        queue.push(LARGE, 9);
        let taken = queue.take(BTreeMap::from([(SMALL, 2)]), 4).unwrap();
        assert_eq!(taken, [(SMALL, 0), (SMALL, 1), (LARGE, 9)]);
        assert_eq!(queue.take(BTreeMap::new(), 4).unwrap(), [(SMALL, 2), (SMALL, 3), (SMALL, 4)]);
        assert_eq!(queue.take(BTreeMap::from([(LARGE, 3)]), 4).unwrap(), [], "a running batch goes on");
    }

    #[test]
    fn a_batch_with_free_slots_waits_for_reserved_items() {
        let queue = Arc::new(AdmissionQueue::new());
        let reservations = [queue.reserve(), queue.reserve()];
        thread::scope(|scope| {
            let taken = scope.spawn(|| queue.take(BTreeMap::new(), 4));
            thread::sleep(Duration::from_millis(20));
            queue.push(SMALL, 1);
            let [first, second] = reservations;
            drop(first);
            thread::sleep(Duration::from_millis(20));
            assert!(!taken.is_finished(), "a second item may arrive");
            drop(second);
            assert_eq!(taken.join().unwrap(), Some(vec![(SMALL, 1)]));
        });
    }

    #[test]
    fn closing_ends_every_wait() {
        let queue = AdmissionQueue::<u32>::new();
        thread::scope(|scope| {
            let taken = scope.spawn(|| queue.take(BTreeMap::new(), 4));
            queue.close();
            assert_eq!(taken.join().unwrap(), None);
        });
    }
}
