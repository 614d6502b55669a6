//! A temporary workspace, and the program as a user runs it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// Edits that reduce the digits pipeline to 12 hard images, three levels, one seed and few timesteps.
pub(crate) const SMALL: &[&str] = &[
    "hard_samples.max_class_count=10",
    "spectrum.image_guidance=[10,50,90]",
    "spectrum.seeds=[10]",
    "spectrum.timesteps=10",
    "filter.max_attempts=2",
    "curriculum.epochs=5",
    "curriculum.curriculum_epochs=4",
    "curriculum.max_repeats=1000",
];

/// Queries of the tables that a TOML determines, and of the incremental rows that they refer to.
const TABLES: &[&str] = &[
    "SELECT p.source_id, p.info['digest'] AS info, image_info(p.image)['digest'] AS digest \
     FROM pixels p JOIN images i ON i.pixel_id = p.pixel_id ORDER BY p.source_id;",
    "SELECT * FROM images ORDER BY source_id;",
    "SELECT * FROM hard_samples ORDER BY source_id;",
    "SELECT * FROM candidates ORDER BY sample_id;",
    "SELECT s.sample_id, s.source_id, s.image_guidance, s.seed, s.attempt, s.prompt, s.noise_seed, s.timesteps, \
     s.guidance_scale, s.scheduler, s.generator, image_info(s.image)['digest'] AS digest \
     FROM spectrum s JOIN candidates c ON c.sample_id = s.sample_id ORDER BY s.sample_id;",
    "SELECT s.* FROM scores s JOIN candidates c ON c.score_id = s.score_id ORDER BY s.score_id;",
    "SELECT * FROM kept ORDER BY sample_id;",
    "SELECT * FROM schedule ORDER BY epoch, image_guidance;",
    "SELECT * FROM manifest ORDER BY epoch, position;",
];

/// A temporary directory with a lake. Commands run in the root of the repository.
pub(crate) struct Workspace {
    directory: tempfile::TempDir,
    /// The `--set` edits of every command.
    pub set: Vec<String>,
    /// The pipeline's file.
    pub pipeline: PathBuf,
    /// The URL of the lake, if it is not in the directory.
    pub url: Option<String>,
    /// The environment variables of every command.
    pub variables: Vec<(&'static str, String)>,
}

impl Workspace {
    /// The small pipeline and an empty lake.
    pub(crate) fn small() -> Self {
        let mut workspace = Self::full();
        workspace.set = SMALL.iter().map(|edit| (*edit).to_owned()).collect();
        workspace
    }

    /// The pipeline as it ships and an empty lake.
    pub(crate) fn full() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            set: Vec::new(),
            pipeline: root().join("pipelines/digits_lt.toml"),
            url: None,
            variables: Vec::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn lake(&self) -> PathBuf {
        self.path("lake")
    }

    /// Makes the digits with this `[source]` the pipeline, in which `DIR` is the workspace.
    pub(crate) fn set_source(&mut self, source: &str) {
        let shipped = fs::read_to_string(root().join("pipelines/digits_lt.toml")).unwrap();
        let (before, rest) = shipped.split_once("[source]").unwrap();
        let after = &rest[rest.find("[models]").unwrap()..];
        let directory = self.path("").display().to_string();
        let text = format!("{before}{}\n{after}", source.replace("DIR", directory.trim_end_matches('/')));
        self.pipeline = self.path("pipeline.toml");
        fs::write(&self.pipeline, text).unwrap();
    }

    /// Adds an edit, which replaces an earlier one of the same key.
    pub(crate) fn edit(&mut self, edit: &str) {
        let key = edit.split('=').next().unwrap().to_owned() + "=";
        self.set.retain(|old| !old.starts_with(&key));
        self.set.push(edit.to_owned());
    }

    /// `discl-pipe <command> <pipeline> --lake … --set … <arguments>`.
    pub(crate) fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut process = program();
        let lake = self.url.as_ref().map_or_else(|| self.lake(), PathBuf::from);
        process.arg(command).arg(&self.pipeline);
        // The two commands that read the pipeline alone.
        if !matches!(command, "confidences" | "prompts") {
            process.arg("--lake").arg(lake);
        }
        process.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        for edit in &self.set {
            process.arg("--set").arg(edit);
        }
        process.args(arguments);
        process
    }

