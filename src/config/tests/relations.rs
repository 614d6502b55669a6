//! Relations between keys.

use insta::assert_snapshot;

use super::{SMALL, sound, wrong};

#[test]
fn prompts_have_only_known_placeholders() {
    let more = "[prompts]\ngeneration = \"{clas} {description} {descripton}\"\nfilter = \"{description} {\"\n";
    assert_snapshot!(wrong(more, &[]), @r"
    x.toml:15: `prompts.generation`: found the placeholder `{clas}`, expected `{class}` or `{description}`; did you mean `{class}`?
    x.toml:15: `prompts.generation`: found the placeholder `{descripton}`, expected `{class}` or `{description}`; did you mean `{description}`?
    x.toml:16: `prompts.filter`: found the placeholder `{description}`, expected `{class}`
    x.toml:16: `prompts.filter`: found a `{` without a `}`, expected braces in pairs, as in `{class}`
    4 problems; nothing was run
    ");
    assert_snapshot!(wrong("[prompts]\ngeneration = \"{description}\"\nfilter = \"a } b\"\n", &[]), @r"
    x.toml:15: `prompts.generation`: found `{description}`, which requires `prompts.descriptions` to be set
    x.toml:16: `prompts.filter`: found a `}` without a `{`, expected braces in pairs, as in `{class}`
    2 problems; nothing was run
    ");
    sound(&format!("{SMALL}[prompts]\ngeneration = \"{{description}}\"\ndescriptions = \"d\"\n"), &[]);
}

#[test]
fn every_level_runs_a_timestep() {
    let levels = |timesteps: u32| format!("timesteps = {timesteps}\n");
    assert_snapshot!(wrong(&levels(1), &["spectrum.image_guidance=[0,20,99,100]"]), @r"
    --set spectrum.image_guidance=[0,20,99,100]: `spectrum.image_guidance`: found 20 and 99, but `spectrum.timesteps` (1) leaves no timestep to run; expected 100 (the real image) or at most 0; 99 needs at least 100 timesteps
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong(&levels(6), &["spectrum.image_guidance=[84]"]), @r"
    --set spectrum.image_guidance=[84]: `spectrum.image_guidance`: found 84, but `spectrum.timesteps` (6) leaves no timestep to run; expected 100 (the real image) or at most 83; 84 needs at least 7 timesteps
    1 problem; nothing was run
    ");
    sound(&format!("{SMALL}{}", levels(6)), &["spectrum.image_guidance=[83,100]"]);
    sound(&format!("{SMALL}{}", levels(1)), &["spectrum.image_guidance=[0,100]"]);
}

#[test]
fn curriculum_epochs_are_at_most_the_epochs() {
    assert_snapshot!(wrong("[curriculum]\nepochs = 10\ncurriculum_epochs = 11\n", &[]), @r"
    x.toml:16: `curriculum.curriculum_epochs`: found 11, expected at most `curriculum.epochs` (10)
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("[curriculum]\nepochs = 10\n", &[]), @r"
    x.toml: `curriculum.curriculum_epochs`: missing, and its default of 60 exceeds `curriculum.epochs` (10)
    1 problem; nothing was run
    ");
    // A value that is refused anyway is compared with nothing.
    assert_snapshot!(wrong("[curriculum]\nepochs = \"x\"\ncurriculum_epochs = 80\n", &[]), @r#"
    x.toml:15: `curriculum.epochs`: found "x", expected an integer from 1 to 100000
    1 problem; nothing was run
    "#);
}

#[test]
fn queries_of_hard_samples_require_other_keys() {
    let of = |keys: &str| wrong(&format!("[hard_samples]\n{keys}\n"), &[]);
    assert_snapshot!(of("sql = \"hard_samples/low_confidence.sql\""), @"
    x.toml: `hard_samples.confidences`: missing, expected a Parquet file because `hard_samples.sql` is `hard_samples/low_confidence.sql`
    1 problem; nothing was run
    ");
    assert_snapshot!(of("sql = \"hard_samples/classifier.sql\""), @"
    x.toml: `hard_samples.classifier`: missing, expected a name of `[models.classifiers]` because `hard_samples.sql` is `hard_samples/classifier.sql`
    1 problem; nothing was run
    ");
    assert_snapshot!(of("classifier = \"dino\"\n[models.classifiers]\nresnet = \"r\"\nvit = \"v\""), @r#"
    x.toml:15: `hard_samples.classifier`: found "dino", expected a name of `[models.classifiers]`: `resnet` or `vit`
    1 problem; nothing was run
    "#);
}

#[test]
fn a_width_requires_a_height() {
    assert_snapshot!(wrong("width = 512\n", &[]), @"
    x.toml: `spectrum.height`: missing, expected a height because `spectrum.width` is set
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("height = 512\nwidth = 1\n", &[]), @"
    x.toml:15: `spectrum.width`: found 1, expected an integer from 8 to 8192 (pixels)
    1 problem; nothing was run
    ");
}

#[test]
fn a_relation_with_a_refused_key_is_not_reported() {
    let more = "[curriculum]\nstrategy = \"text_only\"\nlevel = 101\n";
    assert_snapshot!(wrong(more, &["spectrum.image_guidance=[101]", "validation=3"]), @r"
    x.toml:16: `curriculum.level`: found 101, expected an integer from 0 to 100 (percent of the real image kept)
    --set spectrum.image_guidance=[101]: `spectrum.image_guidance[0]`: found 101, expected an integer from 0 to 100 (percent of the real image kept)
    --set validation=3: `validation`: found 3, expected a section `[validation]`
    3 problems; nothing was run
    ");
}

#[test]
fn strategies_require_other_keys() {
    let of = |keys: &str| wrong(&format!("[curriculum]\n{keys}\n"), &[]);
    assert_snapshot!(of("strategy = \"fixed\""), @r"
    x.toml: `curriculum.level`: missing, expected one of 0, 50 because `curriculum.strategy` is `fixed`
    1 problem; nothing was run
    ");
    assert_snapshot!(of("strategy = \"adaptive\""), @r#"
    x.toml:15: `curriculum.strategy`: found "adaptive", which requires `curriculum.probe_size` and `validation.sources` above 0
    1 problem; nothing was run
    "#);
    assert_snapshot!(of("level = 30"), @r"
    x.toml:15: `curriculum.level`: found 30, expected a level of `spectrum.image_guidance`: 0, 50
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("[curriculum]\nstrategy = \"text_only\"\n", &["spectrum.image_guidance=[50]"]), @r#"
    x.toml:15: `curriculum.strategy`: found "text_only", which requires 0 in `spectrum.image_guidance` (50)
    1 problem; nothing was run
    "#);
}
