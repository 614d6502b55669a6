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

/// Checks of how outside input is read. Only in builds for tests and for the fuzzer, see `fuzz/README.md`.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use std::path::Path;

    /// Kinds of outside input.
    pub const TARGETS: [&str; 11] = [
        "feedback",
        "hub",
        "image",
        "listing",
        "log",
        "onnx",
        "parquet",
        "pipeline",
        "preprocess",
        "scheduler",
        "tokenizer",
    ];

    /// Reads `input` as the kind `target` and panics if what is promised of it does not hold. Files are written into
    /// `folder`.
    #[expect(clippy::panic, reason = "the caller has misspelt a target")]
    pub fn check(target: &str, folder: &Path, input: &[u8]) {
        match target {
            "feedback" => crate::feedback::fuzzing::check(folder, input),
            "hub" => crate::models::hub::listing(folder, input),
            "image" => crate::imaging::fuzzing::image(input),
            "listing" => crate::source::fuzzing::listing(folder, input),
            "log" => crate::lake::fuzzing::check(input),
            "onnx" => crate::models::onnx::fuzzing::onnx(input),
            "parquet" => crate::source::fuzzing::parquet(folder, input),
            "pipeline" => crate::config::fuzzing::pipeline(input),
            "preprocess" => crate::models::fuzzing::preprocess(input),
            "scheduler" => crate::models::diffusion::fuzzing::scheduler(input),
            "tokenizer" => crate::models::fuzzing::one_of_tokenizer(folder, input),
            _ => panic!("`{target}` is none of {TARGETS:?}"),
        }
    }

    /// What the fuzzer has found stays right.
    #[test]
    fn the_corpus_passes() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for target in TARGETS {
            let inputs: Vec<_> = std::fs::read_dir(corpus.join(target)).unwrap().collect();
            assert!(!inputs.is_empty(), "{target}");
            for input in inputs {
                let path = input.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let passes = std::panic::catch_unwind(|| check(target, folder.path(), &bytes)).is_ok();
                assert!(passes, "{}", path.display());
            }
        }
    }
}
