//! The sections of the pipeline file, but for `[source]`, `[learner]` and `[experiment]`.
//!
//! The doc comment of a field is its description in `docs/reference.md`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::{
    declaration::{Declaration, optional, optional_or_same_as, or, or_same_as, required, section},
    document::Entry,
    key::{DefaultValue, Field, Key},
    reader::Section,
    strings::{FILLED_LINE, IDENTIFIER, LINE, MODEL, NAME, QUERY, SQL_PATH},
    template::Template,
    value_types::{
        Boolean, Integer, LocalPath, OneOf, ValueType, integer, list_of, number, number_below, one_or_list_of,
    },
};

const MAX_EPOCHS: i64 = 100_000;

/// A level of a curriculum.
const LEVEL: Integer = integer(0..=100, "percent of the real image kept");

/// The method's prompt: the class, and nothing that a class does not have.
const DEFAULT_PROMPT: &str = "a photo of {class}";

/// CLIP's caption of an image, with the full stop that FLYP trains with.
const DEFAULT_CAPTION: &str = "a photo of {class}.";

/// The schedulers that `models::diffusion` has.
const SCHEDULERS: &[&str] = &["ddim", "pndm", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "lcm"];

section! {
    /// `[models]`: directories or URLs in the layout of `optimum-cli export onnx`, each a
    /// [`ModelLocation`](super::ModelLocation).
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct Models {
        /// The diffusion model: Stable Diffusion 1.x or 2.x, SDXL, or the SDXL refiner.
        diffusion: String = required(MODEL);
        /// The CLIP model that scores images.
        clip: String = required(MODEL);
        /// Images per batch of the diffusion model. If it is not set, the number follows from the size of the images and the
        /// memory of the device. It does not change what is generated, except in the last digits.
        batch: Option<i64> = optional(integer(1..=1024, "images"));
        /// A custom image classifier, for `hard_samples.classifier` and for `classify('NAME', image)` in SQL.
        classifiers: BTreeMap<String, String> = Classifiers;
    }
}

/// `[models.classifiers]`: directories and URLs under names that the user chooses.
#[derive(Debug, Clone, Copy)]
struct Classifiers;

impl Declaration for Classifiers {
    type Value = BTreeMap<String, String>;

    fn read(&self, name: &'static str, section: &mut Section<'_, '_>) -> BTreeMap<String, String> {
        let mut section = section.section(name);
        let mut out = BTreeMap::new();
        for Entry { key: name, place, node } in section.entries() {
            let key = section.key(name);
            if !(IDENTIFIER.holds)(name) {
                let message = format!("not a valid name, expected {}", IDENTIFIER.expected);
                section.problems().add(Some(*place), &key, message);
            } else if let Some(location) = MODEL.read(&key, node, section.problems()) {
                out.insert(name.clone(), location);
            }
        }
        out
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        let header = field.subsection(field.name);
        vec![Field { header: &header, name: "NAME", ..field.clone() }.key(MODEL.expected(), DefaultValue::Unset)]
    }
}

section! {
    /// `[hard_samples]`: which real images get a spectrum.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct HardSamples {
        /// The query that selects them: `hard_samples/few_shot.sql` (images of rare classes),
        /// `hard_samples/classifier.sql` or `hard_samples/low_confidence.sql` (images whose class a classifier finds
        /// improbable), or your own.
        sql: String = or(SQL_PATH, "hard_samples/few_shot.sql");
        /// A class with fewer training images than this is few-shot, and its images are hard.
        max_class_count: i64 = or(integer(1..=i64::MAX, "images"), 20), sql "max_class_count";
        /// A Parquet file with the columns `path`, as in `images`, and `probability`, which a classifier gives to the
        /// image's class; `discl-pipe confidences` writes one. For `hard_samples/low_confidence.sql`.
        confidences: Option<PathBuf> = optional(LocalPath);
        /// A name of `[models.classifiers]`, for `hard_samples/classifier.sql`.
        classifier: Option<String> = optional(IDENTIFIER), sql "classifier";
        /// An image is hard if the probability of its class is below this. Queries that rank images by probability
        /// require this, or `hard_fraction`.
        max_probability: f64 = or(number(0.0..=1.0, "probability"), 1.0), sql "max_probability";
        /// At most this share of the training images is hard; the least probable are taken.
        hard_fraction: f64 = or(number(0.0..=1.0, "share of the training images"), 1.0), sql "hard_fraction";
        /// Names of classes that never get a spectrum.
        exclude_classes: Vec<String> = or(one_or_list_of(FILLED_LINE), Vec::new()), sql "exclude_classes";
    }
}

