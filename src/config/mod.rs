//! The pipeline file: TOML → typed configuration, with every problem reported at once.
//!
//! ```text
//! file ─► document (a tree with lines) ─► edit (--set) ─► sections (keys, each declared once) ─► relations ─► Config
//!                                                               └──────────────┬───────────────────┘
//!                                                                         Diagnostics
//! ```
//!
//! A key is declared in one place, with its description, type, range, default and SQL parameter; `declaration` says how.
//! `docs/reference.md` lists the declarations, and a test compares it with them.
//!
//! Nothing here looks at what the file names: whether a model, an SQL file or a data set exists is
//! found out later. A [`Config`] is valid in itself: every range and relation holds.
//!
//! Why not `serde` for the file: it stops at the first error, and forgets the line of a value.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use serde::Serialize;

use crate::{
    error::{Diagnostics, diagnostics::Problems},
    limited_read,
};
pub use experiment::{DataSplit, Experiment, Learner};
pub use key::{DefaultValue, Key};
pub use location::{HubFolder, ModelLocation};
pub use parameter::Parameter;
pub use sections::{
    Cuda, Curriculum, Expect, Filter, HardSamples, Models, Prompts, Queries, Rejects, Spectrum, UserStep, Validation,
};
pub use source::{LabelKind, Source, SourceKind, Split, Splits};
pub use timesteps::timesteps_run;
pub use user_parameters::ComputedParameter;

use declaration::{Declared, inside, nested, optional, or, required, section, sections};
use strings::{LOCATION, NAME};
use user_parameters::UserParameters;
use value_types::{LocalPath, integer};

mod brace_expansion;
mod declaration;
mod document;
mod edit;
mod experiment;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod key;
mod location;
mod parameter;
mod reader;
mod relations;
mod sections;
mod source;
mod strings;
mod template;
#[cfg(test)]
mod tests;
mod timesteps;
mod user_parameters;
mod value_types;

/// The level that stands for the hard real images themselves.
pub(crate) const REAL_LEVEL: i64 = 100;

/// The query of manifests for images that are hard because they are poor. Its levels include the real images.
pub(crate) const LOW_QUALITY: &str = "manifest/low_quality.sql";

/// The query of manifests that keep a share of hard images.
pub(crate) const MIXED: &str = "manifest/mixed.sql";

/// The strategy without synthetic images. It tells what the shares of a manifest do by themselves.
pub(crate) const REAL_ONLY: &str = "real_only";

/// The share of the rare classes in ImageNet-LT, which the paper keeps in every epoch.
const DEFAULT_HARD_SHARE: f64 = 0.136;

/// Largest pipeline file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

section! {
    /// A pipeline: its TOML file and the `--set` edits, with defaults filled in.
    ///
    /// Paths are unchanged; relative ones are not yet resolved.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct Config {
        /// The pipeline's name, which is its folder in the lake.
        name: String = required(NAME), sql "name";
        /// The seed of the random draws of the spectrum: prompts, the validation set, and noise, which also has
        /// `spectrum.seeds`.
        seed: i64 = or(integer(i64::MIN..=i64::MAX, ""), 0), sql "seed";
        /// The directory or URL that holds the tables.
        lake_root: String = inside("lake", "root", required(LOCATION));
        /// A folder with your own queries, which replace built-in files of the same path in `sql/` or add to them.
        sql_dir: Option<PathBuf> = optional(LocalPath);
        /// The data set.
        source: Source = nested();
        /// The models.
        models: Models = nested();
        /// Which images are hard.
        hard_samples: HardSamples = nested();
        /// The prompts for generation and filtering.
        prompts: Prompts = nested();
        /// Which images are generated, and how.
        spectrum: Spectrum = nested();
        /// Which generated images are kept.
        filter: Filter = nested();
        /// What is kept from training.
        validation: Validation = nested();
        /// What is trained on in which epoch.
        curriculum: Curriculum = nested();
        /// The built-in classifier.
        learner: Learner = nested();
        /// What is compared.
        experiment: Experiment = nested();
        /// How many rows may fail.
        rejects: Rejects = nested();
        /// How GPUs are set up.
        cuda: Cuda = nested();
        /// What queries may use.
        queries: Queries = nested();
        /// User-defined tables, in file order.
        steps: Vec<UserStep> = sections("step", "table");
        /// Tests of the data, in file order.
        expect: Vec<Expect> = sections("expect", "name");
        /// The value of `$NAME` in SQL. No built-in parameter can be redefined.
        parameters: BTreeMap<String, Parameter> = UserParameters { keys };
    }
}

/// Returns every key of the pipeline file, in the order of its sections.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| <Config as Declared>::keys(""));
    &KEYS
}

impl Config {
    /// Reads a pipeline file, applies the `--set` edits (each `section.key=value`), and parses.
    ///
    /// # Errors
    /// Returns every problem of the file and the edits.
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
    /// Returns every problem of the text and the edits.
    pub fn parse(text: &str, origin: &str, set: &[String]) -> Result<Self, Diagnostics> {
        let mut root = document::parse(text, origin)?;
        let mut problems = Problems::new(origin, set);
        edit::apply(&mut root, set, &mut problems);
        let mut file = reader::Section::root(&root, &mut problems);
        let mut config = <Self as Declared>::read(&mut file);
        file.finish();
        config.fill_defaults();
        relations::check(&config, &root, &mut problems);
        problems.finish().map(|()| config)
    }

    /// Sets the keys whose defaults depend on other keys.
    fn fill_defaults(&mut self) {
        if self.experiment.strategies.is_empty() {
            self.experiment.strategies.push(self.curriculum.strategy.clone());
        }
        let curriculum = &mut self.curriculum;
        if curriculum.levels.is_empty() {
            curriculum.levels.clone_from(&self.spectrum.image_guidance);
            curriculum.levels.extend((curriculum.manifest == LOW_QUALITY).then_some(REAL_LEVEL));
        }
        curriculum.seed.get_or_insert(self.seed);
        if curriculum.synthetic_per_hard.is_none() {
            curriculum.hard_share.get_or_insert(DEFAULT_HARD_SHARE);
        }
    }

    /// Returns the SQL parameters that are values of keys, and the user's `[parameters]`.
    pub fn sql_parameters(&self) -> BTreeMap<String, Parameter> {
        let mut built_in = Vec::new();
        Declared::parameters(self, &mut built_in);
        let mut all = self.parameters.clone();
        all.extend(built_in.into_iter().map(|(name, value)| (name.to_owned(), value)));
        all
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("no such file")]
    Missing,
    #[error("cannot be read: {0}")]
    Unreadable(ErrorKind),
    #[error("larger than {MAX_FILE_BYTES} bytes, the limit of a pipeline file")]
    TooLarge,
    #[error("not valid UTF-8 at line {0}")]
    NotText(usize),
}

fn read(path: &Path) -> Result<String, ReadError> {
    let bytes = limited_read::read(path, MAX_FILE_BYTES).map_err(|error| match error.kind() {
        ErrorKind::NotFound => ReadError::Missing,
        ErrorKind::FileTooLarge => ReadError::TooLarge,
        kind => ReadError::Unreadable(kind),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        ReadError::NotText(1 + valid.filter(|byte| **byte == b'\n').count())
    })
}
