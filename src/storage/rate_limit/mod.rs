//! Limits the rate of all requests of the process when a store throttles them.
//!
//! If a response is 503 or 429, `object_store` retries the request after its own pause, whatever `Retry-After` says.
//! Every other request continues as before: a thousand callers stay a thousand callers. Below those retries, this
//! module lets the first such response limit everybody who shares a [`RateLimiter`]:
//!
//! * There is no limit until a response is 503 or 429. It sets the limit to half the rate of the last second.
//! * Further ones halve the limit again, at most once per second, and never for a request that was sent before the last
//!   halving: a burst counts once. The limit stays at or above one request per second.
//! * After a second without such responses the limit grows, by 5 % and by 1 request per second in each second. It is lifted
//!   at twice the rate that set it. A limit set at 500 per second is 250, reaches 500 after 14 s, and is lifted after 28 s.
//! * A `Retry-After` in seconds stops everybody for that time, at most a minute. A date is ignored.
//!
//! Responses pass through unchanged (but see `buffer_body`), so `object_store` still retries the request: it sleeps its
//! own pause and then waits here like a new one. Both count towards its `retry_timeout` (`MAX_RETRY` in `location.rs`),
//! after which it gives up at the next failure; neither counts towards the timeout of a request, which starts when the
//! request is sent. A request is signed before it waits, and stores reject signatures older than 15 minutes. So no
//! request waits here for longer than two minutes.
//!
//! A response of 200 whose body says `SlowDown` is not noticed. Requests for credentials are limited like those for data.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::buffer_body;

/// The lowest limit, in requests per second.
const MIN_RATE: f64 = 1.0;
/// The shortest time between two halvings.
const MIN_HALVING_INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause that a response can request.
const MAX_STOP: Duration = Duration::from_secs(60);
/// The longest time that a request waits. Meanwhile its signature ages and the time for its retries runs out.
const MAX_WAIT: Duration = Duration::from_secs(120);
/// The limit grows as `MIN_RATE + limit / GROWTH` per second.
const GROWTH: f64 = 20.0;
/// How far a late request can pull the next one forward, since timers are no finer than a millisecond.
const SLACK: Duration = Duration::from_millis(10);

/// Limits the rate of all requests that share it.
#[derive(Debug)]
pub(super) struct RateLimiter {
    state: Mutex<State>,
    /// Held by the request that waits for the next slot. The others queue for it, first come, first served.
    turn: tokio::sync::Mutex<()>,
}

/// What a [`RateLimiter`] has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Responses with status 503 or 429.
    pub(crate) throttled: u64,
    pub(crate) halvings: u64,
    /// How long requests waited in sum, which exceeds the elapsed time if several waited at once.
    pub(crate) waited: Duration,
}

/// An HTTP connector whose requests pass through a [`RateLimiter`].
#[derive(Debug, Clone)]
pub(super) struct RateLimited {
    limiter: Arc<RateLimiter>,
    inner: Arc<dyn HttpConnector>,
}

#[derive(Debug)]
struct Service {
    limiter: Arc<RateLimiter>,
    inner: HttpClient,
}

#[derive(Debug)]
struct State {
    limit: Option<Limit>,
    /// The last halving, even if its limit has been lifted since.
    halved: Option<Instant>,
    /// No request is sent before this time.
    stop: Instant,
    meter: Meter,
    totals: Totals,
}

#[derive(Debug)]
struct Limit {
    /// Requests per second at the time of `grown`.
    rate: f64,
    grown: Instant,
    /// The rate at which the limit is lifted.
    lift: f64,
    /// When the next request can be sent.
    next: Instant,
}

/// Measures the rate of the last second.
#[derive(Debug)]
struct Meter {
    /// When the current second began.
    start: Instant,
    current: u32,
    previous: u32,
}

impl RateLimited {
    /// Connects as `object_store` does by default.
    pub(super) fn new(limiter: &Arc<RateLimiter>) -> Self {
        Self { limiter: Arc::clone(limiter), inner: Arc::new(ReqwestConnector::default()) }
    }
}

impl HttpConnector for RateLimited {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = self.inner.connect(options)?;
        Ok(HttpClient::new(Service { limiter: Arc::clone(&self.limiter), inner }))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let sent = self.limiter.admit().await;
        let is_list = buffer_body::is_list(&request);
        // The query may hold a signature, and so may headers: neither is logged.
        let (method, host, path) =
            (request.method().clone(), request.uri().host().map(str::to_owned), request.uri().path().to_owned());
        let response = self.inner.execute(request).await?;
        tracing::debug!(%method, host, path, status = response.status().as_u16(), seconds = sent.elapsed().as_secs_f64(), "store request");
        if matches!(response.status().as_u16(), 429 | 503) {
            self.limiter.state().throttle(Instant::now(), sent, retry_after(&response));
        }
        buffer_body::buffered(response, is_list).await
    }
}

