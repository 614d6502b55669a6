//! Reports the progress of fetches to a person who waits.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use crate::error::text::bytes;

/// How often progress is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(15);

/// Receives progress as lines of text. The default ignores them.
#[derive(Clone, Default)]
pub(crate) struct FetchProgress(Option<Arc<Listener>>);

type Listener = dyn Fn(&str) + Send + Sync;

impl FetchProgress {
    /// Calls `listener` with each line.
    pub(crate) fn new(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn report(&self, line: &str) {
        if let Some(listener) = &self.0 {
            listener(line);
        }
    }
}

impl fmt::Debug for FetchProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FetchProgress").field(&self.0.is_some()).finish()
    }
}

/// Watches a fetch and reports its progress.
pub(super) struct Watch<'a> {
    what: &'a str,
    total: u64,
    fetched: &'a Arc<AtomicU64>,
    progress: &'a FetchProgress,
    /// Consecutive intervals in which no data arrived.
    silent: u32,
}

impl<'a> Watch<'a> {
    /// Watches a fetch of `total` bytes, which are counted in `fetched` as they arrive.
    pub(super) fn new(what: &'a str, total: u64, fetched: &'a Arc<AtomicU64>, progress: &'a FetchProgress) -> Self {
        Self { what, total, fetched, progress, silent: 0 }
    }

    /// Waits for `work` and reports progress in intervals.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            if let Some(done) = self.wait(&mut work).await {
                return done;
            }
        }
    }

    /// As [`Watch::during`], but returns `None` after `max_silent` intervals without data.
    pub(super) async fn unless_silent<T>(&mut self, max_silent: u32, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        self.silent = 0;
        while self.silent < max_silent {
            if let Some(done) = self.wait(&mut work).await {
                return Some(done);
            }
        }
        None
    }

    async fn wait<T>(&mut self, work: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let before = self.fetched.load(Ordering::Relaxed);
        if let Ok(done) = timeout(REPORT_INTERVAL, work).await {
            return Some(done);
        }
        let now = self.fetched.load(Ordering::Relaxed);
        self.silent = if now == before { self.silent + 1 } else { 0 };
        // Data that is fetched again is counted twice.
        self.progress.report(&format!("{}: {} of {}", self.what, bytes(now.min(self.total)), bytes(self.total)));
        None
    }
}

/// Formats a number of files.
pub(super) fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}
