//! Every section with its keys, ranges and defaults: the reference of the file format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::document::Entry;
use super::parameters::parameters;
use super::reader::Section;
use super::strings::{FILLED_LINE, IDENTIFIER, LINE, LOCATION, MODEL, NAME, PATH, QUERY, SQL_PATH};
use super::template::{Template, asks_for};
use super::values::{Choice, Distinct, Kind, Truth, integer, number, number_below};
use super::{
    Config, Cuda, Curriculum, Expect, Filter, HardSamples, Models, Prompts, Queries, Rejects, Spectrum, UserStep,
    Validation, experiment, source,
};
use crate::error::text;

/// Most training epochs.
const MAX_EPOCHS: i64 = 100_000;

/// The prompt of the method: the class, and nothing that a class does not have.
const DEFAULT_PROMPT: &str = "a photo of {class}";

/// Reads the whole file.
pub(super) fn config(mut root: Section<'_, '_>) -> Config {
    // in the order of the sections, which is that of what is missing in messages
    let name = root.required("name", &NAME);
    let seed = root.or("seed", &integer(i64::MIN..=i64::MAX, ""), 0);
    let sql_dir = root.optional("sql_dir", &PATH).map(PathBuf::from);
    let lake_root = lake_root(root.section("lake"));
    let source = source::source(root.section("source"));
    let models = models(root.section("models"));
    let hard_samples = hard_samples(root.section("hard_samples"), &models.classifiers);
    let prompts = prompts(root.section("prompts"));
    let spectrum = spectrum(root.section("spectrum"));
    let filter = filter(root.section("filter"));
    let validation = validation(root.section("validation"));
    let curriculum = curriculum(root.section("curriculum"), &spectrum.image_guidance, validation.sources);
    let learner = experiment::learner(root.section("learner"));
    let experiment = experiment::experiment(root.section("experiment"), &curriculum.strategy);
    let config = Config {
        name,
        seed,
        sql_dir,
        lake_root,
        source,
        models,
        hard_samples,
        prompts,
        spectrum,
        filter,
        validation,
        curriculum,
        learner,
        experiment,
        rejects: rejects(root.section("rejects")),
        cuda: cuda(root.section("cuda")),
        queries: queries(root.section("queries")),
        steps: steps(&mut root),
        expect: expect(&mut root),
        parameters: parameters(root.section("parameters")),
    };
    root.finish();
    config
}

fn lake_root(mut lake: Section<'_, '_>) -> String {
    let root = lake.required("root", &LOCATION);
    lake.finish();
    root
}

fn models(mut models: Section<'_, '_>) -> Models {
    let out = Models {
        diffusion: models.required("diffusion", &MODEL),
        clip: models.required("clip", &MODEL),
        classifiers: classifiers(models.section("classifiers")),
    };
    models.finish();
    out
}

/// Directories and URLs under names that the user gives.
fn classifiers(mut classifiers: Section<'_, '_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for Entry { key: name, place, node } in classifiers.entries() {
        let key = classifiers.key(name);
        if !(IDENTIFIER.holds)(name) {
            let message = format!("found this name, allowed are {}", IDENTIFIER.allowed);
            classifiers.problems().add(Some(*place), &key, message);
        } else if let Some(path) = MODEL.read(&key, node, classifiers.problems()) {
            out.insert(name.clone(), path);
        }
    }
    out
}

fn hard_samples(mut hard: Section<'_, '_>, classifiers: &BTreeMap<String, String>) -> HardSamples {
    let out = HardSamples {
        sql: hard.or("sql", &SQL_PATH, "hard_samples/few_shot.sql"),
        max_class_count: hard.or("max_class_count", &integer(1..=i64::MAX, "images"), 20),
        confidences: hard.optional("confidences", &PATH).map(PathBuf::from),
        classifier: hard.optional("classifier", &IDENTIFIER),
        max_probability: hard.or("max_probability", &number(0.0, 1.0, "probability"), 1.0),
        hard_fraction: hard.or("hard_fraction", &number(0.0, 1.0, "share of the training images"), 1.0),
        exclude_classes: hard.or("exclude_classes", &Distinct { of: FILLED_LINE, or_one: true }, Vec::new()),
    };
    if out.sql == "hard_samples/low_confidence.sql" && out.confidences.is_none() {
        hard.refuse("confidences", "missing, and `hard_samples/low_confidence.sql` needs it: a Parquet file");
    }
    let known: Vec<String> = classifiers.keys().map(|name| format!("`{name}`")).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    match &out.classifier {
        Some(name) if !classifiers.contains_key(name) => {
            let message = format!("found `{name}`, allowed are those of `[models.classifiers]`: {known}");
            hard.refuse("classifier", message);
        }
        None if out.sql == "hard_samples/classifier.sql" => {
            hard.refuse(
                "classifier",
                "missing, and `hard_samples/classifier.sql` needs it: one of `[models.classifiers]`",
            );
        }
        _ => {}
    }
    hard.finish();
    out
}

