//! A thread that owns models, and the async callers that share it.
//!
//! A model runs on one thread at a time. Callers send it their requests and wait. The number of unanswered requests is
//! bounded, so that a fast caller is held back and memory does not grow. The thread ends when the last handle is dropped.

use std::{
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
};

use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel},
    oneshot,
};

use super::OnnxError;
use crate::error;

/// The callers' handle. Dropping it waits until the thread has finished its current work.
#[derive(Debug)]
pub(crate) struct Service<E> {
    /// `None` only while the service is dropped.
    sender: Option<UnboundedSender<E>>,
    thread: Option<JoinHandle<()>>,
    room: Arc<Semaphore>,
    failure: Failure,
}

/// Lets other threads send events to the thread. Does not keep the thread alive.
#[derive(Debug)]
pub(crate) struct Sender<E>(WeakUnboundedSender<E>);

/// Why a service stopped, for all waiting and all later callers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<OnceLock<String>>);

/// The thread's receiver of events.
#[derive(Debug)]
pub(crate) struct Inbox<E> {
    receiver: UnboundedReceiver<E>,
    sender: Sender<E>,
    failure: Failure,
}

/// Sends a response to a caller. Holds the caller's place in the queue until it is sent or dropped.
#[derive(Debug)]
pub(crate) struct Reply<R> {
    sender: oneshot::Sender<R>,
    _place: OwnedSemaphorePermit,
}

impl<E: Send + 'static> Service<E> {
    /// Starts a thread that accepts up to `queue` unanswered requests.
    ///
    /// # Errors
    /// Returns [`OnnxError::Thread`] if the operating system cannot start a thread.
    pub(crate) fn start(
        name: &str,
        queue: usize,
        work: impl FnOnce(Inbox<E>) + Send + 'static,
    ) -> Result<Self, OnnxError> {
        let (sender, receiver) = unbounded_channel();
        let failure = Failure::default();
        let inbox = Inbox { receiver, sender: Sender(sender.downgrade()), failure: failure.clone() };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(inbox))
            .map_err(|source| OnnxError::Thread { name: name.to_owned(), source })?;
        let room = Arc::new(Semaphore::new(queue.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { sender: Some(sender), thread: Some(thread), room, failure })
    }

    /// Waits for a place in the queue, sends a request, and waits for the response. Dropping the future cancels the
    /// request, unless the thread is already working on it.
    ///
    /// # Errors
    /// Returns the reason if the thread has stopped.
    pub(crate) async fn call<R>(&self, request: impl FnOnce(Reply<R>) -> E) -> Result<R, String> {
        let place = Arc::clone(&self.room).acquire_owned().await.map_err(|_| self.reason())?;
        let (sender, receiver) = oneshot::channel();
        let event = request(Reply { sender, _place: place });
        let inbox = self.sender.as_ref().ok_or_else(|| self.reason())?;
        inbox.send(event).map_err(|_| self.reason())?;
        receiver.await.map_err(|_| self.reason())
    }

    fn reason(&self) -> String {
        self.failure.0.get().cloned().unwrap_or_else(|| "its thread panicked".to_owned())
    }
}

impl<E> Drop for Service<E> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened. Waiting is necessary: the runtime must not be torn
            // down while a model runs.
            let _ = thread.join();
        }
    }
}

impl<E> Inbox<E> {
    /// Waits for the next event; `None` once the last handle to the service is dropped.
    pub(crate) fn wait(&mut self) -> Option<E> {
        self.receiver.blocking_recv()
    }

    /// Returns the next event if it has already arrived.
    pub(crate) fn try_next(&mut self) -> Option<E> {
        self.receiver.try_recv().ok()
    }

    /// Whether the last handle to the service was dropped.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.receiver.is_closed()
    }

    /// Returns where the thread reports why it stops early.
    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// Returns a sender for other threads.
    pub(crate) fn sender(&self) -> Sender<E> {
        Sender(self.sender.0.clone())
    }
}

impl<E> Sender<E> {
    /// Sends an event, unless the thread has ended or the last handle to the service was dropped.
    pub(crate) fn send(&self, event: E) {
        let _ = self.0.upgrade().map(|sender| sender.send(event));
    }
}

impl Failure {
    /// Records a reason; the first one stays. Must be called while the replies of waiting callers still exist.
    pub(crate) fn set(&self, error: &dyn std::error::Error) {
        let _ = self.0.set(error::chain(error));
    }
}

impl<R> Reply<R> {
    /// Whether the caller is still waiting.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends the response.
    pub(crate) fn send(self, response: R) {
        // The caller may have gone away.
        let _ = self.sender.send(response);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use super::*;

    type Doubling = (u32, Reply<u32>);

    #[tokio::test]
    async fn requests_are_answered_and_the_thread_ends() {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let service = Service::start("test", 2, move |mut inbox: Inbox<Doubling>| {
            while let Some((number, reply)) = inbox.wait() {
                reply.send(2 * number);
            }
            flag.store(true, Ordering::SeqCst);
        })
        .unwrap();
        for number in 0..10 {
            assert_eq!(service.call(|reply| (number, reply)).await, Ok(2 * number));
        }
        drop(service);
        assert!(ended.load(Ordering::SeqCst), "dropping waits for the thread");
    }

    #[tokio::test]
    async fn a_failure_reaches_waiting_and_later_callers() {
        let service = Service::start("test", 2, |mut inbox: Inbox<Doubling>| {
            let _request = inbox.wait();
            inbox.failure().set(&io::Error::other("out of order"));
        })
        .unwrap();
        for number in 0..2 {
            assert_eq!(service.call(|reply| (number, reply)).await, Err("out of order".to_owned()));
        }
    }

    #[tokio::test]
    async fn a_panic_reaches_waiting_and_later_callers() {
        let service = Service::start("test", 2, |mut inbox: Inbox<Doubling>| {
            let _request = inbox.wait();
            panic!("a bug");
        })
        .unwrap();
        for number in 0..2 {
            assert_eq!(service.call(|reply| (number, reply)).await, Err("its thread panicked".to_owned()));
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_dropped_future_returns_its_place() {
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let service = Service::start("test", 1, move |mut inbox: Inbox<Doubling>| {
            let _ = gate.recv();
            while let Some((number, reply)) = inbox.wait() {
                if reply.is_wanted() {
                    reply.send(number);
                }
            }
        })
        .unwrap();
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, service.call(|reply| (1, reply))).await.is_err());
        assert_eq!(service.room.available_permits(), 0, "a request that was sent holds its place");
        assert!(tokio::time::timeout(short, service.call(|reply| (2, reply))).await.is_err(), "the queue is full");
        go.send(()).unwrap();
        assert_eq!(service.call(|reply| (3, reply)).await, Ok(3));
    }
}