section! {
    /// `[prompts]`: templates in which `{class}` and `{description}` are replaced.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct Prompts {
        /// Descriptions of the classes, for `{description}`: a JSON file from class to a list of strings, or the JSON
        /// Lines (`.jsonl`) that `discl-pipe prompts` writes.
        descriptions: Option<PathBuf> = optional(LocalPath);
        /// A JSON file from class to the name that replaces `{class}`; a class that is not in it keeps its name.
        common_names: Option<PathBuf> = optional(LocalPath);
        /// What images are generated from. `{description}` requires `descriptions`.
        generation: String = or(Template(&["{class}", "{description}"]), DEFAULT_PROMPT), sql "generation_prompt";
        /// What CLIP compares generated images with.
        filter: String = or(Template(&["{class}"]), DEFAULT_PROMPT), sql "filter_prompt";
        /// Captions of an image of a class, for trainers that learn from text.
        captions: Vec<String> = or(one_or_list_of(Template(&["{class}"])), vec![DEFAULT_CAPTION.to_owned()]),
            sql "captions";
    }
}

section! {
    /// `[spectrum]`: which images are generated, and how.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct Spectrum {
        /// The levels to generate: 0 keeps nothing of the real image, 99 nearly all. Every level runs at least one of
        /// `timesteps`. The real image itself, level 100, belongs in `curriculum.levels`.
        image_guidance: Vec<i64> = required(list_of(integer(0..=100, "percent of the real image kept"))),
            sql "image_guidance";
        /// Noise seeds: an image is generated for each hard image, level and seed.
        seeds: Vec<i64> = required(list_of(integer(0..=i64::MAX, ""))), sql "seeds";
        /// Denoising timesteps of a full schedule. A level of 90 runs the last tenth of them.
        timesteps: i64 = or(integer(1..=1000, ""), 50), sql "timesteps";
        /// Classifier-free guidance, as diffusers counts it.
        guidance_scale: f64 = or(number(0.0..=100.0, "factor"), 10.0), sql "guidance_scale";
        /// The scheduler. If it is not set, the model's own.
        scheduler: Option<String> = optional(OneOf(SCHEDULERS));
        /// What images should not show. If it is not set, diffusers' `None`: zeros if the model's pipeline forces them,
        /// otherwise the empty prompt.
        negative_prompt: Option<String> = optional(LINE), sql "negative_prompt";
        /// `counter` draws noise from a stream for each seed and purpose; `torch` draws what torch's CPU generator
        /// draws, in diffusers' order.
        noise: String = or(OneOf(&["counter", "torch"]), "counter");
        /// Whether level 0 starts from noise alone. Diffusers leaves a trace of the image in it.
        pure_noise_at_zero: bool = or(Boolean, false);
        /// The width to which images are resized first; every side is then resized to a multiple that the UNet takes. If it
        /// is not set, images keep their size.
        size: Option<(i64, i64)> = Size;
        /// Whether an image is resized to the largest size inside `width` × `height` that has its aspect ratio.
        keep_aspect: bool = or(Boolean, true);
        /// The number of pixels to which images are brought, in place of `width` and `height`: each gets the sides that
        /// are multiples of 64 and nearest to its aspect ratio, among those with this area or one up to an eighth
        /// different, which areas from 65536 on always have. On a GPU few sizes of images are much faster than many.
        area: Option<i64> = optional(integer(4096..=67_108_864, "pixels"));
    }
}

/// The keys `width` and `height`, of which a file sets both or neither.
#[derive(Debug, Clone, Copy)]
struct Size;

impl Declaration for Size {
    type Value = Option<(i64, i64)>;

    fn read(&self, _field: &'static str, section: &mut Section<'_, '_>) -> Option<(i64, i64)> {
        let side = integer(8..=8192, "pixels");
        let (width, height) = (section.optional("width", &side), section.optional("height", &side));
        width.zip(height)
    }

    fn keys(&self, field: &Field<'_>) -> Vec<Key> {
        let side = integer(8..=8192, "pixels").expected();
        let width = Field { name: "width", ..field.clone() };
        let height = Field {
            name: "height",
            doc: "The height to which images are resized first. Required with `width`.",
            ..field.clone()
        };
        [width, height].map(|field| field.key(side.clone(), DefaultValue::Unset)).into()
    }
}

section! {
    /// `[filter]`: which generated images are kept.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct Filter {
        /// The query that selects them.
        sql: String = or(SQL_PATH, "kept/text_similarity.sql");
        /// What CLIP sees of an image: `center_crop`, as its preprocessor says, or `whole`, resized to the crop's size
        /// regardless of its aspect ratio.
        frame: String = or(OneOf(&["center_crop", "whole"]), "center_crop");
        /// The least CLIP similarity to the filter prompt. A good value depends on the CLIP model.
        min_text_similarity: f64 = or(number(-1.0..=1.0, "cosine"), 0.3), sql "min_text_similarity";
        /// How often an image is generated until one reaches `min_text_similarity`.
        max_attempts: i64 = or(integer(1..=100, ""), 6), sql "max_attempts";
    }
}

section! {
    /// `[validation]`: which hard images are kept from training.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    pub struct Validation {
        /// How many hard images to keep from training, to measure on. Only those with a kept image at every level are
        /// taken.
        sources: i64 = or(integer(0..=i64::from(u32::MAX), "hard images"), 0), sql "validation_sources";
    }
}

