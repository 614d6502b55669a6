//! The form in which images are stored: files of every kind, read by Pillow and `datasets` from exports.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    readers::environment,
    support::{Workspace, root, stderr},
};

/// Runs `tests/readers/images.py`.
fn python(arguments: &[&str]) -> String {
    let mut command = Command::new(environment("readers").join("bin/python"));
    command.arg("-I").arg(root().join("tests/readers/images.py")).args(arguments);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", stderr(&output));
    said
}

/// A pipeline over files in a list, all of them hard, each with one synthetic image.
struct Files {
    workspace: Workspace,
    /// The digest of each file, and what becomes of it.
    outcomes: BTreeMap<String, Value>,
}

impl Files {
    fn new() -> Self {
        let mut workspace = Workspace::full();
        let folder = workspace.path("files");
        python(&["make", folder.to_str().unwrap()]);
        let outcomes = fs::read(folder.join("outcomes.json")).unwrap();
        workspace.pipeline = workspace.path("p.toml");
        let (root, models) = (folder.join("data"), root().join("models/digits"));
        let pipeline = format!(
            "name = \"files\"\nlake.root = \"lake\"\n\
             source = {{ kind = \"list\", root = \"{}\", classes = \"{}\", splits.train = \"train.txt\" }}\n\
             models = {{ diffusion = \"{}\", clip = \"{}\" }}\n\
             hard_samples.max_class_count = 1000\nspectrum = {{ image_guidance = [50], seeds = [1], timesteps = 2 }}\n\
             filter = {{ min_text_similarity = -1.0, max_attempts = 1 }}\n\
             curriculum = {{ epochs = 2, curriculum_epochs = 1, manifest = \"manifest/low_quality.sql\" }}\nrejects.max_fraction = 1.0\n",
            root.display(),
            root.join("names.txt").display(),
            models.display(),
            models.join("clip").display(),
        );
        fs::write(&workspace.pipeline, pipeline).unwrap();
        fs::write(root.join("names.txt"), "zero\n").unwrap();
        Self { workspace, outcomes: serde_json::from_slice(&outcomes).unwrap() }
    }

    fn folder(&self) -> PathBuf {
        self.workspace.path("files")
    }

    /// Lists the files of which this is true, given their outcome.
    fn list(&self, wanted: impl Fn(&str) -> bool) {
        let names = self.outcomes.iter().filter(|(_, file)| wanted(file["outcome"].as_str().unwrap()));
        let names = names.map(|(name, _)| format!("{name} 0\n"));
        fs::write(self.folder().join("data/train.txt"), names.collect::<String>()).unwrap();
    }

    /// Exports all epochs in every form, and compares what readers find with the pixels of the files.
    fn check_exports(&self, name: &str) {
        let samples = self.workspace.query(
            "SELECT DISTINCT m.sample_id, i.path, m.sample_id = m.source_id AS real \
             FROM manifest m JOIN images i ON i.source_id = m.source_id",
        );
        fs::write(self.folder().join("samples.json"), serde_json::to_vec(&samples).unwrap()).unwrap();
        let exports = self.workspace.path(name);
        for form in ["webdataset", "imagefolder", "parquet"] {
            self.workspace.ok("export", &[exports.join(form).to_str().unwrap(), "--as", form]);
        }
        let said = python(&["check", self.folder().to_str().unwrap(), exports.to_str().unwrap()]);
        assert_eq!(said.matches("ok ").count(), 3, "{said}");
    }
}

#[test]
fn every_file_is_kept_converted_or_rejected_and_readers_agree_on_its_pixels() {
    let mut files = Files::new();
    files.list(|_| true);
    files.workspace.run();
    let mut found = BTreeMap::new();
    for row in files.workspace.query("SELECT path, digest, format FROM images") {
        let path = row["path"].as_str().unwrap().to_owned();
        let outcome = if row["digest"] == files.outcomes[&path]["digest"] { "kept" } else { "converted" };
        assert!(outcome == "kept" || row["format"] == "png", "{row}");
        found.insert(path, outcome.to_owned());
    }
    let rejects = "SELECT l.path FROM rejects r JOIN listing l ON l.pixel_id = r.id WHERE r.step = 'pixels'";
    for row in files.workspace.query(rejects) {
        found.insert(row["path"].as_str().unwrap().to_owned(), "rejected".to_owned());
    }
    let expected =
        files.outcomes.iter().map(|(name, file)| (name.clone(), file["outcome"].as_str().unwrap().to_owned()));
    assert_eq!(found, expected.collect());
    files.check_exports("embedded");
    let verified = files.workspace.ok("verify", &["--deep"]);
    assert!(verified.contains("clean"), "{verified}");
    // Images that stay in the source are given in the same form to models and exports.
    files.list(|outcome| outcome != "rejected");
    files.workspace.edit("name=referenced");
    files.workspace.edit("source.sql=pixels/reference.sql");
    files.workspace.run();
    files.check_exports("referenced");
    files.workspace.ok("verify", &["--deep"]);
    // A file that is no longer the one that was read is not exported.
    fs::write(files.folder().join("data/rgb.png"), fs::read(files.folder().join("data/private.png")).unwrap()).unwrap();
    let destination = files.workspace.path("changed");
    let output =
        files.workspace.command("export", &[destination.to_str().unwrap(), "--as", "parquet"]).output().unwrap();
    let said = stderr(&output);
    assert!(!output.status.success() && said.contains("`rgb.png`, has changed since it was read"), "{said}");
}

#[test]
fn another_background_reads_images_again() {
    let mut files = Files::new();
    fs::write(files.folder().join("data/train.txt"), "alpha.png 0\nrgb.png 0\n").unwrap();
    files.workspace.json("run", &["--until", "images"]);
    let digests = "SELECT path, digest FROM images ORDER BY path";
    let white = files.workspace.query(digests);
    files.workspace.edit("source.background=#102030");
    let run = files.workspace.json("run", &["--until", "images"]);
    assert_eq!(run["steps"][0]["skipped"], false, "{run}");
    let colored = files.workspace.query(digests);
    assert_ne!(white[0], colored[0]);
    assert_eq!(white[1], colored[1], "a file without transparency stays as it is");
    let output = files.workspace.command("check", &["--set", "source.background=white"]).output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("found \"white\", expected a color of the form `#rrggbb`"), "{said}");
}
