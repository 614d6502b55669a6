//! Relations between keys, which no declaration of a single key holds.
//!
//! They are checked when everything is read. A relation is skipped if one of its keys has a problem already, since its
//! value is then a stand-in.

use super::{
    Config, MIXED, REAL_LEVEL, REAL_ONLY, SourceKind, document::Table, template::has_placeholder,
    timesteps::timesteps_run,
};
use crate::error::{
    diagnostics::{Place, Problems},
    text,
};

/// The queries of hard samples that need a key.
const LOW_CONFIDENCE: &str = "hard_samples/low_confidence.sql";
const CLASSIFIER: &str = "hard_samples/classifier.sql";

/// The strategies that measure what a trainer learns.
const ADAPTIVE: [&str; 4] = ["adaptive", "adaptive_by_class", "least_gain", "random_choice"];

/// Reports every relation between keys that does not hold.
pub(super) fn check(config: &Config, root: &Table, problems: &mut Problems) {
    let file = &mut File { root, problems };
    check_csv_source(config, file);
    check_hard_samples(config, file);
    check_prompts(config, file);
    check_size(file);
    check_levels(config, file);
    check_epochs(config, file);
    check_shares(config, file);
    check_curriculum_levels(config, file);
    check_strategy(config, file);
}

/// The file, to look up which keys it sets, and where.
struct File<'a> {
    root: &'a Table,
    problems: &'a mut Problems,
}

impl File<'_> {
    fn place(&self, key: &str) -> Option<Place> {
        let mut table = self.root;
        let mut sections = key.split('.').peekable();
        while let Some(name) = sections.next() {
            let node = &table.get(name)?.node;
            if sections.peek().is_none() {
                return Some(node.place);
            }
            table = node.value.as_table()?;
        }
        None
    }

    fn has(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// Whether no problem was found with any of these keys.
    fn is_valid(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.problems.has_key(key))
    }

    fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.problems.add(self.place(key), key, message);
    }

    /// Reports that only one key of a pair is set.
    fn check_pair(&mut self, one: &str, other: &str, what: [&str; 2]) {
        let (set, missing, what) = match (self.has(one), self.has(other)) {
            (true, false) => (one, other, what[1]),
            (false, true) => (other, one, what[0]),
            _ => return,
        };
        self.refuse(missing, format!("missing, expected {what} because `{set}` is set"));
    }
}

fn check_csv_source(config: &Config, file: &mut File<'_>) {
    if matches!(config.source.kind, SourceKind::Csv { .. }) {
        let what = ["the table below `source.root`", "the column with the split of a row"];
        file.check_pair("source.table", "source.split_column", what);
    }
}

fn check_hard_samples(config: &Config, file: &mut File<'_>) {
    let hard = &config.hard_samples;
    if !file.is_valid(&["hard_samples.sql", "hard_samples.confidences", "hard_samples.classifier"]) {
        return;
    }
    if hard.sql == LOW_CONFIDENCE && hard.confidences.is_none() {
        let message = format!("missing, expected a Parquet file because `hard_samples.sql` is `{LOW_CONFIDENCE}`");
        file.refuse("hard_samples.confidences", message);
    }
    match &hard.classifier {
        Some(name) if !file.has(&format!("models.classifiers.{name}")) => {
            let known: Vec<&str> = config.models.classifiers.keys().map(String::as_str).collect();
            let known = if known.is_empty() { String::new() } else { format!(": {}", text::list(&known, "or")) };
            let message = format!("found {}, expected a name of `[models.classifiers]`{known}", text::quote(name));
            file.refuse("hard_samples.classifier", message);
        }
        None if hard.sql == CLASSIFIER => {
            let message = format!(
                "missing, expected a name of `[models.classifiers]` because `hard_samples.sql` is `{CLASSIFIER}`"
            );
            file.refuse("hard_samples.classifier", message);
        }
        _ => {}
    }
    let (probability, fraction) = ("hard_samples.max_probability", "hard_samples.hard_fraction");
    if [LOW_CONFIDENCE, CLASSIFIER].contains(&hard.sql.as_str()) && !file.has(probability) && !file.has(fraction) {
        let message = format!(
            "missing, expected `{fraction}` or `{probability}` because `hard_samples.sql` is `{}`; without them nearly all \
             images are hard",
            hard.sql
        );
        file.refuse(fraction, message);
    }
}

fn check_prompts(config: &Config, file: &mut File<'_>) {
    let used = has_placeholder(&config.prompts.generation, "description");
    if used && !file.has("prompts.descriptions") {
        let message = "found `{description}`, which requires `prompts.descriptions` to be set";
        file.refuse("prompts.generation", message);
    }
}

fn check_size(file: &mut File<'_>) {
    file.check_pair("spectrum.width", "spectrum.height", ["a width", "a height"]);
    if file.has("spectrum.area") && (file.has("spectrum.width") || file.has("spectrum.height")) {
        file.refuse(
            "spectrum.area",
            "found together with `spectrum.width` or `spectrum.height`, expected one or the other",
        );
    }
}

