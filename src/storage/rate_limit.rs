//! Slowing down when a store says so: one limiter for all requests of the process.
//!
//! `object_store` repeats a request that was answered 503 or 429 after a pause of its own, whatever the answer's
//! `Retry-After` says, and every other request goes on as before: a thousand callers stay a thousand callers. Here,
//! below those retries, the first such answer sets a limit for everybody who shares a [`RateLimiter`]:
//!
//! * There is no limit until an answer says 503 or 429. It sets the limit to half the rate of the last second.
//! * Further ones halve it again, at most once per second, and never for a request that went before the last halving:
//!   a burst counts once. The limit stays at or above one request per second.
//! * After a second without such answers it grows, each second by 5 % and by 1 request per second, and it is lifted at
//!   twice the rate that set it. Set by 500 per second, it is 250, again 500 after 14 s, and lifted after 28 s.
//! * A `Retry-After` in seconds stops everybody for that long, at most a minute. As a date it is not read.
//!
//! Answers pass through unchanged (but see `buffer_body`), so `object_store` still repeats the request: it sleeps its own pause
//! and then waits here like a new one. Both count towards its `retry_timeout` (180 s by default), after which it gives up
//! at the next bad answer; neither counts towards the timeout of a request, which starts when it goes. A request is
//! signed before it waits, and stores refuse signatures older than 15 minutes. So nobody waits here for longer than two
//! minutes.
//!
//! An answer of 200 whose body says `SlowDown` is not seen. Requests for credentials go the same way as data.

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
/// The time between two halvings, at least.
const MIN_HALVING_INTERVAL: Duration = Duration::from_secs(1);
/// The longest stop that an answer may ask for.
const MAX_STOP: Duration = Duration::from_secs(60);
/// The longest that a request waits: its signature ages, and with it the time that its sender has for retries.
const MAX_WAIT: Duration = Duration::from_secs(120);
/// The limit grows as `MIN_RATE + limit / GROWTH` per second.
const GROWTH: f64 = 20.0;
/// How far a late request may pull the next one forward: timers are no finer than a millisecond.
const SLACK: Duration = Duration::from_millis(10);

/// The limiter of all requests that share it.
#[derive(Debug)]
pub struct RateLimiter {
    state: Mutex<State>,
    /// Held by the one who waits for the next slot. The others queue for it, first come, first served.
    turn: tokio::sync::Mutex<()>,
}

/// What slowing down has come to, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answers that said 503 or 429.
    pub slow_downs: u64,
    /// How often the rate was halved.
    pub halvings: u64,
    /// How long requests waited, added up: more than the time that passed where several waited at once.
    pub waited: Duration,
}

/// Connects through another connector and keeps its requests to a [`RateLimiter`].
#[derive(Clone, Debug)]
pub struct RateLimited {
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
    /// The last halving, also one whose limit is lifted by now.
    halved: Option<Instant>,
    /// Nobody goes before.
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
    /// When the next request may go.
    next: Instant,
}

/// How many requests went in the last second.
#[derive(Debug)]
struct Meter {
    /// When the current second began.
    start: Instant,
    current: u32,
    previous: u32,
}

impl RateLimited {
    /// Connects as `object_store` does by default.
    pub fn new(limiter: &Arc<RateLimiter>) -> Self {
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
        let answer = self.inner.execute(request).await?;
        if matches!(answer.status().as_u16(), 429 | 503) {
            self.limiter.state().slow_down(Instant::now(), sent, retry_after(&answer));
        }
        buffer_body::buffered(answer, is_list).await
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
    /// What it has come to so far.
    pub fn totals(&self) -> Totals {
        self.state().totals
    }

    /// Waits until a request may go; when that is. A future that is dropped meanwhile leaves the queue.
    async fn admit(self: &Arc<Self>) -> Instant {
        let asked = Instant::now();
        if !self.state().is_open(asked) {
            // A task of its own waits: it holds the turn, and whoever made the request may not poll it for a while,
            // since they wait for another request. That one would be behind it. A set ends its tasks when it is dropped.
            let mut queue = JoinSet::new();
            let limiter = Arc::clone(self);
            queue.spawn(async move { limiter.queue().await });
            // Out of patience, the request goes: see `MAX_WAIT`.
            let _ = timeout(MAX_WAIT, queue.join_next()).await;
        }
        let now = Instant::now();
        let mut state = self.state();
        state.meter.count(now);
        state.totals.waited += now - asked;
        now
    }

    /// Takes the next slot. Slots are not given out ahead: the limit and the stop may change while somebody waits.
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
    /// Whether nobody needs to wait.
    fn is_open(&mut self, now: Instant) -> bool {
        self.grow(now);
        self.limit.is_none() && self.stop <= now
    }

    /// Takes a slot, or says when to try again.
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

    /// Halves the limit unless the answer belongs to a burst that was counted, and stops for `pause`.
    fn slow_down(&mut self, now: Instant, sent: Instant, pause: Option<Duration>) {
        self.grow(now);
        self.totals.slow_downs += 1;
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

    /// Lets the limit grow up to now: not in the second after a slow-down, and not while everybody is stopped.
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

    /// Requests in the last second, as if those of the second before the current one had come evenly.
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
        let Self { slow_downs, halvings, waited } = self;
        let seconds = waited.as_secs_f64();
        write!(f, "slow-downs {slow_downs}, rate halved {halvings} times, requests waited {seconds:.1} s")
    }
}

/// The pause that an answer asks for, if it does so in whole seconds.
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    let seconds = answer.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