fn prompts(mut prompts: Section<'_, '_>) -> Prompts {
    let with_both = Template { placeholders: &["{class}", "{description}"] };
    let with_class = Template { placeholders: &["{class}"] };
    let out = Prompts {
        descriptions: prompts.optional("descriptions", &PATH).map(PathBuf::from),
        common_names: prompts.optional("common_names", &PATH).map(PathBuf::from),
        generation: prompts.or("generation", &with_both, DEFAULT_PROMPT),
        filter: prompts.or("filter", &with_class, DEFAULT_PROMPT),
    };
    if asks_for(&out.generation, "description") && !prompts.has("descriptions") {
        let needed = prompts.key("descriptions");
        let message = format!("found `{{description}}`, which needs `{needed}` to be set");
        prompts.refuse("generation", message);
    }
    prompts.finish();
    out
}

fn cuda(mut cuda: Section<'_, '_>) -> Cuda {
    let out = Cuda {
        memory_limit_mib: cuda.optional("memory_limit_mib", &integer(1..=1 << 30, "MiB")),
        tf32: cuda.or("tf32", &Truth, false),
    };
    cuda.finish();
    out
}

fn queries(mut queries: Section<'_, '_>) -> Queries {
    let out = Queries { memory_limit_mib: queries.optional("memory_limit_mib", &integer(16..=1 << 30, "MiB")) };
    queries.finish();
    out
}

const SCHEDULERS: [&str; 7] = ["ddim", "pndm", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "lcm"];

fn spectrum(mut spectrum: Section<'_, '_>) -> Spectrum {
    let percent = integer(0..=100, "percent of the real image kept");
    let levels = Distinct { of: percent, or_one: false };
    let seeds = Distinct { of: integer(0..=i64::MAX, ""), or_one: false };
    let scheduler = Choice { words: &SCHEDULERS };
    let out = Spectrum {
        image_guidance: spectrum.required("image_guidance", &levels),
        seeds: spectrum.required("seeds", &seeds),
        timesteps: spectrum.or("timesteps", &integer(1..=1000, ""), 50),
        guidance_scale: spectrum.or("guidance_scale", &number(0.0, 100.0, "factor"), 10.0),
        scheduler: spectrum.optional("scheduler", &scheduler).map(str::to_owned),
        negative_prompt: spectrum.optional("negative_prompt", &LINE),
        noise: spectrum.or("noise", &Choice { words: &["counter", "torch"] }, "counter").to_owned(),
        pure_noise_at_zero: spectrum.or("pure_noise_at_zero", &Truth, false),
        size: size(&mut spectrum),
        keep_aspect: spectrum.or("keep_aspect", &Truth, true),
    };
    spectrum.finish();
    out
}

/// Width and height, or neither.
fn size(spectrum: &mut Section<'_, '_>) -> Option<(i64, i64)> {
    let side = integer(8..=8192, "pixels");
    match (spectrum.optional("width", &side), spectrum.optional("height", &side)) {
        (Some(width), Some(height)) => Some((width, height)),
        (width, _) => {
            let (given, missing) = if width.is_some() { ("width", "height") } else { ("height", "width") };
            if spectrum.has(given) && !spectrum.has(missing) {
                let message = format!("missing, and `{}` needs it", spectrum.key(given));
                spectrum.refuse(missing, message);
            }
            None
        }
    }
}

fn filter(mut filter: Section<'_, '_>) -> Filter {
    let cosine = number(-1.0, 1.0, "cosine");
    let out = Filter {
        sql: filter.or("sql", &SQL_PATH, "kept/text_similarity.sql"),
        frame: filter.or("frame", &Choice { words: &["center_crop", "whole"] }, "center_crop").to_owned(),
        min_text_similarity: filter.or("min_text_similarity", &cosine, 0.3),
        max_attempts: filter.or("max_attempts", &integer(1..=100, ""), 6),
    };
    filter.finish();
    out
}

