//! The pipelines of the paper's four data sets: end-to-end runs of miniatures in their file formats, and the forecast of
//! a run over the full data sets.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::{
    sources::{DIGITS, Image, images, write},
    support::{Workspace, root, stderr},
};

/// A shipped pipeline, with the models of the digits.
fn shipped(pipeline: &str) -> Workspace {
    let mut workspace = Workspace::full();
    workspace.pipeline = root().join("pipelines").join(pipeline);
    workspace.edit("models.diffusion=models/digits");
    workspace.edit("models.clip=models/digits/clip");
    workspace
}

/// Reduces the pipeline to the size of a test, with values that suit the models of the digits.
fn shrink(workspace: &mut Workspace) {
    for edit in
        ["spectrum.seeds=[10]", "spectrum.timesteps=6", "spectrum.guidance_scale=4", "filter.min_text_similarity=0.4"]
    {
        workspace.edit(edit);
    }
}

/// Sets a key to the path of a file in the workspace.
fn place(workspace: &mut Workspace, key: &str, name: &str) {
    let path = workspace.path(name);
    workspace.edit(&format!("{key}={}", path.display()));
}

fn confidences(path: &Path, rows: &[(String, f64)]) {
    let fields = [("path", DataType::Utf8), ("probability", DataType::Float64)];
    let schema = Schema::new(fields.map(|(name, ty)| Field::new(name, ty, false)).to_vec());
    let paths: StringArray = rows.iter().map(|row| Some(&row.0)).collect();
    let probabilities: Float64Array = rows.iter().map(|row| Some(row.1)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(paths), Arc::new(probabilities)];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Writes the lists of ImageNet-LT, whose lines are `path label`, and the names of the classes.
fn imagenet_lt(workspace: &mut Workspace, lists: &[(&str, String)], names: &[&str]) {
    for (list, lines) in lists {
        write(&workspace.path(&format!("lists/ImageNet_LT_{list}.txt")), lines.as_bytes());
    }
    write(&workspace.path("lists/classes.txt"), names.join("\n").as_bytes());
    place(workspace, "source.root", "imagenet");
    place(workspace, "source.lists", "lists");
    place(workspace, "source.classes", "lists/classes.txt");
    descriptions(workspace, names.iter().copied());
}

/// Writes two descriptions of each class.
fn descriptions<'a>(workspace: &mut Workspace, names: impl Iterator<Item = &'a str>) {
    let lines: String = names
        .map(|name| json!({ "class_name": name, "texts": [format!("a photo of {name}"), format!("one {name}")] }))
        .fold(String::new(), |lines, line| lines + &line.to_string() + "\n");
    write(&workspace.path("descriptions.jsonl"), lines.as_bytes());
    place(workspace, "prompts.descriptions", "descriptions.jsonl");
}

/// The splits of the digits, under the names of ImageNet-LT's lists.
const LISTS: [(&str, &str); 3] = [("train", "train"), ("validation", "val"), ("test", "test")];

#[test]
fn a_small_imagenet_lt_runs_from_end_to_end() {
    let mut workspace = shipped("imagenet_lt.toml");
    let mut lists = LISTS.map(|(_, list)| (list, String::new()));
    for (number, Image { split, label, bytes }) in images().iter().enumerate() {
        let index = LISTS.iter().position(|(name, _)| name == split).unwrap();
        // A file that the benchmark calls JPEG need not be one. The content decides the format.
        let path = format!("{}/n{label:08}/n{label:08}_{number}.JPEG", if index == 2 { "val" } else { "train" });
        write(&workspace.path("imagenet").join(&path), bytes);
        writeln!(lists[index].1, "{path} {label}").unwrap();
    }
    imagenet_lt(&mut workspace, &lists, &DIGITS);
    shrink(&mut workspace);
    workspace.edit("hard_samples.max_class_count=10");
    workspace.edit("spectrum.area=4096");
    workspace.run();
    workspace.ok("verify", &["--deep"]);
    let hard = workspace.number("SELECT count(*) FROM hard_samples");
    assert_eq!(hard, 12.0, "as with the Parquet files");
    let levels = workspace.query("SELECT DISTINCT image_guidance AS level FROM candidates ORDER BY 1");
    assert_eq!(levels, [0, 10, 30, 50].map(|level| json!({ "level": level })));
    let prompts = workspace.query("SELECT DISTINCT prompt FROM candidates WHERE class_name = 'nine' ORDER BY 1");
    assert_eq!(prompts, [json!({ "prompt": "a photo of nine" }), json!({ "prompt": "one nine" })]);
    let epochs = workspace.query(
        "SELECT epoch, min(CASE WHEN sample_id <> source_id THEN image_guidance END) AS level, count(*) AS rows
         FROM manifest GROUP BY epoch ORDER BY epoch",
    );
    assert_eq!(epochs.len(), 65);
    assert!(epochs[60..].iter().all(|epoch| epoch.get("level").is_none_or(Value::is_null)), "the last are real only");
    // Real images stay where they are. The lake has their paths, and the manifest finds them.
    let embedded = workspace.number("SELECT count(*) FROM pixels WHERE image['bytes'] IS NOT NULL");
    assert_eq!(embedded, 0.0);
    let there = workspace.query(
        "SELECT DISTINCT i.path FROM manifest m JOIN images i ON i.source_id = m.sample_id ORDER BY i.path LIMIT 3",
    );
    for row in there {
        assert!(workspace.path("imagenet").join(row["path"].as_str().unwrap()).is_file(), "{row}");
    }
}

