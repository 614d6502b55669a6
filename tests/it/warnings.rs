//! Sizes, levels and prompts: what the models do not take is resized, refused, or said by `check`, `plan` and `run`.

use std::fs;

use image::RgbImage;
use serde_json::Value;

use crate::support::{Workspace, root, stderr};

/// Photos in class folders, all hard, and a pipeline over them.
fn photos(diffusion: &str, files: &[(&str, u32, u32)]) -> Workspace {
    let mut workspace = Workspace::full();
    for (name, width, height) in files {
        let path = workspace.path("photos/train").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let value = |at: u32, side: u32| u8::try_from(255 * at / side).unwrap();
        RgbImage::from_fn(*width, *height, |x, y| image::Rgb([value(x, *width), value(y, *height), 90]))
            .save(path)
            .unwrap();
    }
    workspace.pipeline = workspace.path("p.toml");
    let pipeline = format!(
        "name = \"photos\"\nlake.root = \"lake\"\n\
         source = {{ kind = \"imagefolder\", root = \"{}\", splits.train = \"train\" }}\n\
         models = {{ diffusion = \"{}\", clip = \"{}\" }}\n\
         hard_samples.max_class_count = 1000\nspectrum = {{ image_guidance = [50], seeds = [1], timesteps = 2 }}\n\
         filter = {{ min_text_similarity = -1.0, max_attempts = 1 }}\n\
         curriculum = {{ epochs = 2, curriculum_epochs = 1, synthetic_per_hard = 1 }}\n",
        workspace.path("photos").display(),
        root().join(diffusion).display(),
        root().join("models/digits/clip").display(),
    );
    fs::write(&workspace.pipeline, pipeline).unwrap();
    workspace
}

/// Returns the warnings in the JSON of a command, each with its hint.
fn warnings(workspace: &Workspace, command: &str) -> Vec<String> {
    let said = workspace.json(command, &[]);
    let text = |warning: &Value| {
        format!("{}\n{}", warning["message"].as_str().unwrap(), warning["hint"].as_str().unwrap_or_default())
    };
    said["warnings"].as_array().unwrap().iter().map(text).collect()
}

/// Returns the sides of the synthetic images by path.
fn sides(workspace: &Workspace) -> Vec<(String, u64, u64)> {
    let rows = workspace.query(
        "SELECT i.path, image_info(s.image)['width'] AS width, image_info(s.image)['height'] AS height
         FROM spectrum s JOIN images i ON i.source_id = s.source_id ORDER BY i.path",
    );
    let side = |row: &Value, name: &str| row[name].as_u64().unwrap();
    rows.iter().map(|row| (row["path"].as_str().unwrap().to_owned(), side(row, "width"), side(row, "height"))).collect()
}

#[test]
fn photos_of_any_size_are_generated_with_an_export_of_optimum_cli() {
    let files = [
        ("zero/a.png", 1, 1),
        ("zero/b.png", 7, 40),
        ("zero/c.png", 33, 31),
        ("one/d.png", 64, 48),
        ("one/e.png", 100, 57),
        ("one/f.png", 75, 100),
    ];
    let workspace = photos("tests/fixtures/pipelines/optimum_sd1", &files);
    workspace.run();
    assert_eq!(workspace.number("SELECT count(*) FROM rejects"), 0.0);
    let expected = [
        ("train/one/d.png", 64, 48),
        ("train/one/e.png", 96, 64),
        ("train/one/f.png", 80, 96),
        ("train/zero/a.png", 16, 16),
        ("train/zero/b.png", 16, 32),
        ("train/zero/c.png", 32, 32),
    ];
    let expected: Vec<_> = expected.iter().map(|(path, width, height)| ((*path).to_owned(), *width, *height)).collect();
    let found: Vec<_> = sides(&workspace).into_iter().collect();
    assert_eq!(found, expected);
}

#[test]
fn check_says_what_sizes_become() {
    let mut workspace = photos(
        "models/digits",
        &[("Großkatzen/tiger.png", 1000, 562), ("Großkatzen/lion.png", 500, 500), ("Vögel/owl.png", 128, 64)],
    );
    let found = warnings(&workspace, "check");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("3 of 3 images that were looked at are generated with more than 4 times"),
        "{found:?}"
    );
    assert!(found[0].contains("the model was trained on, 32 x 32: "), "{found:?}");
    assert!(found[0].contains("`train/Großkatzen/tiger.png` (1000 x 562) becomes 1000 x 560"), "{found:?}");
    assert!(found[0].contains("set `spectrum.width` and `spectrum.height`, to 32 for example"), "{found:?}");

    workspace.edit("spectrum.width=64");
    workspace.edit("spectrum.height=64");
    for command in ["check", "plan"] {
        let found = warnings(&workspace, command);
        assert_eq!(found.len(), 1, "{command}: {found:?}");
        let message = "1 of 3 images that were looked at are distorted by more than a tenth, because the UNet takes sides \
                       that are multiples of 8 pixels: `train/Großkatzen/tiger.png` (1000 x 562) becomes 64 x 32";
        assert!(found[0].starts_with(message), "{command}: {found:?}");
        assert!(found[0].ends_with("set `spectrum.width` and `spectrum.height` to larger multiples of 8"), "{found:?}");
    }
    assert!(warnings(&workspace, "run")[0].contains("becomes 64 x 32"));
    assert_eq!(workspace.number("SELECT count(*) FROM rejects"), 0.0);
    let (path, width, height) = sides(&workspace).into_iter().nth(1).unwrap();
    assert_eq!((path.as_str(), width, height), ("train/Großkatzen/tiger.png", 64, 32));

    workspace.edit("spectrum.width=70");
    workspace.edit("spectrum.keep_aspect=false");
    let found = warnings(&workspace, "check");
    assert_eq!(
        found,
        [
            "`spectrum.width` and `spectrum.height` are 70 x 64, but the UNet takes sides that are multiples of 8 pixels\n\
          the nearest that it takes are 72 x 64"
        ]
    );
}