fn validation(mut validation: Section<'_, '_>) -> Validation {
    let out = Validation { sources: validation.or("sources", &integer(0..=i64::from(u32::MAX), "hard images"), 0) };
    validation.finish();
    out
}

fn curriculum(mut curriculum: Section<'_, '_>, levels: &[i64], validation_sources: i64) -> Curriculum {
    let share = "share of images";
    let sound = curriculum.problems().count();
    let epochs = curriculum.or("epochs", &integer(1..=MAX_EPOCHS, ""), 65);
    let curriculum_epochs = curriculum.or("curriculum_epochs", &integer(0..=MAX_EPOCHS, ""), 60);
    if curriculum.problems().count() == sound && curriculum_epochs > epochs {
        let all = format!("`{}` ({epochs})", curriculum.key("epochs"));
        let message = match curriculum.has("curriculum_epochs") {
            true => format!("found {curriculum_epochs}, allowed are 0 to {all}"),
            false => format!("missing, and its default {curriculum_epochs} is over {all}"),
        };
        curriculum.refuse("curriculum_epochs", message);
    }
    let out = Curriculum {
        strategy: curriculum.or("strategy", &IDENTIFIER, "diverse_to_specific"),
        epochs,
        curriculum_epochs,
        non_hard_fraction: curriculum.or("non_hard_fraction", &number(0.0, 1.0, share), 0.3),
        hard_share: curriculum.or("hard_share", &number_below(0.0, 1.0, share), 0.136),
        level: curriculum.optional("level", &integer(0..=100, "percent of the real image kept")),
        trials: curriculum.or("trials", &Distinct { of: NAME, or_one: true }, vec!["0".to_owned()]),
        probe_size: curriculum.or("probe_size", &integer(0..=i64::from(u32::MAX), "real images"), 0),
        class_balanced: curriculum.or("class_balanced", &Truth, false),
        manifest: curriculum.or("manifest", &SQL_PATH, "manifest/mixed.sql"),
    };
    check_strategy(&mut curriculum, &out, levels, validation_sources);
    curriculum.finish();
    out
}

/// What some strategies need of other keys.
fn check_strategy(curriculum: &mut Section<'_, '_>, read: &Curriculum, levels: &[i64], validation_sources: i64) {
    let known = levels.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    match (read.strategy.as_str(), read.level) {
        ("fixed", None) => {
            curriculum.refuse("level", format!("missing, and the strategy `fixed` needs it: one of {known}"));
        }
        ("text_only", _) if !levels.contains(&0) => {
            let message = format!("found `text_only`, which needs 0 in `spectrum.image_guidance` ({known})");
            curriculum.refuse("strategy", message);
        }
        ("adaptive", _) if read.probe_size == 0 || validation_sources == 0 => {
            let message = "found `adaptive`, which needs `curriculum.probe_size` and `validation.sources` above 0";
            curriculum.refuse("strategy", message);
        }
        (_, Some(level)) if !levels.contains(&level) => {
            curriculum.refuse("level", format!("found {level}, allowed are those of the spectrum: {known}"));
        }
        _ => {}
    }
}

fn rejects(mut rejects: Section<'_, '_>) -> Rejects {
    let share = number(0.0, 1.0, "share of a step's rows");
    let out = Rejects { max_fraction: rejects.or("max_fraction", &share, 0.01) };
    rejects.finish();
    out
}

fn steps(root: &mut Section<'_, '_>) -> Vec<UserStep> {
    let mut tables = BTreeSet::new();
    root.each("step", |mut step| {
        let out = UserStep { table: step.required("table", &IDENTIFIER), sql: step.required("sql", &SQL_PATH) };
        refuse_second(&mut step, "table", &out.table, &mut tables);
        step.finish();
        out
    })
}

fn expect(root: &mut Section<'_, '_>) -> Vec<Expect> {
    let mut names = BTreeSet::new();
    root.each("expect", |mut expect| {
        let out = Expect { name: expect.required("name", &FILLED_LINE), sql: expect.required("sql", &QUERY) };
        refuse_second(&mut expect, "name", &out.name, &mut names);
        expect.finish();
        out
    })
}

/// Reports a value that an earlier section of the same list has.
fn refuse_second(section: &mut Section<'_, '_>, key: &'static str, value: &str, seen: &mut BTreeSet<String>) {
    // An empty one is a value that was refused already.
    if !value.is_empty() && !seen.insert(value.to_owned()) {
        section.refuse(key, format!("found {} a second time", text::quote(value)));
    }
}
