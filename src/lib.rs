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

mod bounded;
mod classifier;
pub mod cli;
mod clip;
mod clock;
pub mod config;
mod diffusion;
mod error;
mod experiment;
mod export;
mod feedback;
mod forecast;
mod hub;
mod identity;
mod imaging;
mod lake;
mod learner;
mod models;
mod onnx;
mod pipeline;
mod plan;
mod prompts;
mod queries;
mod report;
mod retry;
mod run;
mod schema;
mod session;
mod source;
mod status;
mod step;
mod tokens;
mod udf;
mod verify;

pub use error::{Error, Result};
