//! The only reader of the clock. Its times go into logs, the ledger and descriptions, never into an identity.

use std::time::{SystemTime, UNIX_EPOCH};

use arrow::temporal_conversions::timestamp_ms_to_datetime;

/// Milliseconds since 1970 in UTC.
pub fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// The day in UTC, as `2026-11-23`.
pub fn today() -> String {
    timestamp_ms_to_datetime(now_ms()).map_or(String::new(), |now| now.format("%Y-%m-%d").to_string())
}
