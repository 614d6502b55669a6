//! What models have already made, kept so that it is made once.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map of at most `capacity` entries; the oldest leaves first. A result may never depend on whether it was
/// found here, so forgetting costs time and nothing else.
#[derive(Debug)]
pub(crate) struct Memo<K, V> {
    entries: HashMap<K, V>,
    oldest_first: VecDeque<K>,
    capacity: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Memo<K, V> {
    /// An empty memo for `capacity` entries, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), oldest_first: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// The value made for this key, if it is still known.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key).cloned()
    }

    /// Keeps a value; a key that is there gets the new value and keeps its age.
    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.oldest_first.push_back(key);
        }
        while self.oldest_first.len() > self.capacity {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_first() {
        let mut memo = Memo::new(2);
        memo.put("a", 1);
        memo.put("b", 2);
        memo.put("a", 3);
        memo.put("c", 4);
        assert_eq!((memo.get(&"a"), memo.get(&"b"), memo.get(&"c")), (None, Some(2), Some(4)));
    }
}
