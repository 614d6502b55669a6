//! The one place where table and column names and types stand.
//!
//! Integers are `int64` (SQL's own), similarities are `float32` cosines in −1..=1, ids are 32
//! hexadecimal digits ([`crate::identity`]). Delta has no unsigned integers and no half floats.

pub mod conform;

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray},
    compute::cast,
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
};

/// How the rows of a table come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// What is known before any step runs; held in memory, never written.
    Given,
    /// Each run that makes it replaces its rows by a new version.
    Chosen,
    /// Rows are only ever added: for each row of `over`, one row with the same `id`.
    Accumulated {
        /// The table whose rows ask for the work.
        over: &'static str,
        /// The column that names the work, in both tables.
        id: &'static str,
        /// How many values of `source_id` make a unit.
        sources_per_unit: usize,
    },
    /// Written beside the steps: `rejects`, `ledger`, `feedback`, which trainers hand in, and `experiments`.
    Journal,
}

/// A table of the lake.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name, which is also its folder.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// How its rows come and go.
    pub kind: Kind,
    /// The columns that name a row: no two rows agree on all of them.
    pub key: Vec<&'static str>,
}

/// The real images of the source, before they are read: one row per image and its label.
pub const LISTING: &str = "listing";
/// Texts per class for the generation prompt.
pub const DESCRIPTIONS: &str = "descriptions";
/// The names that prompts have for classes, where these are not their own.
pub const COMMON_NAMES: &str = "common_names";
/// How probable a classifier of the user's finds each image's class.
pub const CONFIDENCES: &str = "confidences";
/// What was asked for and could not be made, with the reason.
pub const REJECTS: &str = "rejects";
/// Facts of the runs: what each unit cost, where, and when.
pub const LEDGER: &str = "ledger";
/// What methods reached with the built-in learner, run by run.
pub const EXPERIMENTS: &str = "experiments";
/// What trainers measured on the spectrum validation set.
pub const FEEDBACK: &str = "feedback";

/// An image by the convention of Hugging Face `datasets`: encoded bytes, and an optional path.
pub fn image_type() -> DataType {
    DataType::Struct(image_fields())
}

/// The fields of [`image_type`].
pub fn image_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}

/// What `image_info` finds in an image: width and height in pixels, format, SHA-256 of the bytes.
pub fn info_type() -> DataType {
    DataType::Struct(info_fields())
}

/// The fields of [`info_type`].
pub fn info_fields() -> Fields {
    vec![
        Field::new("width", DataType::Int64, true),
        Field::new("height", DataType::Int64, true),
        Field::new("format", DataType::Utf8, true),
        Field::new("digest", DataType::Utf8, true),
    ]
    .into()
}

/// The field that a function adds to its struct where one image failed: such a row is a reject.
pub const ERROR_FIELD: &str = "error";

/// Whether `data_type` is that of images.
pub fn is_image(data_type: &DataType) -> bool {
    *data_type == image_type()
}

/// The encoded bytes in a column of images: a `struct<bytes, path>`, or the bytes alone. `None` where
/// the column holds no images.
pub fn image_bytes(column: &ArrayRef) -> Option<BinaryArray> {
    let bytes = match column.as_struct_opt() {
        Some(parts) => parts.column_by_name("bytes")?,
        None => column,
    };
    if !bytes.data_type().is_binary() && !bytes.data_type().is_null() {
        return None;
    }
    Some(cast(bytes, &DataType::Binary).ok()?.as_binary::<i32>().clone())
}

const TEXT: DataType = DataType::Utf8;
const INT: DataType = DataType::Int64;
const REAL: DataType = DataType::Float32;
const DOUBLE: DataType = DataType::Float64;

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