section! {
    /// `[curriculum]`: what is trained on in which epoch.
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct Curriculum {
        /// The strategy: `NAME` stands for the query `schedule/NAME.sql`.
        strategy: String = or(IDENTIFIER, "diverse_to_specific"), sql "strategy";
        /// Training epochs.
        epochs: i64 = or(integer(1..=MAX_EPOCHS, ""), 65), sql "epochs";
        /// Epochs with synthetic images, at most `epochs`. The rest trains on real images only.
        curriculum_epochs: i64 = or(integer(0..=MAX_EPOCHS, ""), 60), sql "curriculum_epochs";
        /// The levels that these epochs choose from: levels of the spectrum, and 100, which stands for the hard real
        /// images themselves. With the query `manifest/low_quality.sql` the default also has 100.
        levels: Vec<i64> = or_same_as(list_of(LEVEL), "spectrum.image_guidance"), sql "levels";
        /// Share of the real images that are not hard in each epoch.
        non_hard_fraction: f64 = or(number(0.0..=1.0, "share of images"), 0.3), sql "non_hard_fraction";
        /// Share of hard images, real and synthetic, in an epoch. If neither this nor `synthetic_per_hard` is set, 0.136.
        hard_share: Option<f64> = optional(number_below(0.0, 1.0, "share of images")), sql "hard_share";
        /// Synthetic images in an epoch for each hard image, instead of `hard_share`.
        synthetic_per_hard: Option<f64> = optional(number(0.0..=1000.0, "images")), sql "synthetic_per_hard";
        /// An epoch that repeats one image more often than this gives a warning.
        max_repeats: i64 = or(integer(1..=1_000_000, ""), 10), sql "max_repeats";
        /// The level of the strategy `fixed`: one of `levels`.
        level: Option<i64> = optional(LEVEL), sql "level";
        /// The seed of the curriculum's random draws: of random levels, the images of an epoch, and their order.
        seed: Option<i64> = optional_or_same_as(integer(i64::MIN..=i64::MAX, ""), "seed"), sql "curriculum_seed";
        /// Names of training runs. Each has its own draws, so that several runs on one spectrum show how much results vary.
        trials: Vec<String> = or(one_or_list_of(NAME), vec!["0".to_owned()]), sql "trials";
        /// Real images that an adaptive trainer trains on between its two measurements of an epoch. Adaptive strategies
        /// require it, and `validation.sources`, to be above 0.
        probe_size: i64 = or(integer(0..=i64::from(u32::MAX), "real images"), 0), sql "probe_size";
        /// Share of the epochs of an adaptive strategy whose level is drawn at random, so that every level stays in use.
        exploration: f64 = or(number(0.0..=1.0, "share of epochs"), 0.0), sql "exploration";
        /// Whether each class gets an equal share of what an epoch draws, synthetic images or hard ones. Otherwise its
        /// share is that of its images.
        class_balanced: bool = or(Boolean, false), sql "class_balanced";
        /// The query that mixes an epoch: `manifest/mixed.sql`, which keeps `hard_share`, `manifest/low_quality.sql`,
        /// which takes every image of a level, or your own.
        manifest: String = or(SQL_PATH, "manifest/mixed.sql");
    }
}

section! {
    /// `[rejects]`: how many rows may fail.
    #[derive(Debug, Clone, Copy, PartialEq, Serialize)]
    pub struct Rejects {
        /// Share of a step's rows that may fail before the run fails.
        max_fraction: f64 = or(number(0.0..=1.0, "share of a step's rows"), 0.01);
    }
}

section! {
    /// `[cuda]`: how GPUs are set up. It does not change what is generated.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    pub struct Cuda {
        /// Most memory of each GPU that the models may use together. If it is not set, all that is free.
        memory_limit_mib: Option<i64> = optional(integer(1..=1 << 30, "MiB"));
        /// Whether matrix products and convolutions in single precision may round their inputs to TF32: faster and less
        /// exact. If it is not set, those of the diffusion model do if its UNet computes in half precision, and no others.
        tf32: Option<bool> = optional(Boolean);
        /// Whether GPUs run `unet/model.cuda.onnx` in place of `unet/model.onnx`: `tools/export_models.py` writes both. It is
        /// faster, and the last digits of its results differ from run to run.
        fast: bool = or(Boolean, false);
    }
}

section! {
    /// `[queries]`: what queries may use. It does not change their results.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    pub struct Queries {
        /// Most memory for sorts, joins and groups. Those that can spill to disk do so beyond it, others fail. If it is
        /// not set, all that is free.
        memory_limit_mib: Option<i64> = optional(integer(16..=1 << 30, "MiB"));
    }
}

section! {
    /// `[[step]]`: a user-defined table.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct UserStep {
        /// The table, different from all others.
        table: String = required(IDENTIFIER);
        /// The query that fills it.
        sql: String = required(SQL_PATH);
    }
}

section! {
    /// `[[expect]]`: a query that must return no row.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct Expect {
        /// What is expected, in words; different from the other names.
        name: String = required(FILLED_LINE);
        /// The query itself, not a file.
        sql: String = required(QUERY);
    }
}
