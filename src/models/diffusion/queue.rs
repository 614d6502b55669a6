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
    /// Items by their size, each with its number in the order of arrival.
    waiting: BTreeMap<Size, VecDeque<(u64, T)>>,
    arrived: u64,
    reserved: usize,
    closed: bool,
}

/// Announces an item that may arrive soon. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation<T>(Arc<AdmissionQueue<T>>);

impl<T> AdmissionQueue<T> {
    pub(super) fn new() -> Self {
        let state = State { waiting: BTreeMap::new(), arrived: 0, reserved: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Announces an item. Batches with free slots wait for it until the reservation is dropped.
    pub(super) fn reserve(self: &Arc<Self>) -> Reservation<T> {
        self.state().reserved += 1;
        Reservation(Arc::clone(self))
    }

    pub(super) fn push(&self, size: Size, item: T) {
        let mut state = self.state();
        state.arrived += 1;
        let number = state.arrived;
        state.waiting.entry(size).or_default().push_back((number, item));
        self.changed.notify_all();
    }

    /// Takes the items that fit into a batch: into the free slots of the `running` one, which has a size, or into a new one
    /// with `slots` for its size. A new batch gets the size of the item that has waited longest.
    ///
    /// Blocks while a call of the UNet would be wasteful: if there is nothing to run, or if the batch is not full and more
    /// items are reserved. Returns `None` once the queue is closed.
    pub(super) fn take(&self, running: Option<(Size, usize)>, slots: impl Fn(Size) -> usize) -> Option<(Size, Vec<T>)> {
        let (mut batch, mut taken) = (running, Vec::new());
        let mut state = self.state();
        while !state.closed {
            batch = batch.or_else(|| state.oldest().map(|size| (size, slots(size))));
            if let Some((size, free)) = &mut batch {
                let items = state.take(*size, *free);
                *free -= items.len();
                taken.extend(items);
                if *free == 0 || state.reserved == 0 {
                    return Some((*size, taken));
                }
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

impl<T> State<T> {
    /// Returns the size of the item that has waited longest.
    fn oldest(&self) -> Option<Size> {
        let first = |(size, items): (&Size, &VecDeque<(u64, T)>)| Some((items.front()?.0, *size));
        self.waiting.iter().filter_map(first).min_by_key(|(number, _)| *number).map(|(_, size)| size)
    }

    /// Takes up to `count` items of a size.
    fn take(&mut self, size: Size, count: usize) -> Vec<T> {
        let Some(items) = self.waiting.get_mut(&size) else { return Vec::new() };
        items.drain(..count.min(items.len())).map(|(_, item)| item).collect()
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
    fn a_running_batch_gets_items_of_its_size() {
        let queue = AdmissionQueue::new();
        queue.push(LARGE, 9);
        for number in 0..5 {
            queue.push(SMALL, number);
        }
        assert_eq!(queue.take(Some((SMALL, 2)), |_| 4).unwrap(), (SMALL, vec![0, 1]));
        assert_eq!(queue.take(Some((SMALL, 0)), |_| 4).unwrap(), (SMALL, vec![]), "a full batch goes on");
        assert_eq!(queue.take(None, |_| 4).unwrap(), (LARGE, vec![9]), "it has waited longest");
        assert_eq!(queue.take(None, |_| 2).unwrap(), (SMALL, vec![2, 3]), "a new batch has two slots");
        assert_eq!(queue.take(Some((LARGE, 3)), |_| 4).unwrap(), (LARGE, vec![]), "a running batch goes on");
    }

    #[test]
    fn a_batch_with_free_slots_waits_for_reserved_items() {
        let queue = Arc::new(AdmissionQueue::new());
        let reservations = [queue.reserve(), queue.reserve()];
        thread::scope(|scope| {
            let taken = scope.spawn(|| queue.take(None, |_| 4));
            thread::sleep(Duration::from_millis(20));
            queue.push(SMALL, 1);
            let [first, second] = reservations;
            drop(first);
            thread::sleep(Duration::from_millis(20));
            assert!(!taken.is_finished(), "a second item may arrive");
            drop(second);
            assert_eq!(taken.join().unwrap(), Some((SMALL, vec![1])));
        });
    }

    #[test]
    fn closing_ends_every_wait() {
        let queue = AdmissionQueue::<u32>::new();
        thread::scope(|scope| {
            let taken = scope.spawn(|| queue.take(None, |_| 4));
            queue.close();
            assert_eq!(taken.join().unwrap(), None);
        });
    }
}
