//! Runs the limiter on a clock that the tests move by hand.

use std::{collections::VecDeque, iter};

use futures::future::join_all;
use object_store::client::HttpResponseBody;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How long a store takes to respond.
const LATENCY: Duration = Duration::from_millis(10);

/// Returns a fresh state and the time of its creation.
fn fresh() -> (State, Instant) {
    let state = RateLimiter::default().state.into_inner().unwrap();
    let start = state.stop;
    (state, start)
}

/// Returns the limit at a time, in requests per second.
fn limit(state: &mut State, now: Instant) -> Option<f64> {
    state.grow(now);
    state.limit.as_ref().map(|limit| limit.rate)
}

fn about(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= 0.05 * expected
}

/// Sends requests sequentially and returns when the last one is sent.
fn go(state: &mut State, start: Instant, count: usize) -> Instant {
    let mut now = start;
    for _ in 0..count {
        while let Err(due) = state.take(now) {
            now = due;
        }
        state.meter.count(now);
    }
    now
}

#[test]
fn no_request_waits_before_the_first_throttled_response() {
    let (mut state, start) = fresh();
    assert_eq!(go(&mut state, start, 1000), start);
    assert!(state.is_open(start));
    assert_eq!(state.totals, Totals::default());
}

#[test]
fn a_burst_halves_once() {
    let (mut state, start) = fresh();
    go(&mut state, start, 100);
    let now = start + LATENCY;
    (0..100).for_each(|_| state.throttle(now, start, None));
    assert_eq!((state.totals.throttled, state.totals.halvings), (100, 1));
    assert!(about(limit(&mut state, now).unwrap(), 50.0), "{state:?}");
    let seconds = (go(&mut state, now, 50) - now).as_secs_f64();
    assert!((0.9..=1.02).contains(&seconds), "50 at 50 per second and a little more: {seconds}");
}

#[test]
fn a_late_response_to_an_early_request_halves_nothing() {
    let (mut state, early) = fresh();
    state.throttle(early + 100 * MILLISECOND, early, None);
    let late = early + 3 * SECOND;
    state.throttle(late, early, None);
    assert_eq!(state.totals.halvings, 1);
    state.throttle(late, late, None);
    assert_eq!(state.totals.halvings, 2, "a response to a request under the limit does");
}

#[test]
fn the_rate_is_halved_once_per_second() {
    let (mut state, mut now) = fresh();
    for (milliseconds, halvings) in [(0, 1), (100, 1), (800, 1), (100, 2), (999, 2), (1, 3)] {
        now += milliseconds * MILLISECOND;
        state.throttle(now, now, None);
        assert_eq!(state.totals.halvings, halvings);
    }
}

#[test]
fn the_rate_is_that_of_the_last_second() {
    let (State { mut meter, .. }, mut now) = fresh();
    (0..10).for_each(|_| meter.count(now));
    for (milliseconds, rate) in [(900, 10.0), (200, 9.0), (800, 1.0), (200, 0.0)] {
        now += milliseconds * MILLISECOND;
        assert!((meter.rate(now) - rate).abs() < 0.01, "{meter:?}");
    }
    meter.count(now);
    assert!(meter.rate(now + 5 * SECOND) < 0.01, "an old second is forgotten");
}

#[test]
fn the_rate_never_falls_below_the_minimum() {
    let (mut state, mut now) = fresh();
    go(&mut state, now, 64);
    for _ in 0..60 {
        now += SECOND;
        state.throttle(now, now, None);
    }
    assert!(about(limit(&mut state, now).unwrap(), MIN_RATE), "{state:?}");
    let start = now;
    for _ in 0..60 {
        now = go(&mut state, now, 1);
        state.throttle(now, now, None);
    }
    let rate = 60.0 / (now - start).as_secs_f64();
    assert!((0.95..=1.1).contains(&rate), "{rate} per second");
}

#[test]
fn all_requests_wait_as_long_as_the_store_requests() {
    for (requested, expected) in [(0, 0), (5, 5), (30, 30), (60, 60), (86400, 60)] {
        let (mut state, start) = fresh();
        state.throttle(start, start, Some(requested * SECOND));
        assert_eq!(go(&mut state, start, 1), start + expected * SECOND);
    }
}

#[test]
fn a_pause_is_extended_while_others_wait() {
    let (mut state, start) = fresh();
    state.throttle(start, start, Some(10 * SECOND));
    state.throttle(start + LATENCY, start, Some(20 * SECOND));
    state.throttle(start + 2 * LATENCY, start, Some(SECOND));
    assert_eq!(go(&mut state, start + SECOND, 1), start + LATENCY + 20 * SECOND);
}

