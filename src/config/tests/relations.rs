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
    assert_snapshot!(wrong(&levels(1), &["spectrum.image_guidance=[0,20,99]"]), @r"
    --set spectrum.image_guidance=[0,20,99]: `spectrum.image_guidance`: found 20 and 99, but `spectrum.timesteps` (1) leaves no timestep to run; expected at most 0; 99 needs at least 100 timesteps
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong(&levels(6), &["spectrum.image_guidance=[84]"]), @r"
    --set spectrum.image_guidance=[84]: `spectrum.image_guidance`: found 84, but `spectrum.timesteps` (6) leaves no timestep to run; expected at most 83; 84 needs at least 7 timesteps
    1 problem; nothing was run
    ");
    sound(&format!("{SMALL}{}", levels(6)), &["spectrum.image_guidance=[83]"]);
    sound(&format!("{SMALL}{}", levels(1)), &["spectrum.image_guidance=[0]"]);
    assert_snapshot!(wrong("", &["spectrum.image_guidance=[0,100]"]), @r"
    --set spectrum.image_guidance=[0,100]: `spectrum.image_guidance`: found 100, which is the real image and not generated; expected levels from 0 to 99; `curriculum.levels` may hold 100, for the hard real images themselves
    1 problem; nothing was run
    ");
}

#[test]
fn a_curriculum_has_levels_of_the_spectrum_and_the_real_images() {
    let levels = |keys: &str| format!("[curriculum]\n{keys}");
    let of = |keys: &str| sound(&format!("{SMALL}{}", levels(keys)), &[]).curriculum.levels;
    assert_eq!(of(""), [0, 50]);
    assert_eq!(of("manifest = \"manifest/low_quality.sql\"\n"), [0, 50, 100]);
    assert_eq!(of("levels = [100, 50]\n"), [100, 50]);
    assert_snapshot!(wrong(&levels("levels = [0, 30, 100]\n"), &[]), @r"
    x.toml:15: `curriculum.levels`: found 30, expected levels of `spectrum.image_guidance` (0, 50), or 100 for the hard real images
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong(&levels("levels = [50]\nstrategy = \"fixed\"\nlevel = 100\n"), &[]), @r"
    x.toml:17: `curriculum.level`: found 100, expected a level of `curriculum.levels`: 50
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong(&levels("levels = [50]\nstrategy = \"text_only\"\n"), &[]), @r#"
    x.toml:16: `curriculum.strategy`: found "text_only", which requires 0 in `curriculum.levels` (50)
    1 problem; nothing was run
    "#);
}

#[test]
fn an_epoch_has_a_share_of_hard_images_or_a_number_for_each() {
    let of = |keys: &str| {
        let curriculum = sound(&format!("{SMALL}[curriculum]\n{keys}"), &[]).curriculum;
        (curriculum.hard_share, curriculum.synthetic_per_hard)
    };
    assert_eq!(of(""), (Some(0.136), None));
    assert_eq!(of("hard_share = 0.5\n"), (Some(0.5), None));
    assert_eq!(of("synthetic_per_hard = 3\n"), (None, Some(3.0)));
    let both = "[curriculum]\nhard_share = 0.5\nsynthetic_per_hard = 3\n";
    assert_snapshot!(wrong(both, &[]), @r"
    x.toml:16: `curriculum.synthetic_per_hard`: found together with `curriculum.hard_share`, expected one of them
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("[curriculum]\nhard_share = 0\n", &[]), @r"
    x.toml:15: `curriculum.hard_share`: found 0, with which no epoch would train on a synthetic image; expected more than 0
    1 problem; nothing was run
    ");
    sound(&format!("{SMALL}[curriculum]\nhard_share = 0\nstrategy = \"real_only\"\n"), &[]);
}

#[test]
fn seeds_of_the_curriculum_follow_the_pipelines() {
    let seed = |text: String| sound(&text, &[]).curriculum.seed;
    assert_eq!(seed(format!("seed = 7\n{SMALL}")), Some(7));
    assert_eq!(seed(format!("seed = 7\n{SMALL}[curriculum]\nseed = 8\n")), Some(8));
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
    assert_snapshot!(of("sql = \"hard_samples/low_confidence.sql\""), @r"
    x.toml: `hard_samples.confidences`: missing, expected a Parquet file because `hard_samples.sql` is `hard_samples/low_confidence.sql`
    x.toml: missing, expected `hard_samples.hard_fraction` or `hard_samples.max_probability` because `hard_samples.sql` is `hard_samples/low_confidence.sql`; without them nearly all images are hard
    2 problems; nothing was run
    ");
    assert_snapshot!(of("sql = \"hard_samples/classifier.sql\""), @r"
    x.toml: `hard_samples.classifier`: missing, expected a name of `[models.classifiers]` because `hard_samples.sql` is `hard_samples/classifier.sql`
    x.toml: missing, expected `hard_samples.hard_fraction` or `hard_samples.max_probability` because `hard_samples.sql` is `hard_samples/classifier.sql`; without them nearly all images are hard
    2 problems; nothing was run
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
    x.toml:15: `curriculum.level`: found 30, expected a level of `curriculum.levels`: 0, 50
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("[curriculum]\nstrategy = \"text_only\"\n", &["spectrum.image_guidance=[50]"]), @r#"
    x.toml:15: `curriculum.strategy`: found "text_only", which requires 0 in `curriculum.levels` (50)
    1 problem; nothing was run
    "#);
}
