//! Tests of the pipeline file, by subject. The files that they share are here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use super::{Config, Diagnostics};

mod invalid;
mod names;
mod reference;
mod relations;
mod source;
mod text;
mod valid;

/// A pipeline with only what is required.
const SMALL: &str = r#"name = "small"
[lake]
root = "lake"
[source]
kind = "parquet"
root = "data"
splits = { train = "train.parquet" }
[models]
diffusion = "models/d"
clip = "models/c"
[spectrum]
image_guidance = [0, 50]
seeds = [1, 2]
"#;

/// A pipeline with everything.
const FULL: &str = r##"name = "full-1"
seed = -7
sql_dir = "my_sql"
[lake]
root = "s3://bucket/lake"
[source]
kind = "parquet"
root = "memory:///data"
image_column = "photo"
label_column = "digit"
sql = "pixels/reference.sql"
classes = "classes.json"
background = "#102030"
[source.splits]
test = ["test/0.parquet", "test/1.parquet"]
train = "train.parquet"
[models]
diffusion = "models/d"
clip = "models/c"
[models.classifiers]
resnet = "models/r"
[hard_samples]
sql = "hard_samples/mine.sql"
classifier = "resnet"
exclude_classes = ["empty", "no name"]
max_class_count = 0x10
[prompts]
descriptions = "texts.json"
common_names = "names.json"
generation = "a {class}, {description}"
filter = "a {class}"
[spectrum]
image_guidance = [0, 10]
seeds = [10, 20]
timesteps = 1_000
guidance_scale = 7
scheduler = "euler"
negative_prompt = "blurred"
width = 480
height = 270
keep_aspect = false
[filter]
sql = "kept/mine.sql"
min_text_similarity = -0.0
max_attempts = 1
[validation]
sources = 5

[curriculum]
strategy = "adaptive"
trials = ["a", "b"]
probe_size = 100
level = 10
class_balanced = true
manifest = "manifest/low_quality.sql"
epochs = 3
curriculum_epochs = 0
non_hard_fraction = 1
hard_share = 0.999
[learner]
architectures = ["mlp", "cnn"]
image_side = 32
batch_size = 8
iterations_per_epoch = 4
learning_rate = 0.01
weight_decay = 0
[experiment]
strategies = ["adaptive", "mine"]
learner_seeds = 3
many_class_count = 50
worst_classes = 5
pretraining = "seen.parquet"
[[experiment.split]]
seed = 1
set = "source.root=other"
[[experiment.split]]
seed = 2
set = ["source.root=third", "seed=4"]
[queries]
memory_limit_mib = 512
[rejects]
max_fraction = 0
[parameters]
min_contrast = 0.5
look = "dark"
count = 3
strict = true
[[step]]
table = "blurred"
sql = "steps/blurred.sql"
[[step]]
table = "dark"
sql = "steps/dark.sql"
[[expect]]
name = "no empty class"
sql = """
SELECT 1
WHERE false"""
"##;

fn edits(set: &[&str]) -> Vec<String> {
    set.iter().map(|&edit| edit.to_owned()).collect()
}

/// The messages for the small pipeline with `more` at its end and these edits.
fn wrong(more: &str, set: &[&str]) -> String {
    refused(&format!("{SMALL}{more}"), set).to_string()
}

/// The messages for the small pipeline with `old` replaced.
fn changed(old: &str, new: &str) -> String {
    assert!(SMALL.contains(old), "{old}");
    refused(&SMALL.replace(old, new), &[]).to_string()
}

fn refused(text: &str, set: &[&str]) -> Diagnostics {
    Config::parse(text, "x.toml", &edits(set)).expect_err("is refused")
}

fn sound(text: &str, set: &[&str]) -> Config {
    Config::parse(text, "x.toml", &edits(set)).unwrap_or_else(|error| panic!("{error}"))
}
