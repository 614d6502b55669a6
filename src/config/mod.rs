//! The pipeline file: TOML → typed configuration, with everything that is wrong said at once.
//!
//! ```text
//! file ─► document (a tree with lines) ─► edit (--set) ─► sections (reader, kinds, rules)
//!                                                              ├─► Config
//!                                                              └─► Diagnostics
//! ```
//!
//! Nothing here looks at what the file names: whether a model, an SQL file or a data set exists is
//! found out later. A [`Config`] is sound in itself: every range and relation below holds.
//!
//! Why no `serde` for the file: it stops at the first error, and forgets where a value stood.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Diagnostics, diagnostics::Problems};
pub use experiment::{DataSplit, Experiment, Learner};
pub use location::{HubFolder, ModelLocation};
pub use parameters::BUILT_IN_PARAMETERS;
pub use source::SourceKind;

mod brace_expansion;
mod document;
mod edit;
mod experiment;
mod location;
mod parameters;
mod reader;
mod sections;
mod source;
mod strings;
mod template;
#[cfg(test)]
mod tests;
mod values;

/// Largest pipeline file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A pipeline: what its TOML file and the `--set` edits say, with defaults filled in.
///
/// Paths are as they were written; relative ones are not yet resolved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// The pipeline's name: 1 to 64 of `a-z`, `0-9`, `_` and `-`; its folder in the lake.
    pub name: String,
    /// Seed of every random draw (noise has `spectrum.seeds` besides); 64 bits, default 0.
    pub seed: i64,
    /// `[lake] root`: the directory or URL (`file`, `s3`, `gs`, `az`, `memory`) that holds tables.
    pub lake_root: String,
    /// Folder whose files replace, or add to, the built-in `sql/`.
    pub sql_dir: Option<PathBuf>,
    /// The data set.
    pub source: Source,
    /// The models.
    pub models: Models,
    /// Which images are hard.
    pub hard_samples: HardSamples,
    /// The texts that guide and filter.
    pub prompts: Prompts,
    /// What is generated.
    pub spectrum: Spectrum,
    /// Which generated images are kept.
    pub filter: Filter,
    /// What is kept from training.
    pub validation: Validation,
    /// What is trained on in which epoch.
    pub curriculum: Curriculum,
    /// The built-in classifier.
    pub learner: Learner,
    /// What it compares.
    pub experiment: Experiment,
    /// How many rows may fail.
    pub rejects: Rejects,
    /// How GPUs are set up; says nothing of what is made.
    pub cuda: Cuda,
    /// How much queries may take; says nothing of what they give.
    pub queries: Queries,
    /// `[[step]]`: tables of the user's own, in file order, all different.
    pub steps: Vec<UserStep>,
    /// `[[expect]]`: tests of the data, in file order, with different names.
    pub expect: Vec<Expect>,
    /// `[parameters]`: values for `$name` in the user's SQL; none has a built-in's name.
    pub parameters: BTreeMap<String, Parameter>,
}

/// `[source]`: the data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    /// How it is stored, and what only such data sets have.
    pub kind: SourceKind,
    /// The directory or URL below which its files are.
    pub root: String,
    /// What makes up each split: files or folders relative to `root` (those of [`SourceKind::List`] relative to its
    /// `lists`), or values of its split column. In the order of [`Split`], never without train, nothing twice.
    pub splits: Vec<(Split, Vec<String>)>,
    /// The query that takes its images in: `pixels/embed.sql`, which is the default and keeps them in the lake, or
    /// `pixels/reference.sql`, which leaves them where they are.
    pub sql: String,
    /// File with class names: JSON (a list, or an object from number to name), `.txt` (a name on each line) or `.csv`
    /// (columns `label` or `y`, and `name`).
    pub classes: Option<PathBuf>,
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What is trained on, and the only part that is augmented.
    Train,
    /// What models are chosen by.
    Validation,
    /// What the chosen model is judged by, once.
    Test,
    /// The same for images that are unlike those of training.
    #[serde(rename = "shifted_test")]
    ShiftedTest,
}

impl Split {
    /// All splits, in their order.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::Test, Self::ShiftedTest];

