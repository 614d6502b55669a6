//! Where prepared jobs wait for a slot in a running batch, and running batches for jobs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::img2img::Size;

/// The line of an engine. Items of one size leave it in the order in which they came.
#[derive(Debug)]
pub(super) struct Line<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: BTreeMap<Size, VecDeque<T>>,
    announced: usize,
    closed: bool,
}

/// Says that an item may come to the line soon, for as long as it lives.
#[derive(Debug)]
pub(super) struct Announced<T>(Arc<Line<T>>);

impl<T> Line<T> {
    pub(super) fn new() -> Self {
        let state = State { waiting: BTreeMap::new(), announced: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Announces an item: batches that have room wait for it.
    pub(super) fn announce(self: &Arc<Self>) -> Announced<T> {
        self.state().announced += 1;
        Announced(Arc::clone(self))
    }

    /// Lines up an item.
    pub(super) fn put(&self, size: Size, item: T) {
        self.state().waiting.entry(size).or_default().push_back(item);
        self.changed.notify_all();
    }

    /// Items for batches that have `room`, a number for each size that runs, and that have `slots` for a new one.
    /// Waits while running them would be a waste: nothing runs, or no batch is full and more is announced.
    /// `None` once the line is closed.
    pub(super) fn take(&self, mut room: BTreeMap<Size, usize>, slots: usize) -> Option<Vec<(Size, T)>> {
        let mut taken = Vec::new();
        let mut state = self.state();
        while !state.closed {
            for (&size, waiting) in &mut state.waiting {
                let free = room.entry(size).or_insert(slots);
                let leaving = waiting.len().min(*free);
                *free -= leaving;
                taken.extend(waiting.drain(..leaving).map(|item| (size, item)));
            }
            state.waiting.retain(|_, waiting| !waiting.is_empty());
            let full = room.values().any(|&free| free == 0);
            if full || (!room.is_empty() && state.announced == 0) {
                return Some(taken);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Ends the line, and drops what is in it.
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

impl<T> Drop for Announced<T> {
    fn drop(&mut self) {
        self.0.state().announced -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    const SMALL: Size = Size { width: 1, height: 1 };
    const LARGE: Size = Size { width: 2, height: 2 };

    #[test]
    fn items_fill_the_room_of_their_size() {
        let line = Line::new();
        for number in 0..5 {
            line.put(SMALL, number);
        }
        line.put(LARGE, 9);
        let taken = line.take(BTreeMap::from([(SMALL, 2)]), 4).unwrap();
        assert_eq!(taken, [(SMALL, 0), (SMALL, 1), (LARGE, 9)]);
        assert_eq!(line.take(BTreeMap::new(), 4).unwrap(), [(SMALL, 2), (SMALL, 3), (SMALL, 4)]);
        assert_eq!(line.take(BTreeMap::from([(LARGE, 3)]), 4).unwrap(), [], "what runs goes on");
    }

    #[test]
    fn a_batch_with_room_waits_for_what_is_announced() {
        let line = Arc::new(Line::new());
        let announced = [line.announce(), line.announce()];
        thread::scope(|scope| {
            let taken = scope.spawn(|| line.take(BTreeMap::new(), 4));
            thread::sleep(Duration::from_millis(20));
            line.put(SMALL, 1);
            let [first, second] = announced;
            drop(first);
            thread::sleep(Duration::from_millis(20));
            assert!(!taken.is_finished(), "a second may come");
            drop(second);
            assert_eq!(taken.join().unwrap(), Some(vec![(SMALL, 1)]));
        });
    }

    #[test]
    fn closing_ends_every_wait() {
        let line = Line::<u32>::new();
        thread::scope(|scope| {
            let taken = scope.spawn(|| line.take(BTreeMap::new(), 4));
            line.close();
            assert_eq!(taken.join().unwrap(), None);
        });
    }
}
