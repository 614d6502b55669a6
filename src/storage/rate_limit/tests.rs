//! On a clock that is moved by hand: what may go when, by the times that are given.

use std::{collections::VecDeque, iter};

use futures::future::join_all;
use object_store::client::HttpResponseBody;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How long a store takes to answer.
const LATENCY: Duration = Duration::from_millis(10);

/// A limiter that nothing has happened to, and when that is.
fn fresh() -> (State, Instant) {
    let state = RateLimiter::default().state.into_inner().unwrap();
    let start = state.stop;
    (state, start)
}

/// The limit at a time, in requests per second.
fn limit(state: &mut State, now: Instant) -> Option<f64> {
    state.grow(now);
    state.limit.as_ref().map(|limit| limit.rate)
}

fn about(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= 0.05 * expected
}

/// Lets requests go, one after the other, and says when the last of them goes.
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
fn nobody_waits_before_the_first_slow_down() {
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
    (0..100).for_each(|_| state.slow_down(now, start, None));
    assert_eq!((state.totals.slow_downs, state.totals.halvings), (100, 1));
    assert!(about(limit(&mut state, now).unwrap(), 50.0), "{state:?}");
    let seconds = (go(&mut state, now, 50) - now).as_secs_f64();
    assert!((0.9..=1.02).contains(&seconds), "50 at 50 per second and a little more: {seconds}");
}

#[test]
fn a_late_answer_to_an_early_request_halves_nothing() {
    let (mut state, early) = fresh();
    state.slow_down(early + 100 * MILLISECOND, early, None);
    let late = early + 3 * SECOND;
    state.slow_down(late, early, None);
    assert_eq!(state.totals.halvings, 1);
    state.slow_down(late, late, None);
    assert_eq!(state.totals.halvings, 2, "one that went under the limit does");
}

#[test]
fn the_rate_is_halved_once_per_second() {
    let (mut state, mut now) = fresh();
    for (milliseconds, halvings) in [(0, 1), (100, 1), (800, 1), (100, 2), (999, 2), (1, 3)] {
        now += milliseconds * MILLISECOND;
        state.slow_down(now, now, None);
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
fn the_rate_falls_to_the_floor_and_no_further() {
    let (mut state, mut now) = fresh();
    go(&mut state, now, 64);
    for _ in 0..60 {
        now += SECOND;
        state.slow_down(now, now, None);
    }
    assert!(about(limit(&mut state, now).unwrap(), MIN_RATE), "{state:?}");
    let start = now;
    for _ in 0..60 {
        now = go(&mut state, now, 1);
        state.slow_down(now, now, None);
    }
    let rate = 60.0 / (now - start).as_secs_f64();
    assert!((0.95..=1.1).contains(&rate), "{rate} per second");
}

#[test]
fn everybody_waits_as_long_as_the_store_says() {
    for (asked, expected) in [(0, 0), (5, 5), (30, 30), (60, 60), (86400, 60)] {
        let (mut state, start) = fresh();
        state.slow_down(start, start, Some(asked * SECOND));
        assert_eq!(go(&mut state, start, 1), start + expected * SECOND);
    }
}

#[test]
fn a_stop_is_extended_while_others_wait() {
    let (mut state, start) = fresh();
    state.slow_down(start, start, Some(10 * SECOND));
    state.slow_down(start + LATENCY, start, Some(20 * SECOND));
    state.slow_down(start + 2 * LATENCY, start, Some(SECOND));
    assert_eq!(go(&mut state, start + SECOND, 1), start + LATENCY + 20 * SECOND);
}

#[test]
fn the_limit_grows_and_is_lifted() {
    let (mut state, mut now) = fresh();
    go(&mut state, now, 500);
    state.slow_down(now, now, None);
    for (seconds, rate) in [(0, 250.0), (1, 250.0), (5, 326.7), (8, 492.4), (13, 949.0)] {
        now += seconds * SECOND;
        assert!(about(limit(&mut state, now).unwrap(), rate), "{state:?}");
    }
    now += 2 * SECOND;
    assert_eq!(limit(&mut state, now), None);
    assert_eq!(go(&mut state, now, 1000), now);
}

#[test]
fn the_limit_does_not_grow_while_all_are_stopped() {
    let (mut state, start) = fresh();
    go(&mut state, start, 100);
    state.slow_down(start, start, Some(30 * SECOND));
    assert!(about(limit(&mut state, start + 30 * SECOND).unwrap(), 50.0), "{state:?}");
}

/// A store that takes 100 requests per second, and 200 callers who never pause.
#[test]
fn it_settles_near_what_a_store_takes() {
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
                state.slow_down(now, went, None);
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
    let refused = state.totals.slow_downs as f64 / f64::from(sent);
    assert!(refused < 0.1, "{}; {refused} of all", state.totals);
}

#[test]
fn a_pause_is_read_in_whole_seconds() {
    let date = "Wed, 21 Oct 2026 07:28:00 GMT";
    for (said, expected) in [("30", Some(30)), (" 5 ", Some(5)), ("0", Some(0)), (date, None), ("-1", None), ("", None)]
    {
        let mut answer = HttpResponse::new(HttpResponseBody::from(Vec::new()));
        assert_eq!(retry_after(&answer), None);
        answer.headers_mut().insert("retry-after", said.parse().unwrap());
        assert_eq!(retry_after(&answer), expected.map(Duration::from_secs), "{said}");
    }
}

/// By the real clock, since tasks wait for it.
#[tokio::test]
async fn who_gives_up_leaves_the_queue() {
    let limiter = Arc::<RateLimiter>::default();
    let start = Instant::now();
    limiter.state().slow_down(start, start, Some(SECOND));
    assert!(timeout(100 * MILLISECOND, join_all(iter::repeat_with(|| limiter.admit()).take(100))).await.is_err());
    limiter.admit().await;
    assert!(start.elapsed() >= SECOND);
    assert!(start.elapsed() < 20 * SECOND, "at 1 per second, 100 would be in the way");
    assert!(limiter.totals().waited >= 500 * MILLISECOND, "{}", limiter.totals());
}

/// Whoever made a request may wait for another one before they look at the first again.
#[tokio::test]
async fn who_is_not_polled_holds_nobody_up() {
    let limiter = Arc::new(RateLimiter::default());
    {
        let mut state = limiter.state();
        let now = Instant::now();
        state.slow_down(now, now, Some(SECOND));
    }
    let mut first = std::pin::pin!(limiter.admit());
    assert!(futures::poll!(first.as_mut()).is_pending(), "it is in the queue now");
    tokio::task::yield_now().await;
    let second = timeout(10 * SECOND, limiter.admit()).await;
    assert!(second.is_ok(), "the second waits for the first, which nobody polls");
    first.await;
}

#[test]
fn totals_are_words() {
    let totals = Totals { slow_downs: 12, halvings: 2, waited: Duration::from_millis(3450) };
    assert_eq!(totals.to_string(), "slow-downs 12, rate halved 2 times, requests waited 3.5 s");
}