/// Checks that every level runs a timestep: otherwise its images would be the real ones.
fn check_levels(config: &Config, file: &mut File<'_>) {
    let (key, timesteps) = ("spectrum.image_guidance", config.spectrum.timesteps);
    if !file.is_valid(&[key, "spectrum.timesteps"]) {
        return;
    }
    if config.spectrum.image_guidance.contains(&REAL_LEVEL) {
        let message = "found 100, which is the real image and not generated; expected levels from 0 to 99";
        let help = "`curriculum.levels` may hold 100, for the hard real images themselves".to_owned();
        return file.problems.add_with_help(file.place(key), key, message, Some(help));
    }
    let run = |level: i64| match (u32::try_from(timesteps), u8::try_from(level)) {
        (Ok(timesteps), Ok(level)) => timesteps_run(timesteps, level),
        _ => 0,
    };
    let empty: Vec<i64> = config.spectrum.image_guidance.iter().copied().filter(|level| run(*level) == 0).collect();
    let Some(highest) = empty.iter().max() else { return };
    let most = (0..100).rev().find(|level| run(*level) > 0).unwrap_or(0);
    let found: Vec<String> = empty.iter().map(i64::to_string).collect();
    let message = format!(
        "found {}, but `spectrum.timesteps` ({timesteps}) leaves no timestep to run; expected at most {most}",
        text::join(&found, "and"),
    );
    let help = format!("{highest} needs at least {} timesteps", (100 + 99 - highest) / (100 - highest));
    file.problems.add_with_help(file.place(key), key, message, Some(help));
}

fn check_epochs(config: &Config, file: &mut File<'_>) {
    let (epochs, in_curriculum) = (config.curriculum.epochs, config.curriculum.curriculum_epochs);
    let key = "curriculum.curriculum_epochs";
    if in_curriculum <= epochs || !file.is_valid(&["curriculum.epochs", key]) {
        return;
    }
    let message = match file.has(key) {
        true => format!("found {in_curriculum}, expected at most `curriculum.epochs` ({epochs})"),
        false => format!("missing, and its default of {in_curriculum} exceeds `curriculum.epochs` ({epochs})"),
    };
    file.refuse(key, message);
}

/// Checks how many hard images an epoch has.
fn check_shares(config: &Config, file: &mut File<'_>) {
    let (share, per_hard) = ("curriculum.hard_share", "curriculum.synthetic_per_hard");
    if file.has(share) && file.has(per_hard) {
        file.refuse(per_hard, format!("found together with `{share}`, expected one of them"));
    }
    let trains = config.curriculum.curriculum_epochs > 0 && config.curriculum.strategy != REAL_ONLY;
    for (key, value) in [(share, config.curriculum.hard_share), (per_hard, config.curriculum.synthetic_per_hard)] {
        if value == Some(0.0) && trains && config.curriculum.manifest == MIXED && file.is_valid(&[key]) {
            file.refuse(key, "found 0, with which no epoch would train on a synthetic image; expected more than 0");
        }
    }
}

/// Checks that the levels of the curriculum exist.
fn check_curriculum_levels(config: &Config, file: &mut File<'_>) {
    let key = "curriculum.levels";
    if !file.is_valid(&[key, "spectrum.image_guidance"]) {
        return;
    }
    let spectrum = &config.spectrum.image_guidance;
    let unknown = |level: &&i64| **level != REAL_LEVEL && !spectrum.contains(level);
    let unknown: Vec<String> = config.curriculum.levels.iter().filter(unknown).map(i64::to_string).collect();
    if !unknown.is_empty() {
        let known = shown(spectrum);
        let message = format!(
            "found {}, expected levels of `spectrum.image_guidance` ({known}), or 100 for the hard real images",
            text::join(&unknown, "and")
        );
        file.refuse(key, message);
    }
}

/// Checks the keys that some strategies need.
fn check_strategy(config: &Config, file: &mut File<'_>) {
    let curriculum = &config.curriculum;
    let keys = ["strategy", "level", "levels", "probe_size"].map(|name| format!("curriculum.{name}"));
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    if !file.is_valid(&keys) || !file.is_valid(&["spectrum.image_guidance", "validation.sources"]) {
        return;
    }
    let levels = &curriculum.levels;
    match (curriculum.strategy.as_str(), curriculum.level) {
        ("fixed", None) => {
            let message =
                format!("missing, expected one of {} because `curriculum.strategy` is `fixed`", shown(levels));
            file.refuse("curriculum.level", message);
        }
        ("text_only", _) if !levels.contains(&0) => {
            let message = format!("found \"text_only\", which requires 0 in `curriculum.levels` ({})", shown(levels));
            file.refuse("curriculum.strategy", message);
        }
        (name, _) if ADAPTIVE.contains(&name) && (curriculum.probe_size == 0 || config.validation.sources == 0) => {
            let message =
                format!("found \"{name}\", which requires `curriculum.probe_size` and `validation.sources` above 0");
            file.refuse("curriculum.strategy", message);
        }
        (_, Some(level)) if !levels.contains(&level) => {
            let message = format!("found {level}, expected a level of `curriculum.levels`: {}", shown(levels));
            file.refuse("curriculum.level", message);
        }
        _ => {}
    }
}

fn shown(levels: &[i64]) -> String {
    levels.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}
