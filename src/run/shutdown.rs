//! Asking a run to stop: it begins nothing more, finishes and commits what it has begun, and ends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// Shared by a run and whoever may stop it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<State>);

#[derive(Debug, Default)]
struct State {
    asked: AtomicBool,
    told: Notify,
}

impl Stop {
    /// Asks the run to stop.
    pub fn ask(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        self.0.told.notify_waiters();
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Waits until it is asked.
    pub async fn asked(&self) {
        let told = self.0.told.notified();
        let mut told = std::pin::pin!(told);
        // before the flag is looked at: who asks in between is heard
        told.as_mut().enable();
        if !self.is_asked() {
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told_before_or_after() {
        let stop = Stop::default();
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.asked().await }
        });
        tokio::task::yield_now().await;
        assert!(!stop.is_asked() && !waiting.is_finished());
        stop.ask();
        waiting.await.unwrap();
        stop.asked().await;
    }
}
