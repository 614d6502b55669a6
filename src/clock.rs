//! The only reader of the clock. Its times go into the ledger, the lake's log and descriptions, never into an id.

use std::time::{SystemTime, UNIX_EPOCH};

use arrow::temporal_conversions::timestamp_ms_to_datetime;

/// Returns the milliseconds since 1970-01-01 in UTC.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the current date in UTC, such as `2026-11-23`.
pub(crate) fn today() -> String {
    timestamp_ms_to_datetime(now_ms()).map_or(String::new(), |now| now.format("%Y-%m-%d").to_string())
}