/// Embedded and referenced real images give the same synthetic images.
#[test]
fn images_that_stay_where_they_are_give_the_same_spectrum() {
    const MADE: &str = "SELECT i.path, c.image_guidance, image_info(s.image)['digest'] AS digest, k.text_similarity
         FROM spectrum s JOIN candidates c USING (sample_id) JOIN images i ON i.source_id = c.source_id
         JOIN scores k ON k.sample_id = s.sample_id ORDER BY 1, 2";
    let mut embedded = Workspace::small();
    embedded.edit("spectrum.image_guidance=[50]");
    embedded.edit("filter.max_attempts=1");
    let mut referenced = Workspace::small();
    referenced.set.clone_from(&embedded.set);
    referenced.edit("source.sql=pixels/reference.sql");
    embedded.ok("run", &["--until", "scores"]);
    referenced.ok("run", &["--until", "scores"]);
    assert_eq!(embedded.query(MADE), referenced.query(MADE));
    // An image that does not exist gives an error with the reason.
    let image = "SELECT load_image(image)['error'] AS error FROM (SELECT named_struct('path', 'train.parquet#9999',
        'bytes', arrow_cast(NULL, 'Binary')) AS image)";
    let error = referenced.query(image)[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("has 337 rows"), "{error}");
}

/// Writes iWildCam's tables: an unnamed index column, numbered classes, a duplicate name, and a class without images.
fn iwildcam(workspace: &mut Workspace, rows: impl Iterator<Item = (String, &'static str, i64)>, names: &[String]) {
    let mut table = ",split,location_remapped,y,datetime,filename\n".to_owned();
    for (number, (file, split, y)) in rows.enumerate() {
        writeln!(table, "{number},{split},{},{y},2013-06-05 05:44:19.000,{file}", number % 7).unwrap();
    }
    write(&workspace.path("iwildcam/metadata.csv"), table.as_bytes());
    let mut categories = "y,category_id,name\n".to_owned();
    for (y, name) in names.iter().enumerate() {
        writeln!(categories, "{y},{},{name}", y + 1).unwrap();
    }
    writeln!(categories, "99999,243,didelphis sp").unwrap();
    write(&workspace.path("iwildcam/categories.csv"), categories.as_bytes());
    place(workspace, "source.root", "iwildcam");
    place(workspace, "source.classes", "iwildcam/categories.csv");
    place(workspace, "hard_samples.confidences", "confidences.parquet");
    place(workspace, "prompts.common_names", "names.json");
}

/// Paths of another form than those of `images` match nothing, and few missing ones are no reason to stop.
#[test]
fn confidences_have_the_training_images() {
    let mut workspace = Workspace::small();
    let file = workspace.path("confidences.parquet");
    workspace.edit("hard_samples.sql=hard_samples/low_confidence.sql");
    workspace.edit("hard_samples.hard_fraction=0.05");
    workspace.edit(&format!("hard_samples.confidences={}", file.display()));
    let of = |prefix: &str, rows: usize| -> Vec<(String, f64)> {
        (0..rows).map(|row| (format!("{prefix}train.parquet#{row}"), 0.5 + row as f64 / 1000.0)).collect()
    };
    confidences(&file, &of("x/", 337));
    let output = workspace.command("check", &[]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let message = "`hard_samples.confidences` has no probability for 337 of 337 training images: \"train.parquet#0\"";
    assert!(said.contains(message) && said.contains("while the file names \"x/train.parquet#0\""), "{said}");
    confidences(&file, &of("", 334));
    let said = workspace.json("check", &[])["warnings"].to_string();
    assert!(said.contains("`hard_samples.confidences` has no probability for 3 of 337 training images"), "{said}");
    confidences(&file, &of("", 337));
    assert_eq!(workspace.json("check", &[])["warnings"].as_array().unwrap().len(), 0);
}

#[test]
fn a_small_iwildcam_runs_until_it_waits_for_its_trainer() {
    let mut workspace = shipped("iwildcam.toml");
    // Two species share a name, as mazama temama does.
    let species = |y: usize| if y == 9 { 8 } else { y };
    let name = |y: usize| if y == 0 { "empty".to_owned() } else { format!("digitus {}", DIGITS[species(y)]) };
    let names: Vec<String> = (0..10).map(name).collect();
    let mut common: serde_json::Map<String, Value> =
        (1..9).map(|y| (names[y].clone(), Value::from(DIGITS[y]))).collect();
    common.insert("not here".into(), "nowhere".into());
    write(&workspace.path("names.json"), Value::from(common).to_string().as_bytes());
    let splits = [("train", "train"), ("validation", "val"), ("test", "test")];
    let mut rows = Vec::new();
    for (number, Image { split, label, bytes }) in images().iter().enumerate() {
        let file = format!("{number:08x}-21bc-11ea-a13a-137349068a90.jpg");
        write(&workspace.path("iwildcam/train").join(&file), bytes);
        let split = splits.iter().find(|(name, _)| name == split).unwrap().1;
        let split = if split == "test" && number % 2 == 0 { "id_test" } else { split };
        rows.push((file, split, *label));
    }
    let unsure = |number: usize| (number as f64 * 0.618_034).fract();
    let of = |(number, row): (usize, &(String, &str, i64))| (format!("train/{}", row.0), unsure(number));
    confidences(&workspace.path("confidences.parquet"), &rows.iter().enumerate().map(of).collect::<Vec<_>>());
    iwildcam(&mut workspace, rows.into_iter(), &names);
    shrink(&mut workspace);
    for edit in [
        "spectrum.image_guidance=[50]",
        "spectrum.width=32",
        "spectrum.height=24",
        "validation.sources=2",
        "curriculum.probe_size=32",
    ] {
        workspace.edit(edit);
    }
    let run = workspace.run();
    workspace.ok("verify", &[]);
    assert_eq!(run["awaits"][0]["epoch"], 0, "{}", run["awaits"]);
    let hard = "SELECT count(*) FILTER (WHERE class_name = 'empty') AS empty, count(*) AS hard FROM hard_samples";
    let hard = &workspace.query(hard)[0];
    assert_eq!(hard["empty"], 0);
    assert!((10..=21).contains(&hard["hard"].as_i64().unwrap()), "0.063635 of 337: {hard}");
    let prompts = "SELECT DISTINCT class_name, prompt FROM candidates WHERE class_name = 'digitus six'";
    let expected = json!({ "class_name": "digitus six", "prompt": "a photo of six in the wild" });
    assert_eq!(workspace.query(prompts), [expected]);
    let labels = "SELECT count(DISTINCT label) FROM images WHERE class_name = 'digitus eight'";
    assert_eq!(workspace.number(labels), 2.0, "labels keep apart what shares a name");
    let sides =
        "SELECT DISTINCT image_info(image)['width'] AS width, image_info(image)['height'] AS height FROM spectrum";
    assert_eq!(workspace.query(sides), [json!({ "width": 32, "height": 24 })]);
}

/// Creates empty files with these names. A plan does not read them.
fn touch(folder: &Path, names: impl Iterator<Item = String>) {
    for name in names {
        let path = folder.join(name);
        if let Err(error) = fs::File::create(&path) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            write(&path, b"");
        }
    }
}

/// Returns the row of a step in a plan.
fn planned<'a>(plan: &'a Value, step: &str) -> &'a Value {
    plan.as_array().unwrap().iter().find(|planned| planned["step"] == step).unwrap()
}

