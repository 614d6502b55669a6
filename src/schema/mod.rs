//! The names and types of every table and column.
//!
//! Integers are `int64` (SQL's own), similarities are `float32` cosines in −1..=1, ids are 32 hexadecimal digits
//! ([`crate::identity`]). Delta has neither unsigned integers nor half floats.

pub(crate) mod columns;
pub(crate) mod conform;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

pub(crate) use self::columns::image_bytes;

/// How a table gets its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Known before any step runs; held in memory and never written.
    Input,
    /// Every run of its step replaces all rows by a new version.
    FullRefresh,
    /// Rows are only added: one row with the same `id` for each row of `over`.
    Incremental {
        /// The table whose rows request the work.
        over: &'static str,
        /// The column that identifies the work, in both tables.
        id: &'static str,
        /// How many values of `source_id` make up a unit.
        sources_per_unit: usize,
    },
    /// Rows are added outside of the steps' queries: `rejects`, `ledger`, `experiments`, and the `feedback` of trainers.
    Log,
}

/// A table of the lake.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// Also the name of its folder.
    pub(crate) name: String,
    pub(crate) schema: SchemaRef,
    pub(crate) kind: Kind,
    /// Columns that identify a row: no two rows agree on all of them.
    pub(crate) key: Vec<&'static str>,
    /// Columns that its query may leave out; they are then NULL.
    pub(crate) optional: Vec<&'static str>,
}

impl Table {
    /// Whether the table is written to the lake.
    pub(crate) fn is_stored(&self) -> bool {
        self.kind != Kind::Input
    }
}

/// The real images of the source before they are read: one row per image.
pub(crate) const LISTING: &str = "listing";
/// Descriptions of each class for the generation prompt.
pub(crate) const DESCRIPTIONS: &str = "descriptions";
/// Names that prompts use for classes in place of the data set's.
pub(crate) const COMMON_NAMES: &str = "common_names";
/// The probability that a custom classifier gives to each image's class.
pub(crate) const CONFIDENCES: &str = "confidences";
/// The bytes of the real images, or references to them.
pub(crate) const PIXELS: &str = "pixels";
/// The classes of the data set and their texts.
pub(crate) const CLASSES: &str = "classes";
/// The training images that get a spectrum.
pub(crate) const HARD_SAMPLES: &str = "hard_samples";
/// The generated images.
pub(crate) const SPECTRUM: &str = "spectrum";
/// Generated images that passed the filter.
pub(crate) const KEPT: &str = "kept";
/// What a trainer gained from each level; only for adaptive curricula.
pub(crate) const PROGRESS: &str = "progress";
/// The levels of each epoch.
pub(crate) const SCHEDULE: &str = "schedule";
/// The rows of each epoch in training order.
pub(crate) const MANIFEST: &str = "manifest";
/// Requested rows that could not be generated, with the reason.
pub(crate) const REJECTS: &str = "rejects";
/// What each unit cost, where and when.
pub(crate) const LEDGER: &str = "ledger";
/// Results of the built-in learner, run by run.
pub(crate) const EXPERIMENTS: &str = "experiments";
/// What trainers measured on the spectrum validation set.
pub(crate) const FEEDBACK: &str = "feedback";

/// The column that identifies a real image in every table.
pub(crate) const SOURCE_ID: &str = "source_id";

/// Returns the type of an image, by the convention of Hugging Face `datasets`: encoded bytes, and an optional path.
pub(crate) fn image_type() -> DataType {
    DataType::Struct(image_fields())
}

/// Returns the fields of [`image_type`].
pub(crate) fn image_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}

/// Returns the type of the result of `image_info`: width and height in pixels, format, SHA-256 of the bytes.
pub(crate) fn info_type() -> DataType {
    DataType::Struct(info_fields())
}

/// Returns the fields of [`info_type`].
pub(crate) fn info_fields() -> Fields {
    vec![
        Field::new("width", DataType::Int64, true),
        Field::new("height", DataType::Int64, true),
        Field::new("format", DataType::Utf8, true),
        Field::new("digest", DataType::Utf8, true),
    ]
    .into()
}

/// The field that a function adds to its struct for an image that failed: such a row is rejected.
pub(crate) const ERROR_FIELD: &str = "error";