impl Default for RateLimiter {
    fn default() -> Self {
        let now = Instant::now();
        let meter = Meter { start: now, current: 0, previous: 0 };
        let state = State { limit: None, halved: None, stop: now, meter, totals: Totals::default() };
        Self { state: Mutex::new(state), turn: tokio::sync::Mutex::default() }
    }
}

impl RateLimiter {
    /// Returns what has happened so far.
    pub(super) fn totals(&self) -> Totals {
        self.state().totals
    }

    /// Waits until a request can be sent and returns that time. A future that is dropped meanwhile leaves the queue.
    async fn admit(self: &Arc<Self>) -> Instant {
        let arrived = Instant::now();
        if !self.state().is_open(arrived) {
            // A separate task waits and holds the turn. The caller might not poll this future for a while, because it
            // waits for another request that is behind this one. The set ends its tasks when it is dropped.
            let mut queue = JoinSet::new();
            let limiter = Arc::clone(self);
            queue.spawn(async move { limiter.queue().await });
            // On a timeout the request is sent all the same: see `MAX_WAIT`.
            let _ = timeout(MAX_WAIT, queue.join_next()).await;
        }
        let now = Instant::now();
        let mut state = self.state();
        state.meter.count(now);
        state.totals.waited += now - arrived;
        now
    }

    /// Waits for the next slot. Slots are not assigned ahead, since the limit can change while a request waits.
    async fn queue(&self) {
        let _turn = self.turn.lock().await;
        while let Some(due) = self.wait_until() {
            sleep_until(due).await;
        }
    }

    fn wait_until(&self) -> Option<Instant> {
        self.state().take(Instant::now()).err()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns whether no request has to wait.
    fn is_open(&mut self, now: Instant) -> bool {
        self.grow(now);
        self.limit.is_none() && self.stop <= now
    }

    /// Takes a slot, or returns when to try again.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.grow(now);
        let due = self.limit.as_ref().map_or(self.stop, |limit| limit.next.max(self.stop));
        if due > now {
            return Err(due);
        }
        if let Some(limit) = &mut self.limit {
            let late = now.checked_sub(SLACK).unwrap_or(now);
            limit.next = limit.next.max(late) + Duration::from_secs_f64(limit.rate.recip());
        }
        Ok(())
    }

    /// Halves the limit unless the response belongs to a burst that was counted already, and stops everybody for `pause`.
    fn throttle(&mut self, now: Instant, sent: Instant, pause: Option<Duration>) {
        self.grow(now);
        self.totals.throttled += 1;
        if self.halved.is_none_or(|halved| sent >= halved && now >= halved + MIN_HALVING_INTERVAL) {
            self.halve(now);
        }
        if let Some(pause) = pause {
            self.stop = self.stop.max(now + pause.min(MAX_STOP));
        }
        if let Some(limit) = &mut self.limit {
            limit.grown = self.stop.max(now + MIN_HALVING_INTERVAL);
        }
    }

    fn halve(&mut self, now: Instant) {
        self.halved = Some(now);
        self.totals.halvings += 1;
        let measured = self.meter.rate(now).max(MIN_RATE);
        let limit = self.limit.get_or_insert(Limit { rate: measured, grown: now, lift: 2.0 * measured, next: now });
        limit.rate = (limit.rate / 2.0).max(MIN_RATE);
    }

    /// Lets the limit grow up to now, except in the second after a throttled response and while everybody is stopped.
    fn grow(&mut self, now: Instant) {
        let Some(limit) = &mut self.limit else { return };
        let seconds = now.saturating_duration_since(limit.grown).as_secs_f64();
        let offset = MIN_RATE * GROWTH;
        limit.rate = (limit.rate + offset) * (seconds / GROWTH).exp() - offset;
        limit.grown = limit.grown.max(now);
        if limit.rate >= limit.lift {
            self.limit = None;
        }
    }
}

impl Meter {
    fn count(&mut self, now: Instant) {
        self.turn(now);
        self.current += 1;
    }

    /// Returns the requests of the last second. Those of the previous full second are taken as evenly spread.
    fn rate(&mut self, now: Instant) -> f64 {
        self.turn(now);
        let past = now.saturating_duration_since(self.start).as_secs_f64();
        f64::from(self.current) + f64::from(self.previous) * (1.0 - past)
    }

    fn turn(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.start).as_secs();
        if seconds > 0 {
            self.previous = if seconds == 1 { self.current } else { 0 };
            self.current = 0;
            self.start += Duration::from_secs(seconds);
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { throttled, halvings, waited } = self;
        let seconds = waited.as_secs_f64();
        write!(f, "{throttled} responses of 503 or 429, rate halved {halvings} times, requests waited {seconds:.1} s")
    }
}

/// Returns the pause that a response requests, if it is in whole seconds.
fn retry_after(response: &HttpResponse) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
