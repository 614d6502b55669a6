//! What a person is told while they wait.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::error::text::bytes;

/// How often somebody who waits is told how far it is.
const NOTE_EVERY: Duration = Duration::from_secs(15);

/// Takes one line of text at a time. The default says nothing to nobody.
#[derive(Clone, Default)]
pub struct Notes(Option<Arc<Listener>>);

/// Who hears what is fetched.
type Listener = dyn Fn(&str) + Send + Sync;

impl Notes {
    /// Notes that `say` takes.
    pub fn new(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(say)))
    }

    pub(super) fn say(&self, line: &str) {
        if let Some(say) = &self.0 {
            say(line);
        }
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notes").field(&self.0.is_some()).finish()
    }
}

/// A fetch that is waited for, with what has come of it so far.
pub(super) struct Waiting<'a> {
    what: &'a str,
    total: u64,
    fetched: &'a Arc<AtomicU64>,
    notes: &'a Notes,
    /// How often in a row nothing more had come.
    silences: u32,
}

impl<'a> Waiting<'a> {
    /// A fetch of `total` bytes, which are counted in `fetched` as they come.
    pub(super) fn new(what: &'a str, total: u64, fetched: &'a Arc<AtomicU64>, notes: &'a Notes) -> Self {
        Self { what, total, fetched, notes, silences: 0 }
    }

    /// Waits for `work`, and says now and then how far all of it is.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            if let Some(done) = self.wait(&mut work).await {
                return done;
            }
        }
    }

    /// As [`Waiting::during`], but none where nothing has come for `silences` times 15 seconds.
    pub(super) async fn unless_silent<T>(&mut self, silences: u32, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        self.silences = 0;
        while self.silences < silences {
            if let Some(done) = self.wait(&mut work).await {
                return Some(done);
            }
        }
        None
    }

    async fn wait<T>(&mut self, work: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let before = self.fetched.load(Ordering::Relaxed);
        if let Ok(done) = timeout(NOTE_EVERY, work).await {
            return Some(done);
        }
        let now = self.fetched.load(Ordering::Relaxed);
        self.silences = if now == before { self.silences + 1 } else { 0 };
        // what is tried a second time is counted twice
        self.notes.say(&format!("{}: {} of {}", self.what, bytes(now.min(self.total)), bytes(self.total)));
        None
    }
}

/// A number of files in words.
pub(super) fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}
