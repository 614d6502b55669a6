//! Turns an image data set in a lake into a diffusion curriculum (DisCL, ICCV 2025).
//!
//! A pipeline is a sequence of steps. Each step is a Delta table and the SQL query that fills it. Models run in ONNX
//! Runtime and are SQL functions. `ARCHITECTURE.md` shows the flow of the tables and the map of the code.

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
