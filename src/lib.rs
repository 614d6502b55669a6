//! Turns an image data set in a lake into a diffusion curriculum (DisCL, ICCV 2025).
//!
//! ```text
//! TOML + sql/ ─► Plan ─► pixels ─► images ─► hard_samples ─► candidates ─► spectrum ─► scores ─► kept
//!                        (UDFs)     SQL         SQL             SQL          UDFs       UDFs     SQL
//!                                                                ▲                        │
//!                                                                └── further attempts ◄───┘
//!                        kept + images ─► schedule ─► manifest ─► trainer
//!                                           SQL         SQL
//! ```
//!
//! Each noun is a Delta table, each arrow a query; a step is a table and the query that fills it. Models
//! run in ONNX Runtime and are SQL functions. `ARCHITECTURE.md` has the map of the code.

pub mod cli;
mod clock;
pub mod config;
mod error;
mod experiment;
mod export;
mod feedback;
mod identity;
mod imaging;
mod lake;
mod limited_read;
mod models;
mod pipeline;
mod plan;
mod prompts;
mod report;
mod run;
mod schema;
mod session;
mod source;
mod storage;
mod udf;

pub use error::{Error, Result};