/// The columns of `scores` that must be numbers, each with the reason of a row in which it is not: such a row is rejected.
const SIMILARITIES: [(&str, &str); 2] = [
    (
        "text_similarity",
        "no `text_similarity`: the CLIP's embedding of the image or of its filter prompt is not finite or is zero",
    ),
    (
        "image_similarity",
        "no `image_similarity`: the CLIP's embedding of the image or of its real image is not finite or is zero",
    ),
];

/// Whether `data_type` is [`image_type`].
pub(crate) fn is_image(data_type: &DataType) -> bool {
    *data_type == image_type()
}

const TEXT: DataType = DataType::Utf8;
const INT: DataType = DataType::Int64;
const REAL: DataType = DataType::Float32;
const DOUBLE: DataType = DataType::Float64;

/// Returns the type of a list of texts.
pub(crate) fn texts() -> DataType {
    DataType::List(Arc::new(Field::new("item", TEXT, true)))
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

fn table(name: &str, kind: Kind, key: &[&'static str], columns: &[(&str, DataType)]) -> Table {
    Table { name: name.into(), schema: schema(columns), kind, key: key.to_vec(), optional: Vec::new() }
}

/// Returns the table of a user-defined `[[step]]`, with the columns of its query.
pub(crate) fn user_table(name: &str, schema: SchemaRef) -> Table {
    Table { name: name.into(), schema, kind: Kind::FullRefresh, key: Vec::new(), optional: Vec::new() }
}

/// Every table, in the order in which the steps run.
pub(crate) static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let inputs = [&LISTING_TABLE, &DESCRIPTIONS_TABLE, &COMMON_NAMES_TABLE, &CONFIDENCES_TABLE];
    let logs = [&FEEDBACK_TABLE, &EXPERIMENTS_TABLE, &REJECTS_TABLE, &LEDGER_TABLE];
    let clones = |tables: [&LazyLock<Table>; 4]| tables.map(|table| Table::clone(table)).to_vec();
    [clones(inputs), real_images(), synthetic_images(), curriculum(), clones(logs)].concat()
});

/// Returns the built-in tables that steps fill, in the order of the steps.
pub(crate) fn step_tables() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().filter(|table| matches!(table.kind, Kind::FullRefresh | Kind::Incremental { .. }))
}

