//! Object stores: a directory or a bucket, read and written under one rate limit for the whole process.

mod aws_profile;
mod buffer_body;
mod download;
mod durable;
mod error;
mod listing;
mod location;
mod object;
mod parquet_reader;
mod rate_limit;
pub(crate) mod simulated;
mod upload;
mod walk;

#[cfg(test)]
pub(crate) use durable::{Durable, Persist};
pub(crate) use durable::{is_staging_end, time_syncing};
pub(crate) use error::StorageError;
pub(crate) use location::{Location, throttling_totals};
pub(crate) use object::{StoredObject, Version};
pub(crate) use parquet_reader::panicked;
pub(crate) use upload::Upload;
pub(crate) use walk::{Fault, FaultKind, Found};