    /// The name in `[source.splits]` and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::ShiftedTest => "shifted_test",
        }
    }
}

/// `[models]`: folders in the layout of `optimum-cli export onnx`, each a [`ModelLocation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Models {
    /// The diffusion model.
    pub diffusion: String,
    /// The CLIP model.
    pub clip: String,
    /// Image classifiers of the user's own by name, for `classify(name, image)`.
    pub classifiers: BTreeMap<String, String>,
}

/// `[hard_samples]`: which real images get a spectrum.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HardSamples {
    /// The query; default `hard_samples/few_shot.sql`.
    pub sql: String,
    /// Training images below which a class is few-shot; from 1, default 20.
    pub max_class_count: i64,
    /// A Parquet file with the `path` of an image, as in `images`, and the `probability` of its class under a
    /// classifier, for `hard_samples/low_confidence.sql`.
    pub confidences: Option<PathBuf>,
    /// One of `[models.classifiers]`, for `hard_samples/classifier.sql`.
    pub classifier: Option<String>,
    /// Below this probability an image is hard, 0 to 1; default 1.
    pub max_probability: f64,
    /// At most this share of the training images is hard, 0 to 1; default 1.
    pub hard_fraction: f64,
    /// Names of classes that never get a spectrum, all different; default none.
    pub exclude_classes: Vec<String>,
}

/// `[prompts]`: templates in which only `{class}` and `{description}` are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prompts {
    /// JSON file from class to a list of texts, or the JSON Lines (`.jsonl`) of `discl-pipe prompts`.
    pub descriptions: Option<PathBuf>,
    /// JSON file from class to the name that `{class}` becomes; a class that is not in it keeps its own.
    pub common_names: Option<PathBuf>,
    /// What images are generated from; `{description}` only with `descriptions`; default
    /// `a photo of {class}`.
    pub generation: String,
    /// What generated images are compared with; default `a photo of {class}`.
    pub filter: String,
}

/// `[spectrum]`: which images are generated, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spectrum {
    /// Percent of the real image kept, 0 to 100; at least one, all different.
    pub image_guidance: Vec<i64>,
    /// Noise seeds from 0; at least one, all different.
    pub seeds: Vec<i64>,
    /// Denoising timesteps of a full schedule, 1 to 1000; default 50.
    pub timesteps: i64,
    /// Classifier-free guidance factor as diffusers counts it, 0 to 100; default 10.
    pub guidance_scale: f64,
    /// One of `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras` and `lcm`; none is the
    /// model's own.
    pub scheduler: Option<String>,
    /// What images shall not show. None is diffusers' `None`: zeros where the model's pipeline forces them, else the
    /// empty text.
    pub negative_prompt: Option<String>,
    /// `counter`: a stream of noise for each seed and purpose; `torch`: the numbers of torch's generator on the CPU,
    /// drawn in diffusers' order. Default `counter`.
    pub noise: String,
    /// Starts guidance 0 from noise alone; diffusers leaves some of the image in it. Default false.
    pub pure_noise_at_zero: bool,
    /// The size in pixels that images are brought to before anything else, width and height; none leaves them as they
    /// are. Every side is then cut to whole latents.
    pub size: Option<(i64, i64)>,
    /// Takes the largest size inside `size` that has the image's aspect, and not `size` itself. Default true.
    pub keep_aspect: bool,
}

/// `[filter]`: which generated images are kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filter {
    /// The query; default `kept/text_similarity.sql`.
    pub sql: String,
    /// What CLIP sees of an image: `center_crop`, as its preprocessor says, or `whole`, squeezed into the crop's size.
    /// Default `center_crop`.
    pub frame: String,
    /// Least cosine to the filter prompt, -1 to 1; default 0.3.
    pub min_text_similarity: f64,
    /// Times that a candidate is generated before it is given up, 1 to 100; default 6.
    pub max_attempts: i64,
}