/// Returns the built-in table `name`.
pub(crate) fn find(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

pub(crate) static LISTING_TABLE: LazyLock<Table> = LazyLock::new(|| {
    let columns = [
        ("source_id", TEXT),
        ("pixel_id", TEXT),
        ("path", TEXT),
        ("label", INT),
        ("class_name", TEXT),
        ("split", TEXT),
    ];
    table(LISTING, Kind::Input, &["source_id"], &columns)
});

pub(crate) static DESCRIPTIONS_TABLE: LazyLock<Table> =
    LazyLock::new(|| table(DESCRIPTIONS, Kind::Input, &["class_name"], &[("class_name", TEXT), ("texts", texts())]));

pub(crate) static COMMON_NAMES_TABLE: LazyLock<Table> =
    LazyLock::new(|| table(COMMON_NAMES, Kind::Input, &["class_name"], &[("class_name", TEXT), ("common_name", TEXT)]));

pub(crate) static CONFIDENCES_TABLE: LazyLock<Table> =
    LazyLock::new(|| table(CONFIDENCES, Kind::Input, &["path"], &[("path", TEXT), ("probability", DOUBLE)]));

fn real_images() -> Vec<Table> {
    vec![
        table(
            PIXELS,
            Kind::Incremental { over: LISTING, id: "pixel_id", sources_per_unit: 64 },
            &["pixel_id"],
            &[("pixel_id", TEXT), ("source_id", TEXT), ("info", info_type()), ("image", image_type())],
        ),
        table(
            "images",
            Kind::FullRefresh,
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
            CLASSES,
            Kind::FullRefresh,
            &["label"],
            &[
                ("label", INT),
                ("class_name", TEXT),
                ("common_name", TEXT),
                ("filter_prompt", TEXT),
                ("captions", texts()),
            ],
        ),
        table(
            HARD_SAMPLES,
            Kind::FullRefresh,
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
            Kind::FullRefresh,
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
            SPECTRUM,
            Kind::Incremental { over: "candidates", id: "sample_id", sources_per_unit: 1 },
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
                ("guidance_scale", DOUBLE),
                ("scheduler", TEXT),
                ("generator", TEXT),
                ("image", image_type()),
            ],
        ),
        table(
            "scores",
            Kind::Incremental { over: "candidates", id: "score_id", sources_per_unit: 4 },
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
        Table {
            optional: vec!["prompt"],
            ..table(
                KEPT,
                Kind::FullRefresh,
                &["sample_id"],
                &[
                    ("sample_id", TEXT),
                    source.clone(),
                    ("label", INT),
                    ("class_name", TEXT),
                    guidance.clone(),
                    seed,
                    attempt,
                    ("prompt", TEXT),
                    ("text_similarity", REAL),
                    ("image_similarity", REAL),
                ],
            )
        },
        table(
            "validation",
            Kind::FullRefresh,
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
            Kind::FullRefresh,
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
            PROGRESS,
            Kind::FullRefresh,
            &["curriculum", "trial", "epoch", "label", "image_guidance"],
            &[
                curriculum,
                trial,
                epoch,
                ("label", INT),
                ("image_guidance", INT),
                ("samples", INT),
                ("outliers", INT),
                ("gain", DOUBLE),
                ("standard_error", DOUBLE),
                ("chosen", DataType::Boolean),
            ],
        ),
        Table {
            optional: vec!["label"],
            ..table(
                SCHEDULE,
                Kind::FullRefresh,
                &["curriculum", "trial", "epoch", "image_guidance", "label"],
                &[
                    ("curriculum", TEXT),
                    ("trial", TEXT),
                    ("epoch", INT),
                    ("stage", INT),
                    ("image_guidance", INT),
                    ("label", INT),
                ],
            )
        },
        manifest(),
    ]
}

fn manifest() -> Table {
    let columns = [
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
        ("prompt", TEXT),
        ("filter_prompt", TEXT),
        ("common_name", TEXT),
        ("captions", texts()),
    ];
    let key = ["curriculum", "trial", "epoch", "position"];
    let optional = vec!["prompt", "filter_prompt", "common_name", "captions"];
    Table { optional, ..table(MANIFEST, Kind::FullRefresh, &key, &columns) }
}

pub(crate) static FEEDBACK_TABLE: LazyLock<Table> = LazyLock::new(|| {
    let key = ["curriculum", "trial", "epoch", "phase", "sample_id"];
    let columns = [
        ("feedback_id", TEXT),
        ("curriculum", TEXT),
        ("trial", TEXT),
        ("epoch", INT),
        ("phase", TEXT),
        ("sample_id", TEXT),
        ("probability", DOUBLE),
    ];
    table(FEEDBACK, Kind::Log, &key, &columns)
});

pub(crate) static EXPERIMENTS_TABLE: LazyLock<Table> = LazyLock::new(|| {
    let key = ["architecture", "method", "split_seed", "learner_seed", "metric"];
    let columns = [
        ("architecture", TEXT),
        ("method", TEXT),
        ("loss", TEXT),
        ("sampling", TEXT),
        ("split_seed", INT),
        ("learner_seed", INT),
        ("metric", TEXT),
        ("value", DOUBLE),
    ];
    table(EXPERIMENTS, Kind::Log, &key, &columns)
});

pub(crate) static REJECTS_TABLE: LazyLock<Table> = LazyLock::new(|| {
    let columns = [("step", TEXT), ("unit", TEXT), ("id", TEXT), ("source_id", TEXT), ("reason", TEXT), ("path", TEXT)];
    table(REJECTS, Kind::Log, &["step", "id"], &columns)
});

pub(crate) static LEDGER_TABLE: LazyLock<Table> = LazyLock::new(|| {
    let columns = [
        ("step", TEXT),
        ("unit", TEXT),
        ("fingerprint", TEXT),
        ("parts", TEXT),
        ("rows", INT),
        ("rejects", INT),
        ("unet_evaluations", INT),
        ("seconds", DOUBLE),
        ("provider", TEXT),
        ("finished_ms", INT),
        ("batches", TEXT),
        ("tflops", DOUBLE),
        ("peak_share", DOUBLE),
        ("gap_ms", DOUBLE),
        ("memory_mib", INT),
    ];
    table(LEDGER, Kind::Log, &[], &columns)
});
