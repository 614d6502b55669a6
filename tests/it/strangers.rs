//! Data sets as strangers have them: every kind of trouble has its outcome, and nothing is lost without a word.

use std::{fs, path::Path, process::Command};

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{Workspace, root, stderr};

/// Unpacks a data set of `tests/fixtures/data_sets` into a workspace whose pipeline reads it.
fn unpacked(name: &str) -> Workspace {
    let mut workspace = Workspace::full();
    let archive = root().join("tests/fixtures/data_sets").join(format!("{name}.tar.gz"));
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(workspace.path("")).status().unwrap();
    assert!(unpacked.success(), "{name}");
    let source = fs::read_to_string(workspace.path("source.toml")).unwrap();
    workspace.set_source(&source);
    workspace
}

/// Runs up to the images, and returns in lines what came of each split, each reject and each warning, or the error.
fn outcome(workspace: &Workspace) -> String {
    let output = workspace.command("run", &["--until", "images", "--format", "json"]).output().unwrap();
    let directory = workspace.path("").display().to_string();
    let short = |text: &str| text.replace(directory.trim_end_matches('/'), "DIR");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    if let Some(errors) = said["errors"].as_array() {
        let messages = errors.iter().map(|error| short(error["message"].as_str().unwrap()));
        return format!("exit code {}\n{}", output.status.code().unwrap(), messages.collect::<Vec<_>>().join("\n"));
    }
    let mut lines = Vec::new();
    for split in said["census"]["splits"].as_array().unwrap() {
        let name = split["split"].as_str().unwrap();
        let classes = workspace.query(&format!(
            "SELECT label, class_name, count(*) AS n FROM images WHERE split = '{name}' GROUP BY 1, 2 ORDER BY 1"
        ));
        let classes: Vec<String> =
            classes.iter().map(|class| format!("{} {} ×{}", class["label"], class["class_name"], class["n"])).collect();
        lines.push(format!("{name}: {}", classes.join(", ").replace('"', "")));
        let skipped: Vec<String> = split["skipped"]
            .as_array()
            .unwrap()
            .iter()
            .map(|skipped| format!("{} {}", skipped["count"], skipped["reason"].as_str().unwrap()))
            .collect();
        if !skipped.is_empty() {
            lines.push(format!("  skipped: {}", skipped.join(", ")));
        }
        let count = |key: &str| split[key].as_u64().unwrap();
        let total: u64 = split["skipped"].as_array().unwrap().iter().map(|s| s["count"].as_u64().unwrap()).sum();
        assert_eq!(count("listed"), count("images") + count("rejects") + total);
    }
    for reject in workspace.query("SELECT path, reason FROM rejects ORDER BY path") {
        lines.push(format!("reject: {}: {}", reject["path"].as_str().unwrap(), reject["reason"].as_str().unwrap()));
    }
    let warnings = said["warnings"].as_array().unwrap().iter().map(|warning| warning["message"].as_str().unwrap());
    for warning in warnings.filter(|warning| !warning.starts_with("the tables were made with")) {
        lines.push(format!("warning: {}", short(warning)));
    }
    lines.join("\n")
}

