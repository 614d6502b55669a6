//! The options that commands share: which pipeline, which lake, and how queries and models run here.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::Args;

use super::output::{self, Format};
use crate::{
    error::Result,
    lake::Hidden,
    models::{FetchProgress, ModelOptions, onnx::Device},
    pipeline::{self, Pipeline, Project},
    session,
};

/// Headings of `--help`.
const PIPELINE: &str = "Pipeline options";
const QUERIES: &str = "Query options";
const MODELS: &str = "Model options";
/// Places an option after a command's own and before `--help`.
pub(super) const LAST: usize = 900;

/// A pipeline.
#[derive(Debug, Clone, Args)]
pub(super) struct PipelineFile {
    /// The pipeline's TOML file
    pub(super) pipeline: PathBuf,
    /// Override a key of the pipeline, as in `--set spectrum.seeds=[1,2]`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = PIPELINE)]
    pub(super) set: Vec<String>,
}

/// Its tables, and how queries run over them.
#[derive(Debug, Clone, Args)]
pub(super) struct Tables {
    /// The directory or URL of the lake [default: the pipeline's `lake.root`]
    #[arg(long, value_name = "URL", help_heading = PIPELINE)]
    lake: Option<String>,
    /// Partitions of a query, which run in parallel [default: the number of cores]
    #[arg(long, value_name = "N", help_heading = QUERIES)]
    target_partitions: Option<NonZeroUsize>,
    /// Rows per batch of a query
    #[arg(long, value_name = "N", default_value = "8192", help_heading = QUERIES)]
    batch_rows: NonZeroUsize,
}

/// How models run here; what they generate is the pipeline's.
#[derive(Debug, Clone, Args)]
pub(super) struct Models {
    /// Where models run: `auto`, `cpu`, `cuda`, `cuda:N`, `cuda:N,M` or `cuda:all`
    #[arg(long, default_value = "auto", help_heading = MODELS)]
    device: Device,
    /// The ONNX Runtime library [default: ORT_DYLIB_PATH, else the cache, else fetched once]
    #[arg(long, value_name = "FILE", help_heading = MODELS)]
    onnxruntime: Option<PathBuf>,
    /// Images per batch of the diffusion model [default: `models.batch`, else by a rule]
    #[arg(long, value_name = "N", help_heading = MODELS)]
    model_batch: Option<NonZeroUsize>,
    /// Cores that a model may use on the CPU [default: all]
    #[arg(long, value_name = "N", help_heading = MODELS)]
    model_threads: Option<NonZeroUsize>,
}

/// What a command takes that reads the pipeline's file only.
#[derive(Debug, Clone, Args)]
pub(super) struct FileTarget {
    #[command(flatten)]
    pub(super) file: PipelineFile,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = LAST)]
    pub(super) format: Format,
}

/// What a command takes that reads the lake and runs no model.
#[derive(Debug, Clone, Args)]
pub(super) struct LakeTarget {
    #[command(flatten)]
    pub(super) file: PipelineFile,
    #[command(flatten)]
    pub(super) tables: Tables,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = LAST)]
    pub(super) format: Format,
}

/// What a command takes that may run models.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    #[command(flatten)]
    pub(super) file: PipelineFile,
    #[command(flatten)]
    pub(super) tables: Tables,
    #[command(flatten)]
    pub(super) models: Models,
    /// How to print results
    #[arg(long, value_enum, default_value_t, display_order = LAST)]
    pub(super) format: Format,
}

impl LakeTarget {
    /// Opens everything that the pipeline names.
    pub(super) async fn open(&self) -> Result<Pipeline> {
        open(&self.file, &self.tables, None).await
    }

    /// Opens the pipeline's file and its lake, neither the source nor the models.
    pub(super) async fn open_project(&self) -> Result<Project> {
        open_project(&self.file, &self.tables).await
    }
}

impl Target {
    pub(super) async fn open(&self) -> Result<Pipeline> {
        open(&self.file, &self.tables, Some(&self.models)).await
    }

    /// Opens the pipeline's file and its lake, neither the source nor the models.
    pub(super) async fn open_project(&self) -> Result<Project> {
        open_project(&self.file, &self.tables).await
    }

    pub(super) fn options(&self) -> pipeline::Options {
        options(&self.file, &self.tables, Some(&self.models))
    }
}

/// Opens a pipeline; without `models`, they have the defaults.
pub(super) async fn open(file: &PipelineFile, tables: &Tables, models: Option<&Models>) -> Result<Pipeline> {
    Pipeline::open(&file.pipeline, &options(file, tables, models)).await
}

/// Opens the pipeline's file and its lake, neither the source nor the models.
pub(super) async fn open_project(file: &PipelineFile, tables: &Tables) -> Result<Project> {
    Project::open(&file.pipeline, &options(file, tables, None)).await
}

fn options(file: &PipelineFile, tables: &Tables, models: Option<&Models>) -> pipeline::Options {
    let defaults = session::Settings::default();
    let machine = |models: &Models| ModelOptions {
        device: models.device.clone(),
        library: models.onnxruntime.clone(),
        batch_size: models.model_batch.map(Into::into),
        threads: models.model_threads.map(Into::into),
    };
    pipeline::Options {
        set: file.set.clone(),
        lake: tables.lake.clone(),
        hidden: Hidden::default(),
        models: models.map(machine).unwrap_or_default(),
        session: session::Settings {
            target_partitions: tables.target_partitions.map_or(defaults.target_partitions, Into::into),
            batch_size: tables.batch_rows.into(),
            ..defaults
        },
        fetch_progress: FetchProgress::new(|line| output::note(line)),
    }
}