    /// Runs a command that must succeed, and returns its stdout.
    pub(crate) fn ok(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.command(command, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command} {arguments:?} failed:\n{}{said}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must succeed, and returns its JSON.
    pub(crate) fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
        serde_json::from_str(&self.ok(command, &arguments)).unwrap()
    }

    /// Returns the rows of a query.
    pub(crate) fn query(&self, query: &str) -> Vec<Value> {
        self.json("sql", &[query]).as_array().unwrap().clone()
    }

    /// Returns the number in the only row and column of a query.
    pub(crate) fn number(&self, query: &str) -> f64 {
        let rows = self.query(query);
        let row = rows.first().and_then(Value::as_object).unwrap_or_else(|| panic!("no row: {query}"));
        row.values().next().and_then(Value::as_f64).unwrap_or_else(|| panic!("no number: {rows:?}"))
    }

    /// Returns every row that the pipeline determines, by table, without `pixel_id`, which depends on the version of a
    /// file in its store.
    pub(crate) fn tables(&self) -> BTreeMap<String, Vec<Value>> {
        let mut process = self.command("sql", &["--format", "json"]);
        let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), TABLES.join("\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let mut answers: Vec<Vec<Value>> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for row in answers.iter_mut().flatten() {
            row.as_object_mut().unwrap().remove("pixel_id");
        }
        assert_eq!(answers.len(), TABLES.len());
        TABLES.iter().map(|query| (*query).to_owned()).zip(answers).collect()
    }

    /// Asserts that the tables of two workspaces are equal.
    pub(crate) fn assert_equals(&self, other: &Self) {
        self.assert_holds(&other.tables());
    }

    /// Asserts that the tables hold exactly these rows.
    pub(crate) fn assert_holds(&self, tables: &BTreeMap<String, Vec<Value>>) {
        for ((query, mine), theirs) in self.tables().iter().zip(tables.values()) {
            for (a, b) in mine.iter().zip(theirs) {
                assert_eq!(a, b, "{query}");
            }
            assert_eq!(mine.len(), theirs.len(), "{query}");
        }
    }

    /// Runs the pipeline and returns the JSON of `run`.
    pub(crate) fn run(&self) -> Value {
        self.json("run", &[])
    }
}

/// Copies a directory recursively.
pub(crate) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Returns the variable of a cache in the workspace. It shares only ONNX Runtime with the user's cache.
pub(crate) fn cache(workspace: &Workspace) -> Vec<(&'static str, String)> {
    let user = std::env::var("XDG_CACHE_HOME").ok().filter(|cache| !cache.is_empty());
    let user = user.map_or_else(|| Path::new(&std::env::var("HOME").unwrap()).join(".cache"), PathBuf::from);
    let runtime = user.join("discl-pipe/onnxruntime");
    fs::create_dir_all(&runtime).unwrap();
    fs::create_dir_all(workspace.path("cache/discl-pipe")).unwrap();
    std::os::unix::fs::symlink(runtime, workspace.path("cache/discl-pipe/onnxruntime")).unwrap();
    vec![("XDG_CACHE_HOME", workspace.path("cache").to_str().unwrap().to_owned())]
}

/// Returns whether each step of a `run` was skipped.
pub(crate) fn skipped(run: &Value) -> BTreeMap<String, bool> {
    let steps = run["steps"].as_array().unwrap();
    steps.iter().map(|step| (step["step"].as_str().unwrap().to_owned(), step["skipped"].as_bool().unwrap())).collect()
}

/// Returns the program, to run in the root of the repository without the caller's cloud credentials.
pub(crate) fn program() -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_discl-pipe"));
    process.current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        process.env_remove(name);
    }
    process
}

/// Returns the bytes of every file below `folder`, by relative path.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the SHA-256 of `bytes`, in lower-case hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