/// The numbers of the paper: 1,643 hard images, four levels and eight seeds, 155 timesteps with guidance.
#[test]
fn the_plan_of_imagenet_lt_has_the_papers_counts() {
    let mut workspace = shipped("imagenet_lt.toml");
    // 136 classes have fewer than 20 images each, 1,643 in total. The other 864 have 114,203.
    let count = |label: usize| match label {
        0..11 => 13,
        11..136 => 12,
        136..291 => 133,
        _ => 132,
    };
    let name = |label: usize, number: usize| format!("train/n{label:08}/{number}.JPEG");
    let mut train = String::new();
    for label in 0..1000 {
        touch(&workspace.path("imagenet"), (0..count(label)).map(|number| name(label, number)));
        (0..count(label)).for_each(|number| writeln!(train, "{} {label}", name(label, number)).unwrap());
    }
    assert_eq!(train.lines().count(), 115_846);
    let one = |split: &str| format!("train/n00000000/{split}.JPEG");
    touch(&workspace.path("imagenet"), ["val", "test"].map(one).into_iter());
    let lists = [("train", train), ("val", format!("{} 0\n", one("val"))), ("test", format!("{} 0\n", one("test")))];
    let names: Vec<String> = (0..1000).map(|label| format!("class {label}")).collect();
    imagenet_lt(&mut workspace, &lists, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let plan = workspace.json("plan", &[])["steps"].clone();
    assert_eq!(planned(&plan, "pixels")["rows"]["due"], 115_848);
    assert_eq!(planned(&plan, "hard_samples")["rows"]["due"], 1643);
    let spectrum = planned(&plan, "spectrum");
    let samples = 1643 * 4 * 8;
    assert_eq!(spectrum["rows"], json!({ "due": samples, "at_most": 6 * samples }));
    let evaluations = 1643 * 8 * 155 * 2;
    assert_eq!(spectrum["unet_evaluations"], json!({ "due": evaluations, "at_most": 6 * evaluations }));
    // At the rate of the paper, which takes 37 hours for 175 timesteps.
    assert_eq!(spectrum["seconds"]["due"].as_i64().unwrap() / 3600, 32);
    assert!(spectrum["bytes"].is_object(), "{spectrum}");
}

/// 8,260 hard images, three levels and eight seeds, 45 timesteps with guidance, and no retries.
#[test]
fn the_plan_of_iwildcam_has_the_papers_counts() {
    let mut workspace = shipped("iwildcam.toml");
    const TRAIN: usize = 129_809;
    let names: Vec<String> = (0..182).map(|y| if y == 0 { "empty".into() } else { format!("species {y}") }).collect();
    let file = |number: usize| format!("{number:08}.jpg");
    touch(&workspace.path("iwildcam/train"), (0..TRAIN + 3).map(file));
    let splits = ["val", "id_test", "test"];
    let split = |number: usize| number.checked_sub(TRAIN).map_or("train", |left| splits[left]);
    let rows = (0..TRAIN + 3).map(|number| (file(number), split(number), (number % 182) as i64));
    iwildcam(&mut workspace, rows, &names);
    write(&workspace.path("names.json"), br#"{"species 1": "jaguar"}"#);
    let unsure = |number: usize| (format!("train/{}", file(number)), number as f64 / 1e6);
    confidences(&workspace.path("confidences.parquet"), &(0..TRAIN).map(unsure).collect::<Vec<_>>());
    let plan = workspace.json("plan", &[])["steps"].clone();
    assert_eq!(planned(&plan, "hard_samples")["rows"]["due"], 8260);
    let spectrum = planned(&plan, "spectrum");
    let (samples, evaluations) = (8260 * 3 * 8, 8260 * 8 * 45 * 2);
    assert_eq!(spectrum["rows"], json!({ "due": samples, "at_most": samples }));
    assert_eq!(spectrum["unet_evaluations"], json!({ "due": evaluations, "at_most": evaluations }));
    // 1.5 bytes per pixel.
    assert_eq!(spectrum["bytes"]["due"], i64::from(samples) * 480 * 270 * 3 / 2);
}

/// All of the 44,956 hard images, in 3,212 species, and one species with more: four levels and four seeds.
#[test]
fn the_plan_of_inaturalist_2018_has_the_papers_counts() {
    let mut workspace = shipped("inaturalist2018.toml");
    let count = |label: usize| match label {
        0..3211 => 14,
        3211 => 2,
        _ => 20,
    };
    let image = |label: usize, number: usize| format!("train_val2018/Plantae/{label}/{number}.jpg");
    let mut train = String::new();
    for label in 0..3213 {
        touch(&workspace.path("inat"), (0..count(label)).map(|number| image(label, number)));
        (0..count(label)).for_each(|number| writeln!(train, "{} {label}", image(label, number)).unwrap());
    }
    touch(&workspace.path("inat"), ["train_val2018/Plantae/0/val.jpg".to_owned()].into_iter());
    write(&workspace.path("inat/iNaturalist18_train.txt"), train.as_bytes());
    write(&workspace.path("inat/iNaturalist18_val.txt"), b"train_val2018/Plantae/0/val.jpg 0\n");
    let names: BTreeMap<String, String> = (0..3213).map(|y| (y.to_string(), format!("species {y}"))).collect();
    write(&workspace.path("classes.json"), serde_json::to_vec(&names).unwrap().as_slice());
    place(&mut workspace, "source.root", "inat");
    place(&mut workspace, "source.classes", "classes.json");
    descriptions(&mut workspace, names.values().map(String::as_str));
    let plan = workspace.json("plan", &[])["steps"].clone();
    assert_eq!(planned(&plan, "hard_samples")["rows"]["due"], 44_956);
    let samples = 44_956 * 4 * 4;
    assert_eq!(planned(&plan, "spectrum")["rows"], json!({ "due": samples, "at_most": 6 * samples }));
}

/// Writes a Parquet file with the columns of Hugging Face's CIFAR-100, and so many images of each class.
fn cifar100(path: &Path, counts: &[i64]) {
    let labels: Int64Array =
        (0..).zip(counts).flat_map(|(label, count)| (0..*count).map(move |_| Some(label))).collect();
    let images = BinaryArray::from_vec(vec![b"x"; labels.len()]);
    let features =
        json!({ "info": { "features": { "fine_label": { "_type": "ClassLabel", "names": fine_labels() } } } });
    let fields = vec![Field::new("img", DataType::Binary, true), Field::new("fine_label", DataType::Int64, true)];
    let schema = Schema::new_with_metadata(fields, [("huggingface".to_owned(), features.to_string())].into());
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(images), Arc::new(labels)]).unwrap();
    write(path, b"");
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn fine_labels() -> Vec<String> {
    (0..100).map(|label| format!("class {label:02}")).collect()
}

/// The exponential profile of imbalance 100: 10,847 images, of which 325 are in classes of up to 20. The paper has 324.
#[test]
fn the_plan_of_cifar100_lt_has_the_papers_counts() {
    let mut workspace = shipped("cifar100_lt.toml");
    let counts: Vec<i64> = (0..100).map(|label| (500.0 * 0.01_f64.powf(f64::from(label) / 99.0)) as i64).collect();
    assert_eq!(counts.iter().sum::<i64>(), 10_847);
    cifar100(&workspace.path("cifar/train.parquet"), &counts);
    cifar100(&workspace.path("cifar/test.parquet"), &[1; 100]);
    place(&mut workspace, "source.root", "cifar");
    descriptions(&mut workspace, fine_labels().iter().map(String::as_str));
    let plan = workspace.json("plan", &[])["steps"].clone();
    assert_eq!(planned(&plan, "hard_samples")["rows"]["due"], 325);
    let samples = 325 * 3 * 8;
    assert_eq!(planned(&plan, "spectrum")["rows"], json!({ "due": samples, "at_most": 6 * samples }));
}

/// A pipeline that ships has a test here or is a data set that ships.
#[test]
fn each_shipped_pipeline_is_tested() {
    let here = fs::read_to_string(root().join("tests/it/datasets.rs")).unwrap();
    for entry in fs::read_dir(root().join("pipelines")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("digits_") || here.contains(&format!("shipped(\"{name}\")")), "{name}");
    }
}