/// `[curriculum]`: what is trained on in which epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curriculum {
    /// Name of the strategy, an identifier; default `diverse_to_specific`.
    pub strategy: String,
    /// Training epochs, 1 to 100000; default 65.
    pub epochs: i64,
    /// Epochs with synthetic images, 0 to `epochs`; default 60. The rest is real only.
    pub curriculum_epochs: i64,
    /// Share of the non-hard real images in each epoch, 0 to 1; default 0.3.
    pub non_hard_fraction: f64,
    /// Share of hard images, real and synthetic, in an epoch, 0 to below 1; default 0.136.
    pub hard_share: f64,
    /// The level of the strategy `fixed`, one of those of the spectrum; none for other strategies.
    pub level: Option<i64>,
    /// Names of the training runs that an adaptive strategy serves, at least one; default `0` alone.
    pub trials: Vec<String>,
    /// Real images that an adaptive trainer trains on between its two measurements of an epoch; default 0.
    pub probe_size: i64,
    /// Gives each class an equal part of an epoch's synthetic images, and not one as large as its share of those
    /// that were kept. Default false.
    pub class_balanced: bool,
    /// The query that mixes an epoch: `manifest/mixed.sql`, which is the default and keeps `hard_share`, or
    /// `manifest/low_quality.sql`, which takes every image of a level.
    pub manifest: String,
}

/// `[validation]`: which sources of the spectrum are kept from training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// How many; default 0. Only those with a kept image at every level are taken.
    pub sources: i64,
}

/// `[rejects]`: how many rows may fail.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rejects {
    /// Share of a step's rows that may fail before the run does, 0 to 1; default 0.01.
    pub max_fraction: f64,
}

/// `[cuda]`: how GPUs are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cuda {
    /// Most memory in MiB that one graph may take beside its weights; none is as much as there is.
    pub memory_limit_mib: Option<i64>,
    /// Lets matrix products and convolutions round their inputs to TF32: faster, less exact. Default false.
    pub tf32: bool,
}

/// `[queries]`: how much queries may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Queries {
    /// Most memory in MiB for sorts, joins and groups, which go to disk beyond it where they can; none is as much as
    /// there is.
    pub memory_limit_mib: Option<i64>,
}

/// `[[step]]`: a table of the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserStep {
    /// The table, an identifier.
    pub table: String,
    /// The query that fills it.
    pub sql: String,
}

/// `[[expect]]`: a query that must return no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expect {
    /// What is expected, in words.
    pub name: String,
    /// The text of the query.
    pub sql: String,
}

/// A value for `$name` in SQL.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Parameter {
    /// A 64-bit integer.
    Integer(i64),
    /// A finite number.
    Float(f64),
    /// A string without control characters.
    String(String),
    /// A truth value.
    Boolean(bool),
}

impl Config {
    /// Reads a pipeline file, makes the `--set` edits (each `section.key=value`), and parses.
    ///
    /// # Errors
    /// Everything that is wrong with the file and the edits.
    pub fn load(path: &Path, set: &[String]) -> Result<Self, Diagnostics> {
        let origin = path.to_string_lossy();
        match read(path) {
            Ok(text) => Self::parse(&text, &origin, set),
            Err(error) => Err(Diagnostics::whole_file(&origin, None, error.to_string())),
        }
    }

    /// Parses the text of a pipeline file after the `--set` edits; `origin` names it in messages.
    ///
    /// # Errors
    /// Everything that is wrong with the text and the edits.
    pub fn parse(text: &str, origin: &str, set: &[String]) -> Result<Self, Diagnostics> {
        let mut root = document::parse(text, origin)?;
        let mut problems = Problems::new(origin, set);
        edit::apply(&mut root, set, &mut problems);
        let config = sections::config(reader::Section::root(&root, &mut problems));
        problems.finish().map(|()| config)
    }
}

/// Why a file has no text.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("no such file")]
    Missing,
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    #[error("over {MAX_FILE_BYTES} bytes long, which no pipeline is")]
    TooLong,
    #[error("not UTF-8 text, line {0} is the first that is not")]
    NotText(usize),
}

fn read(path: &Path) -> Result<String, ReadError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ReadError::Missing,
        kind => ReadError::Unreadable(kind),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // The limit holds while reading: the path may be a pipe or a device without an end.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLong);
    }
    String::from_utf8(bytes).map_err(|error| {
        let sound = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        ReadError::NotText(1 + sound.filter(|byte| **byte == b'\n').count())
    })
}