fn table(name: &str, kind: Kind, key: &[&'static str], columns: &[(&str, DataType)]) -> Table {
    Table { name: name.into(), schema: schema(columns), kind, key: key.to_vec() }
}

/// A table that a pipeline's own `[[step]]` fills; its columns are those of its query.
pub fn user_table(name: &str, schema: SchemaRef) -> Table {
    Table { name: name.into(), schema, kind: Kind::Chosen, key: Vec::new() }
}

/// Every table, in the order in which the steps run.
pub static TABLES: LazyLock<Vec<Table>> =
    LazyLock::new(|| [given(), real_images(), synthetic_images(), curriculum(), journals()].concat());

/// The table called `name`.
pub fn find(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

fn given() -> Vec<Table> {
    let texts = DataType::List(Arc::new(Field::new("item", TEXT, true)));
    vec![
        table(
            LISTING,
            Kind::Given,
            &["source_id"],
            &[
                ("source_id", TEXT),
                ("pixel_id", TEXT),
                ("path", TEXT),
                ("label", INT),
                ("class_name", TEXT),
                ("split", TEXT),
            ],
        ),
        table(DESCRIPTIONS, Kind::Given, &["class_name"], &[("class_name", TEXT), ("texts", texts)]),
        table(COMMON_NAMES, Kind::Given, &["class_name"], &[("class_name", TEXT), ("common_name", TEXT)]),
        table(CONFIDENCES, Kind::Given, &["path"], &[("path", TEXT), ("probability", DOUBLE)]),
    ]
}

fn real_images() -> Vec<Table> {
    vec![
        table(
            "pixels",
            Kind::Accumulated { over: LISTING, id: "pixel_id", sources_per_unit: 64 },
            &["pixel_id"],
            &[("pixel_id", TEXT), ("source_id", TEXT), ("info", info_type()), ("image", image_type())],
        ),
        table(
            "images",
            Kind::Chosen,
            &["source_id"],
            &[
                ("source_id", TEXT),
                ("pixel_id", TEXT),
                ("path", TEXT),
                ("label", INT),
                ("class_name", TEXT),
                ("split", TEXT),
                ("width", INT),
                ("height", INT),
                ("format", TEXT),
                ("digest", TEXT),
            ],
        ),
        table(
            "hard_samples",
            Kind::Chosen,
            &["source_id"],
            &[("source_id", TEXT), ("label", INT), ("class_name", TEXT), ("reason", TEXT)],
        ),
    ]
}

fn synthetic_images() -> Vec<Table> {
    let slot = [("source_id", TEXT), ("image_guidance", INT), ("seed", INT), ("attempt", INT)];
    let [source, guidance, seed, attempt] = slot;
    vec![
        table(
            "candidates",
            Kind::Chosen,
            &["sample_id"],
            &[
                ("sample_id", TEXT),
                ("score_id", TEXT),
                source.clone(),
                ("pixel_id", TEXT),
                ("label", INT),
                ("class_name", TEXT),
                guidance.clone(),
                seed.clone(),
                attempt.clone(),
                ("prompt", TEXT),
                ("filter_prompt", TEXT),
                ("noise_seed", INT),
                ("timesteps", INT),
                ("unet_evaluations", INT),
            ],
        ),
        table(
            "spectrum",
            Kind::Accumulated { over: "candidates", id: "sample_id", sources_per_unit: 1 },
            &["sample_id"],
            &[
                ("sample_id", TEXT),
                source.clone(),
                guidance.clone(),
                seed.clone(),
                attempt.clone(),
                ("prompt", TEXT),
                ("negative_prompt", TEXT),
                ("noise_seed", INT),
                ("timesteps", INT),
                ("guidance_scale", DataType::Float64),
                ("scheduler", TEXT),
                ("generator", TEXT),
                ("image", image_type()),
            ],
        ),
        table(
            "scores",
            Kind::Accumulated { over: "candidates", id: "score_id", sources_per_unit: 4 },
            &["score_id"],
            &[
                ("score_id", TEXT),
                ("sample_id", TEXT),
                ("filter_prompt", TEXT),
                ("clip", TEXT),
                ("text_similarity", REAL),
                ("image_similarity", REAL),
            ],
        ),
        table(
            "kept",
            Kind::Chosen,
            &["sample_id"],
            &[
                ("sample_id", TEXT),
                source.clone(),
                ("label", INT),
                ("class_name", TEXT),
                guidance.clone(),
                seed,
                attempt,
                ("text_similarity", REAL),
                ("image_similarity", REAL),
            ],
        ),
        table(
            "validation",
            Kind::Chosen,
            &["source_id", "image_guidance"],
            &[("sample_id", TEXT), source, ("label", INT), ("class_name", TEXT), guidance],
        ),
    ]
}

fn curriculum() -> Vec<Table> {
    let stage = [("curriculum", TEXT), ("trial", TEXT), ("epoch", INT)];
    let [curriculum, trial, epoch] = stage;
    vec![
        table(
            "probe",
            Kind::Chosen,
            &["curriculum", "trial", "epoch", "position"],
            &[
                curriculum.clone(),
                trial.clone(),
                epoch.clone(),
                ("position", INT),
                ("sample_id", TEXT),
                ("source_id", TEXT),
                ("label", INT),
            ],
        ),
        table(
            "progress",
            Kind::Chosen,
            &["curriculum", "trial", "epoch", "image_guidance"],
            &[
                curriculum,
                trial,
                epoch,
                ("image_guidance", INT),
                ("samples", INT),
                ("outliers", INT),
                ("gain", DOUBLE),
                ("standard_error", DOUBLE),
                ("chosen", DataType::Boolean),
            ],
        ),
        table(
            "schedule",
            Kind::Chosen,
            &["curriculum", "trial", "epoch", "image_guidance"],
            &[("curriculum", TEXT), ("trial", TEXT), ("epoch", INT), ("stage", INT), ("image_guidance", INT)],
        ),
        table(
            "manifest",
            Kind::Chosen,
            &["curriculum", "trial", "epoch", "position"],
            &[
                ("curriculum", TEXT),
                ("trial", TEXT),
                ("epoch", INT),
                ("position", INT),
                ("sample_id", TEXT),
                ("source_id", TEXT),
                ("label", INT),
                ("origin", TEXT),
                ("image_guidance", INT),
                ("seed", INT),
                ("attempt", INT),
            ],
        ),
    ]
}

fn journals() -> Vec<Table> {
    vec![
        table(
            FEEDBACK,
            Kind::Journal,
            &["curriculum", "trial", "epoch", "phase", "sample_id"],
            &[
                ("feedback_id", TEXT),
                ("curriculum", TEXT),
                ("trial", TEXT),
                ("epoch", INT),
                ("phase", TEXT),
                ("sample_id", TEXT),
                ("probability", DOUBLE),
            ],
        ),
        table(
            EXPERIMENTS,
            Kind::Journal,
            &["architecture", "method", "split_seed", "learner_seed", "metric"],
            &[
                ("architecture", TEXT),
                ("method", TEXT),
                ("loss", TEXT),
                ("sampling", TEXT),
                ("split_seed", INT),
                ("learner_seed", INT),
                ("metric", TEXT),
                ("value", DOUBLE),
            ],
        ),
        table(
            REJECTS,
            Kind::Journal,
            &["step", "id"],
            &[("step", TEXT), ("unit", TEXT), ("id", TEXT), ("source_id", TEXT), ("reason", TEXT)],
        ),
        table(
            LEDGER,
            Kind::Journal,
            &[],
            &[
                ("step", TEXT),
                ("unit", TEXT),
                ("fingerprint", TEXT),
                ("parts", TEXT),
                ("rows", INT),
                ("rejects", INT),
                ("unet_evaluations", INT),
                ("seconds", DataType::Float64),
                ("provider", TEXT),
                ("finished_ms", INT),
            ],
        ),
    ]
}