#[test]
fn levels_without_a_timestep_are_refused_and_equal_ones_warn() {
    let mut workspace = Workspace::small();
    workspace.edit("spectrum.image_guidance=[20,60]");
    workspace.edit("spectrum.timesteps=1");
    let output = workspace.command("check", &[]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("`spectrum.image_guidance`: found 20 and 60, but `spectrum.timesteps` (1) leaves no"),
        "{said}"
    );
    assert!(said.contains("expected at most 0"), "{said}");
    assert!(said.contains("60 needs at least 3 timesteps"), "{said}");

    workspace.edit("spectrum.timesteps=3");
    workspace.edit("spectrum.image_guidance=[20,30,60]");
    let found = warnings(&workspace, "check");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("the levels 20 and 30 of `spectrum.image_guidance` all run 2 of 3 timesteps"),
        "{found:?}"
    );
    workspace.edit("spectrum.timesteps=10");
    assert_eq!(warnings(&workspace, "check"), [""; 0]);
}

#[test]
fn prompts_that_are_cut_off_are_counted() {
    let mut workspace = Workspace::small();
    let long = |words: usize| vec!["zebra"; words].join(" ");
    workspace.edit(&format!("prompts.generation=\"a photo of {{class}}, {}\"", long(120)));
    workspace.edit(&format!("prompts.filter=\"{{class}} {}\"", long(130)));
    workspace.edit(&format!("spectrum.negative_prompt={}", long(140)));
    let found = warnings(&workspace, "check");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("10 of 10 generation prompts have more than the "), "{found:?}");
    assert!(found[0].contains("The longest has ") && found[0].contains("\"a photo of "), "{found:?}");
    assert!(found[1].starts_with("10 of 10 filter prompts have more than the "), "{found:?}");
    assert!(found[2].starts_with("the negative prompt has more than the "), "{found:?}");
    assert!(found[2].ends_with("shorten `spectrum.negative_prompt`"), "{found:?}");
    // Only the class whose description is too long.
    let classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let texts = classes.map(|class| (class, vec!["on paper".to_owned(), long(if class == "six" { 99 } else { 1 })]));
    let texts: serde_json::Map<String, Value> =
        texts.into_iter().map(|(class, texts)| (class.to_owned(), texts.into())).collect();
    fs::write(workspace.path("texts.json"), Value::from(texts).to_string()).unwrap();
    let mut workspace_of_texts = Workspace::small();
    let path = workspace.path("texts.json");
    workspace_of_texts.edit(&format!("prompts.descriptions={}", path.display()));
    workspace_of_texts.edit("prompts.generation=\"{class}, {description}\"");
    let found = warnings(&workspace_of_texts, "check");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("1 of 20 generation prompts has more than"), "{found:?}");
    assert!(found[0].contains("\"six, zebra zebra"), "{found:?}");
}

#[test]
fn nothing_hard_is_said_as_soon_as_it_is_known() {
    let mut workspace = Workspace::small();
    workspace.edit("hard_samples.max_class_count=1");
    let refused = |command: &str| {
        let output = workspace.command(command, &[]).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("no training image is hard, so no epoch would train on a synthetic image"), "{said}");
    };
    let warns = |command: &str, arguments: &[&str]| {
        let message = "no image is hard; classes of train have 3 (\"eight\") to 70 images (\"zero\")";
        workspace.json(command, arguments)["warnings"].to_string().replace('\\', "").contains(message)
    };
    // Before and after the images are read.
    for (step, is_known) in [("images", false), ("hard_samples", true)] {
        refused("check");
        refused("plan");
        assert_eq!(warns("run", &["--until", step]), is_known, "{step}");
    }
    refused("run");
    // A curriculum of real images needs none.
    workspace.edit("curriculum.strategy=real_only");
    let message = "no image is hard; classes of train have 3 (\"eight\") to 70 images (\"zero\")";
    for command in ["check", "plan", "run"] {
        let said = workspace.json(command, &[])["warnings"].to_string().replace('\\', "");
        assert!(said.contains(message), "{command}: {said}");
    }
    workspace.edit("curriculum.strategy=diverse_to_specific");
    // Another query may need what is known once images are read.
    workspace.edit("name=other");
    workspace.edit(&format!("sql_dir={}", workspace.path("sql").display()));
    let query = "SELECT source_id, label, class_name, 'small' AS reason FROM images WHERE width < 1000";
    fs::create_dir_all(workspace.path("sql/hard_samples")).unwrap();
    fs::write(workspace.path("sql/hard_samples/few_shot.sql"), query).unwrap();
    let said = workspace.json("check", &[])["warnings"].to_string();
    assert!(!said.contains("no image is hard"), "{said}");
}