#[test]
fn the_limit_grows_and_is_lifted() {
    let (mut state, mut now) = fresh();
    go(&mut state, now, 500);
    state.throttle(now, now, None);
    for (seconds, rate) in [(0, 250.0), (1, 250.0), (5, 326.7), (8, 492.4), (13, 949.0)] {
        now += seconds * SECOND;
        assert!(about(limit(&mut state, now).unwrap(), rate), "{state:?}");
    }
    now += 2 * SECOND;
    assert_eq!(limit(&mut state, now), None);
    assert_eq!(go(&mut state, now, 1000), now);
}

#[test]
fn the_limit_does_not_grow_during_a_pause() {
    let (mut state, start) = fresh();
    go(&mut state, start, 100);
    state.throttle(start, start, Some(30 * SECOND));
    assert!(about(limit(&mut state, start + 30 * SECOND).unwrap(), 50.0), "{state:?}");
}

/// Simulates a store that accepts 100 requests per second, and 200 callers that never pause.
#[test]
fn it_settles_near_the_capacity_of_the_store() {
    let (mut state, start) = fresh();
    let (mut waiting, mut good, mut sent) = (200, 0, 0);
    let mut recent: VecDeque<Instant> = VecDeque::new();
    let mut under_way: VecDeque<(Instant, bool)> = VecDeque::new();
    let seconds = 300;
    for now in iter::successors(Some(start), |&now| Some(now + MILLISECOND)).take(seconds * 1000) {
        while let Some((went, is_good)) = under_way.pop_front_if(|(went, _)| *went + LATENCY <= now) {
            waiting += 1;
            good += usize::from(is_good);
            if !is_good {
                state.throttle(now, went, None);
            }
        }
        while waiting > 0 && state.take(now).is_ok() {
            state.meter.count(now);
            recent.push_back(now);
            while recent.pop_front_if(|went| now - *went >= SECOND).is_some() {}
            under_way.push_back((now, recent.len() <= 100));
            (waiting, sent) = (waiting - 1, sent + 1);
        }
    }
    let rate = good as f64 / seconds as f64;
    assert!(rate > 60.0, "{rate} per second");
    let refused = state.totals.throttled as f64 / f64::from(sent);
    assert!(refused < 0.1, "{}; {refused} of all", state.totals);
}

#[test]
fn a_pause_is_read_in_whole_seconds() {
    let date = "Wed, 21 Oct 2026 07:28:00 GMT";
    for (header, expected) in
        [("30", Some(30)), (" 5 ", Some(5)), ("0", Some(0)), (date, None), ("-1", None), ("", None)]
    {
        let mut response = HttpResponse::new(HttpResponseBody::from(Vec::new()));
        assert_eq!(retry_after(&response), None);
        response.headers_mut().insert("retry-after", header.parse().unwrap());
        assert_eq!(retry_after(&response), expected.map(Duration::from_secs), "{header}");
    }
}

/// Uses the real clock, since tasks wait for it.
#[tokio::test]
async fn a_dropped_request_leaves_the_queue() {
    let limiter = Arc::<RateLimiter>::default();
    let start = Instant::now();
    limiter.state().throttle(start, start, Some(SECOND));
    assert!(timeout(100 * MILLISECOND, join_all(iter::repeat_with(|| limiter.admit()).take(100))).await.is_err());
    limiter.admit().await;
    assert!(start.elapsed() >= SECOND);
    assert!(start.elapsed() < 20 * SECOND, "at 1 per second, 100 would be in the way");
    assert!(limiter.totals().waited >= 500 * MILLISECOND, "{}", limiter.totals());
}

/// A caller can wait for another request before it polls the first again.
#[tokio::test]
async fn a_request_that_is_not_polled_blocks_no_other() {
    let limiter = Arc::new(RateLimiter::default());
    {
        let mut state = limiter.state();
        let now = Instant::now();
        state.throttle(now, now, Some(SECOND));
    }
    let mut first = std::pin::pin!(limiter.admit());
    assert!(futures::poll!(first.as_mut()).is_pending(), "it is in the queue now");
    tokio::task::yield_now().await;
    let second = timeout(10 * SECOND, limiter.admit()).await;
    assert!(second.is_ok(), "the second waits for the first, which is not polled");
    first.await;
}

#[test]
fn totals_are_shown_in_words() {
    let totals = Totals { throttled: 12, halvings: 2, waited: Duration::from_millis(3450) };
    assert_eq!(totals.to_string(), "12 responses of 503 or 429, rate halved 2 times, requests waited 3.5 s");
}
