//! A thread that owns models, and the async callers who share it.
//!
//! A model runs on one thread at a time. Callers send it their rows and wait; how many may wait is bounded, so
//! that a fast reader is held back and not remembered. The thread ends when nobody holds the service any more.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The callers' side. Dropping it waits until the thread has finished what it is in the middle of.
#[derive(Debug)]
pub(crate) struct Service<E> {
    /// Taken out only when the service is dropped.
    sender: Option<UnboundedSender<E>>,
    thread: Option<JoinHandle<()>>,
    room: Arc<Semaphore>,
    failure: Failure,
}

/// A way for work beside the thread to send it events. It does not keep the thread alive.
#[derive(Debug)]
pub(crate) struct Sender<E>(WeakUnboundedSender<E>);

/// Why a service ended early: for every caller who waits and every later one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure(Arc<OnceLock<String>>);

/// The thread's side: what has arrived.
#[derive(Debug)]
pub(crate) struct Inbox<E> {
    receiver: UnboundedReceiver<E>,
    sender: Sender<E>,
    failure: Failure,
}

/// Where an answer goes. It holds its caller's place in the queue until it is sent or dropped.
#[derive(Debug)]
pub(crate) struct Reply<R> {
    sender: oneshot::Sender<R>,
    _place: OwnedSemaphorePermit,
}

impl<E: Send + 'static> Service<E> {
    /// Starts a thread with room for `queue` unanswered questions.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(name: &str, queue: usize, work: impl FnOnce(Inbox<E>) + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = unbounded_channel();
        let failure = Failure::default();
        let inbox = Inbox { receiver, sender: Sender(sender.downgrade()), failure: failure.clone() };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(inbox))?;
        let room = Arc::new(Semaphore::new(queue.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { sender: Some(sender), thread: Some(thread), room, failure })
    }

    /// Asks and waits, first for room in the queue and then for the answer. Dropping the future takes the
    /// question back, unless it is being answered.
    ///
    /// # Errors
    /// Why the thread ended, if it did.
    pub(crate) async fn ask<R>(&self, question: impl FnOnce(Reply<R>) -> E) -> Result<R, String> {
        let place = Arc::clone(&self.room).acquire_owned().await.map_err(|_| self.reason())?;
        let (sender, receiver) = oneshot::channel();
        let event = question(Reply { sender, _place: place });
        let inbox = self.sender.as_ref().ok_or_else(|| self.reason())?;
        inbox.send(event).map_err(|_| self.reason())?;
        receiver.await.map_err(|_| self.reason())
    }

    fn reason(&self) -> String {
        self.failure.0.get().cloned().unwrap_or_else(|| "its thread ended early".to_owned())
    }
}

impl<E> Drop for Service<E> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened. Waiting matters: the runtime must not be torn
            // down while a model runs.
            let _ = thread.join();
        }
    }
}

impl<E> Inbox<E> {
    /// Waits for the next event; `None` when nobody holds the service any more.
    pub(crate) fn wait(&mut self) -> Option<E> {
        self.receiver.blocking_recv()
    }

    /// The next event, if it has arrived.
    pub(crate) fn look(&mut self) -> Option<E> {
        self.receiver.try_recv().ok()
    }

    /// Whether nobody holds the service any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.receiver.is_closed()
    }

    /// Where the reason goes why the thread ends early.
    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// A way for work beside the thread to send it events.
    pub(crate) fn sender(&self) -> Sender<E> {
        Sender(self.sender.0.clone())
    }
}

impl<E> Sender<E> {
    /// Sends an event, unless the thread has ended or nobody waits for it any more.
    pub(crate) fn send(&self, event: E) {
        let _ = self.0.upgrade().map(|sender| sender.send(event));
    }
}

impl Failure {
    /// Leaves a reason; the first stays. To be called while the replies of those who wait still exist.
    pub(crate) fn set(&self, error: &dyn std::error::Error) {
        let _ = self.0.set(error.to_string());
    }
}

impl<R> Reply<R> {
    /// Whether the caller still waits.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Answers.
    pub(crate) fn send(self, answer: R) {
        // A caller that went away needs no answer.
        let _ = self.sender.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    type Doubling = (u32, Reply<u32>);

    #[tokio::test]
    async fn questions_are_answered_and_the_thread_ends() {
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
            assert_eq!(service.ask(|reply| (number, reply)).await, Ok(2 * number));
        }
        drop(service);
        assert!(ended.load(Ordering::SeqCst), "dropping waits for the thread");
    }

    #[tokio::test]
    async fn a_failure_reaches_waiting_and_later_callers() {
        let service = Service::start("test", 2, |mut inbox: Inbox<Doubling>| {
            let _question = inbox.wait();
            inbox.failure().set(&io::Error::other("out of order"));
        })
        .unwrap();
        for number in 0..2 {
            assert_eq!(service.ask(|reply| (number, reply)).await, Err("out of order".to_owned()));
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_dropped_future_gives_its_place_back() {
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
        assert!(tokio::time::timeout(short, service.ask(|reply| (1, reply))).await.is_err());
        assert_eq!(service.room.available_permits(), 0, "a question that was sent holds its place");
        assert!(tokio::time::timeout(short, service.ask(|reply| (2, reply))).await.is_err(), "no room");
        go.send(()).unwrap();
        assert_eq!(service.ask(|reply| (3, reply)).await, Ok(3));
    }
}