#[test]
fn every_kind_of_trouble_has_its_outcome() {
    let mut names: Vec<String> = fs::read_dir(root().join("tests/fixtures/data_sets"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap().replace(".tar.gz", ""))
        .collect();
    names.sort();
    let outcomes = names.iter().map(|name| format!("== {name}\n{}", outcome(&unpacked(name))));
    assert_snapshot!(outcomes.collect::<Vec<_>>().join("\n"), @r#"
    == a_folder_in_between
    train: 0 images ×6
    validation: 0 images ×6
    warning: the folders in `train` are taken as classes, and each has its images in several folders, such as `train/images/five`
    warning: the folders in `val` are taken as classes, and each has its images in several folders, such as `val/images/five`
    == captions_beside_folders
    train: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 zero ×3
    validation: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 zero ×3
    warning: `train/metadata.jsonl` has no field `label`, so the folders next to it are taken as classes
    warning: `val/metadata.jsonl` has no field `label`, so the folders next to it are taken as classes
    == class_names_in_another_order
    train: 0 zero ×2, 1 one ×2, 2 two ×2
    validation: 0 zero ×2, 1 one ×2, 2 two ×2
    == codes_as_labels
    train: 0 007 ×2, 1 010 ×2, 2 0100 ×2, 3 100 ×2
    validation: 0 007 ×1, 1 010 ×1, 2 0100 ×1, 3 100 ×1
    warning: labels are taken as names: 9 of 12 are not integers, such as "007" of `metadata.csv`:2
    == damaged_images
    train: 0 cmyk_adobe ×1, 1 gray16 ×1, 2 mpo ×1, 4 png_badcrc_text ×1, 5 png_bigtext ×1, 6 rgba_clear_dropped ×1, 7 webp_anim ×1, 8 zero ×12
    validation: 8 zero ×12
    reject: train/png_badadler/awk.png: the `png` image is truncated or corrupt: Corrupt deflate stream. WrongChecksum
    warning: 3 of 9 generation prompts have more than the 16 tokens that the model reads, start and end included; what follows them is cut off. The longest has 21: "a photo of rgba_clear_dropped"
    warning: 3 of 9 filter prompts have more than the 16 tokens that the model reads, start and end included; what follows them is cut off. The longest has 21: "a photo of rgba_clear_dropped"
    warning: 1 of 20 images of the split train could not be read
    warning: no image of the class "png_badadler" in the split train can be read
    == dots_in_keys
    exit code 2
    the source has 2 invalid entries:
      `train.tar`: the sample "22" has several images; `source.image_member` chooses one of `05.png`, `06.png`
      `train.tar`: the sample "IMG" has no member `.cls`, but `.2020.01.02.png`, `.2020.01.02.cls`; the name of a sample ends at the first dot, as in WebDataset
    == float_labels
    train: 0 name 0 ×1, 1 name 1 ×1, 2 name 2 ×1, 3 name 3 ×1, 4 name 4 ×1, 5 name 5 ×1, 6 name 6 ×1, 7 name 7 ×1, 8 name 8 ×1, 9 name 9 ×1, 10 name 10 ×1, 11 name 11 ×1
    validation: 0 name 0 ×1, 1 name 1 ×1, 2 name 2 ×1, 3 name 3 ×1, 4 name 4 ×1, 5 name 5 ×1, 6 name 6 ×1, 7 name 7 ×1, 8 name 8 ×1, 9 name 9 ×1
    == float_labels_in_json
    train: 0 0 ×1, 1 1 ×1, 5 5 ×1, 8 8 ×1
    validation: 0 0 ×1
    == float_labels_in_metadata
    train: 0 0 ×3, 1 1 ×3
    validation: 0 0 ×3, 1 1 ×3
    == git_lfs_pointer
    exit code 2
    `file://DIR/data/train.parquet`: it is a Git LFS pointer, not the file itself
    hint: run `git lfs install` and `git lfs pull` in the repository, or download the file by itself
    == hidden_names
    train: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 zero ×3
      skipped: 6 hidden or of a tool
    validation: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 zero ×3
    warning: 6 of 18 files of the split train were skipped: 6 hidden or of a tool, such as `train/.git/x.png`, `train/.ipynb_checkpoints/000-checkpoint.png`, `train/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg`
    == labels_beyond_the_names
    exit code 2
    `train.parquet#4` has the label 2, and the metadata of the source has names for the labels 0 to 1 only
    == latin1_name
    train: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 zero ×3
    validation: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 zero ×3
    reject: train/five/caf\xe9.png: its name is not valid UTF-8
    warning: 1 of 13 images of the split train could not be read
    == links_in_a_circle
    train: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 zero ×3
      skipped: 1 links in a circle
    validation: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 zero ×3
    warning: 1 of 13 files of the split train were skipped: 1 links in a circle, such as `train/zero/again`
    == mixed_labels
    train: 0 1 ×2, 1 2 ×2, 2 A ×2, 3 B ×2
    validation: 0 1 ×1, 1 2 ×1, 2 A ×1, 3 B ×1
    warning: labels are taken as names: 6 of 12 are not integers, such as "A" of `metadata.csv`:8
    == nan_in_metadata
    train: 0 five ×3, 1 zero ×3
    validation: 0 five ×3, 1 zero ×3
    == negative_labels
    exit code 2
    the source has 2 invalid entries:
      `train.parquet`: "train.parquet#0" has the label "-1", allowed are integers from 0; with `source.label_kind = "name"` labels are names
      `train.parquet`: "train.parquet#1" has the label "-1", allowed are integers from 0; with `source.label_kind = "name"` labels are names
    == numbered_folders
    train: 0 name 0 ×2, 1 name 1 ×2, 2 name 2 ×2, 3 name 3 ×2, 4 name 4 ×2, 5 name 5 ×2, 6 name 6 ×2, 7 name 7 ×2, 8 name 8 ×2, 9 name 9 ×2, 10 name 10 ×2, 11 name 11 ×2
    validation: 0 name 0 ×2, 1 name 1 ×2, 2 name 2 ×2, 3 name 3 ×2, 4 name 4 ×2, 5 name 5 ×2, 6 name 6 ×2, 7 name 7 ×2, 8 name 8 ×2, 9 name 9 ×2, 10 name 10 ×2, 11 name 11 ×2
    == other_class_names
    exit code 2
    `a.parquet` and `b.parquet` have other class names in their metadata: only the first has "zero", "one", only the second has "two", "three"; numbers of a `ClassLabel` mean the same in all files only if the names are the same
    == paths_without_bytes
    exit code 1
    step `pixels`: 4 of 8 rows failed, 1 are allowed (`rejects.max_fraction`)
      "train.parquet#0": the source has no bytes for it, only the path "0_0.png"; write the bytes too: `dataset.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)`, then `to_parquet`
      "train.parquet#1": the source has no bytes for it, only the path "0_1.png"; write the bytes too: `dataset.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)`, then `to_parquet`
      "train.parquet#2": the source has no bytes for it, only the path "1_0.png"; write the bytes too: `dataset.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)`, then `to_parquet`
    hint: `SELECT path, reason FROM rejects` in `discl-pipe sql` shows all
    == rare_endings
    train: 0 eight ×6, 1 five ×6, 2 nine ×6, 3 tiger ×3, 4 zero ×3
    validation: 0 eight ×3, 1 five ×3, 2 nine ×3, 3 tiger ×3, 4 zero ×3
    == rotated_images
    train: 0 exif3_raw ×1, 1 exif6_png ×1, 2 exif6_raw ×1, 3 plain ×1, 4 zero ×12
    validation: 4 zero ×12
    == two_images_for_a_key
    exit code 2
    the source has 4 invalid entries:
      `train.tar`: the sample "000" has several images; `source.image_member` chooses one of `image.png`, `mask.png`
      `train.tar`: the sample "001" has several images; `source.image_member` chooses one of `image.png`, `mask.png`
      `train.tar`: the sample "002" has several images; `source.image_member` chooses one of `image.png`, `mask.png`
      `train.tar`: the sample "003" has several images; `source.image_member` chooses one of `image.png`, `mask.png`
    == two_unicode_forms
    train: 0 five ×3, 1 jalapeño ×3, 2 zero ×3
    validation: 0 five ×3, 1 jalapeño ×3, 2 zero ×3
    "#);
}

/// Writes the images of `classes` into folders below `folder`, `count` of each.
fn write_folders(folder: &Path, classes: &[&str], count: usize) {
    let images = crate::sources::images();
    for (label, class) in (0..).zip(classes) {
        let of_class = images.iter().filter(|image| image.label == label).take(count);
        for (number, image) in of_class.enumerate() {
            crate::sources::write(&folder.join(class).join(format!("{number}.png")), &image.bytes);
        }
    }
}

#[test]
fn names_match_by_number_whatever_the_format_of_their_file() {
    let workspace = unpacked("numbered_folders");
    let expected = outcome(&workspace);
    for file in ["classes.json", "classes.csv"] {
        let mut workspace = unpacked("numbered_folders");
        let classes = workspace.path(file).display().to_string();
        workspace.edit(&format!("source.classes=\"{classes}\""));
        assert_eq!(outcome(&workspace), expected, "{file}");
    }
    assert!(expected.contains("10 name 10 ×2, 11 name 11 ×2"), "{expected}");
    // As names, the folders are matched with a file of the same names, or numbered in the order of their values.
    let mut workspace = unpacked("numbered_folders");
    workspace.edit("source.label_kind=\"name\"");
    fs::write(workspace.path("classes.txt"), "11\n10\n9\n8\n7\n6\n5\n4\n3\n2\n1\n0\n").unwrap();
    assert!(outcome(&workspace).contains("train: 0 11 ×2, 1 10 ×2"));
}

#[test]
fn a_key_chooses_among_the_images_of_a_sample() {
    let mut workspace = unpacked("two_images_for_a_key");
    // The validation set has one image for each sample, under another ending.
    workspace.edit("source.splits={train=\"train.tar\"}");
    let mut found = Vec::new();
    for member in ["image.png", "MASK.PNG"] {
        workspace.edit(&format!("source.image_member=\"{member}\""));
        workspace.ok("run", &["--until", "images"]);
        let paths = workspace.query("SELECT path, digest FROM images ORDER BY path");
        assert_eq!(paths.len(), 4, "{paths:?}");
        found.push(paths);
    }
    assert_eq!(found[0][0]["path"], "train.tar#000.image.png");
    assert_eq!(found[1][3]["path"], "train.tar#003.mask.png");
}

#[test]
fn a_flat_folder_is_split_by_shares() {
    let mut workspace = Workspace::full();
    write_folders(&workspace.path("photos"), &["cat", "dog", "emu"], 20);
    fs::write(workspace.path("photos/read me.txt"), "hello").unwrap();
    let source = "[source]\nkind = \"imagefolder\"\nroot = \"DIR/photos\"\n\
                  splits = { train = \".\", validation = 0.1, test = 0.25 }\n";
    workspace.set_source(source);
    assert_snapshot!(outcome(&workspace), @r"
    train: 0 cat ×13, 1 dog ×13, 2 emu ×13
      skipped: 1 `.txt`
    validation: 0 cat ×2, 1 dog ×2, 2 emu ×2
    test: 0 cat ×5, 1 dog ×5, 2 emu ×5
    warning: 1 of 40 files of the split train were skipped: 1 `.txt`, such as `read me.txt`
    ");
    // The draw does not depend on the seed, and an image stays in its split.
    let split = "SELECT path, split FROM images ORDER BY path";
    let before = workspace.query(split);
    workspace.edit("seed=7");
    workspace.ok("run", &["--until", "images"]);
    assert_eq!(workspace.query(split), before);
    workspace.set_source(&source.replace("0.25", "0.9").replace("0.1", "0.2"));
    let said = stderr(&workspace.command("check", &[]).output().unwrap());
    assert!(said.contains("the shares add up to 1.1, expected less than 1"), "{said}");
}

#[test]
fn patterns_name_many_files() {
    let mut workspace = Workspace::full();
    let digits = root().join("data/digits_lt");
    for (from, to) in [("train", "data/train-00000-of-00002"), ("validation", "data/train-00001-of-00002")] {
        fs::create_dir_all(workspace.path("data")).unwrap();
        fs::copy(digits.join(format!("{from}.parquet")), workspace.path(&format!("{to}.parquet"))).unwrap();
    }
    fs::copy(digits.join("test.parquet"), workspace.path("data/test.parquet")).unwrap();
    let source = "[source]\nkind = \"parquet\"\nroot = \"DIR\"\n\
                  splits = { train = \"data/train-*.parquet\", test = \"data/t?st.parquet\" }\n";
    let counts = "SELECT split, count(*) AS n FROM images GROUP BY 1 ORDER BY 1";
    let mut found = Vec::new();
    for pattern in ["train-*.parquet", "train-{00000..00001}-of-00002.parquet", "train-0000[01]*.parquet"] {
        workspace.set_source(&source.replace("train-*.parquet", pattern));
        workspace.ok("run", &["--until", "images"]);
        found.push(workspace.query(counts));
    }
    assert!(found[0] == found[1] && found[1] == found[2] && found[0].len() == 2, "{found:?}");
    for (wrong, message) in [
        ("data/nothing-*.parquet", "no file below `source.root` has a name like `data/nothing-*.parquet`"),
        ("data/t*.parquet", "`data/test.parquet` is in the splits train and test"),
    ] {
        workspace.set_source(&source.replace("data/train-*.parquet", wrong));
        let said = stderr(&workspace.command("check", &[]).output().unwrap());
        assert!(said.contains(message), "{said}");
    }
}

#[test]
fn a_run_closes_with_what_its_curriculum_misses() {
    let mut workspace = Workspace::small();
    let shipped = fs::read_to_string(&workspace.pipeline).unwrap();
    workspace.pipeline = workspace.path("pipeline.toml");
    // Without the expectations, which fail first.
    fs::write(&workspace.pipeline, shipped.split("[[expect]]").next().unwrap()).unwrap();
    workspace.edit("filter.min_text_similarity=0.99");
    // Nothing is kept, so no epoch has what it is for. What explains it is shown before the error.
    let output = workspace.command("run", &[]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("split "), "the census comes first: {said}");
    let warnings = [
        "warning: 0 of 36 slots kept an image; the median of the best `text_similarity` of a slot is 0.",
        "warning: no image with image guidance 10, 50 or 90 was kept",
        "warning: no synthetic image was kept of the classes \"",
        "error: expectation `every epoch below level 100 trains on synthetic images` failed: 4 rows, none expected",
        "hint: was none kept of that level (`filter.min_text_similarity`)",
    ];
    let places: Vec<usize> =
        warnings.iter().map(|text| said.find(text).unwrap_or_else(|| panic!("{text}\n{said}"))).collect();
    assert!(places.is_sorted(), "{said}");
    assert!(workspace.lake().join("digits_lt/contact_sheet.png").exists());
    let plan = workspace.json("plan", &[])["warnings"].to_string();
    let message = "4 epochs train on no synthetic image, so a run fails: none is kept of image guidance 10, 50 and 90";
    assert!(plan.contains(message), "{plan}");
    // Few kept images are repeated, and an epoch says how often.
    workspace.edit("filter.min_text_similarity=0.62");
    workspace.edit("curriculum.hard_share=0.9");
    workspace.edit("curriculum.max_repeats=10");
    let run = workspace.run();
    let warnings = run["warnings"].to_string();
    assert!(warnings.contains("trains on one image "), "{warnings}");
    assert!(warnings.contains("the tables were made with `--set hard_samples.max_class_count=10` "), "{warnings}");
}
