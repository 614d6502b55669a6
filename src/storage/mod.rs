//! Object stores: a directory or a bucket, read and written with one rate limit for the whole process.

mod aws_profile;
mod buffer_body;
mod download;
mod location;
mod parquet_reader;
mod rate_limit;
mod upload;

pub use download::StoredFile;
pub use location::{Location, throttling_totals};
pub use parquet_reader::Object;
pub use upload::Upload;
