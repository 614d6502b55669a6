//! A lake and a source in S3, with and without faults; workers that share a pipeline; signals.
//!
//! The store is moto's, in a process of its own with faults before it: `tests/s3/server.py`. The program is as it
//! ships.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    readers,
    sources::images,
    support::{Workspace, cache, contents, root, sha256, skipped, stderr},
};

/// The access key of the server, and a secret that must not occur in any output.
const KEY: &str = "tester";
const SECRET: &str = "a-secret-that-nobody-may-read";
/// Faults that are frequent enough for a test to wait for each of them.
const FAULTS: &[&str] = &[
    "slow_down",
    "internal",
    "conflict",
    "unheard_closed",
    "unheard_reset",
    "lost_closed",
    "lost_reset",
    "cut",
    "slow",
];
/// How long a run with wrong credentials may take at most.
const SOON: Duration = Duration::from_secs(20);

struct Server {
    port: u16,
    /// The server ends when its standard input closes, which is when this process ends.
    _process: Child,
}

/// A bucket, with faults of its requests.
pub(crate) struct Bucket(&'static str);

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut command = Command::new(readers::environment("s3").join("bin/python"));
        command.arg("-I").arg(root().join("tests/s3/server.py"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Server { port: port.trim().parse().unwrap(), _process: process }
    })
}

/// Sends a request and returns the body of the response as text.
pub(crate) fn request(method: &str, target: &str, body: &[u8]) -> String {
    String::from_utf8(request_bytes(method, target, body)).unwrap()
}

/// Sends a request and returns the body of the response.
fn request_bytes(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", server().port)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\nconnection: close\r\n\
         authorization: AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let said = String::from_utf8_lossy(&answer);
    assert!(said.starts_with("HTTP/1.1 200"), "{method} {target}: {said}");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    answer.split_off(end + 4)
}

impl Bucket {
    /// Creates the bucket, without faults.
    pub(crate) fn new(name: &'static str) -> Self {
        let bucket = Self(name);
        bucket.faults("");
        bucket
    }

    /// Sets the faults, as in `rate=0.2&seed=1`. Faults that are not named are switched off.
    pub(crate) fn faults(&self, rates: &str) {
        request("PUT", &format!("/__faults__/{}?{rates}", self.0), &[]);
    }

    /// Returns the faults so far, and prints them for `cargo test -- --nocapture`.
    #[allow(clippy::print_stdout)]
    fn counts(&self) -> BTreeMap<String, u64> {
        let text = request("GET", &format!("/__faults__/{}", self.0), &[]);
        println!("{}: {text}", self.0);
        serde_json::from_str(&text).unwrap()
    }

    /// The small pipeline, with a lake in this bucket.
    pub(crate) fn workspace(&self) -> Workspace {
        let mut workspace = Workspace::small();
        workspace.url = Some(format!("s3://{}/lake", self.0));
        workspace.variables = variables();
        workspace
    }
}

/// The variables with which a client finds the server and identifies itself.
fn variables() -> Vec<(&'static str, String)> {
    let endpoint = format!("http://127.0.0.1:{}", server().port);
    vec![
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", KEY.into()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
    ]
}

/// Returns the tables and the UNet evaluations of an undisturbed run of the small pipeline.
pub(crate) fn quiet() -> &'static (BTreeMap<String, Vec<Value>>, f64) {
    static QUIET: OnceLock<(BTreeMap<String, Vec<Value>>, f64)> = OnceLock::new();
    QUIET.get_or_init(|| {
        let workspace = Workspace::small();
        workspace.run();
        (workspace.tables(), evaluations(&workspace))
    })
}

fn evaluations(workspace: &Workspace) -> f64 {
    workspace.number("SELECT sum(unet_evaluations) FROM ledger")
}

/// Asserts that the lake equals that of an undisturbed run.
fn assert_sound(workspace: &Workspace) {
    workspace.ok("verify", &[]);
    workspace.assert_holds(&quiet().0);
}

fn ended(output: &Output, code: i32) -> String {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}{}", String::from_utf8_lossy(&output.stdout));
    said
}

#[test]
fn a_lake_in_s3_is_as_one_on_disk() {
    let bucket = Bucket::new("quiet");
    let mut workspace = bucket.workspace();
    workspace.run();
    let again = skipped(&workspace.run());
    assert!(again.values().all(|skipped| *skipped), "{again:?}");
    assert_sound(&workspace);
    // The same with a profile of AWS's own tools, which also has the endpoint.
    let files = [
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            "credentials",
            format!("aws_access_key_id={KEY}\naws_secret_access_key={SECRET}"),
        ),
        ("AWS_CONFIG_FILE", "config", format!("region = us-east-1\nendpoint_url = http://127.0.0.1:{}", server().port)),
    ];
    workspace.variables.clear();
    workspace.variables.push(("AWS_PROFILE", "mine".into()));
    for (variable, name, text) in files {
        let section = if name == "config" { "profile mine" } else { "mine" };
        fs::write(workspace.path(name), format!("[{section}]\n{text}\n[other]\naws_access_key_id=nobody\n")).unwrap();
        workspace.variables.push((variable, workspace.path(name).to_str().unwrap().to_owned()));
    }
    workspace.ok("status", &[]);
    // A bit that flips on the way does not fail a request, but `verify` finds it.
    bucket.faults("flip=1");
    let said = workspace.command("verify", &[]).output().unwrap();
    ended(&said, 1);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("does not have the content that its name promises"), "{said}");
    assert!(bucket.counts()["flip"] > 0);
}

/// A server that ignores `If-None-Match` would lose the commits of one of two runs without a word.
#[test]
fn a_store_that_ignores_conditions_is_refused_before_anything_is_there() {
    let bucket = Bucket::new("deaf");
    bucket.faults("deaf=1");
    let workspace = bucket.workspace();
    for _ in 0..2 {
        let said = ended(&workspace.command("run", &[]).output().unwrap(), 2);
        assert!(said.contains("the store ignores `If-None-Match`"), "{said}");
        assert!(said.contains("Amazon S3, Google Cloud Storage, Azure, Cloudflare R2"), "{said}");
        let listed = request("GET", "/deaf?list-type=2", &[]);
        assert!(!listed.contains("<Key>"), "{listed}");
    }
    // The same store once it knows the condition: the probe leaves nothing, and a lake is probed once.
    bucket.faults("");
    workspace.ok("run", &["--until", "images"]);
    let listed = request("GET", "/deaf?list-type=2", &[]);
    assert!(listed.contains("_delta_log/") && !listed.contains("probe"), "{listed}");
    bucket.faults("deaf=1");
    workspace.ok("status", &[]);
}

#[test]
fn a_source_in_s3_is_read_through_faults() {
    let bucket = Bucket::new("source");
    for part in ["train", "validation", "test"] {
        let bytes = fs::read(root().join(format!("data/digits_lt/{part}.parquet"))).unwrap();
        request("PUT", &format!("/source/data/{part}.parquet"), &bytes);
    }
    bucket.faults("rate=0.2&seed=2");
    let mut workspace = Workspace::small();
    workspace.variables = variables();
    workspace.edit("source.root=s3://source/data");
    workspace.run();
    assert!(bucket.counts().len() > 3);
    bucket.faults("");
    assert_sound(&workspace);
}

/// Keys that are hard for URLs and stores, with their encoding in a URL. A list names them, and a listing finds them.
#[test]
fn a_source_of_files_in_s3_keeps_their_names() {
    const KEYS: [(&str, &str); 6] = [
        ("a b/1.png", "a%20b/1.png"),
        ("a b/%41~[x].png", "a%20b/%2541~%5Bx%5D.png"),
        ("a b/2#1.png", "a%20b/2%231.png"),
        ("\u{e9}?/1.png", "%C3%A9%3F/1.png"),
        ("e\u{301}/1+1=2&.png", "e%CC%81/1%2B1%3D2%26.png"),
        ("e\u{301}/gone.png", ""),
    ];
    let bucket = Bucket::new("names");
    let images = images();
    let digest = |image: usize| Value::from(sha256(&images[image].bytes));
    let mut list = String::new();
    for (image, (name, key)) in images.iter().zip(KEYS) {
        if !key.is_empty() {
            request("PUT", &format!("/names/data/train/{key}"), &image.bytes);
        }
        list += &format!("train/{name} 0\n");
    }
    let tar = {
        let mut tar = tar::Builder::new(Vec::new());
        let (zero, one) = (&images[0].bytes[..], &images[1].bytes[..]);
        for (name, bytes) in [("0.cls", &b"0"[..]), ("0.png", zero), ("1.cls", b"1"), ("1.png", one)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes).unwrap();
        }
        tar.into_inner().unwrap()
    };
    request("PUT", "/names/data/list.txt", list.as_bytes());
    request("PUT", "/names/data/t.tar", &tar);
    let mut workspace = bucket.workspace();
    let mut read = |source: &str| -> Vec<(String, Value)> {
        workspace.set_source(&format!("[source]\nroot = \"s3://names/data\"\n{source}"));
        let query = "SELECT path, image_info(r.image)['digest'] AS digest, r.image['error'] AS error \
                     FROM (SELECT path, read_image(path) AS image FROM listing) r ORDER BY path";
        let row = |row: &Value| {
            let found = if row["digest"].is_null() { &row["error"] } else { &row["digest"] };
            (row["path"].as_str().unwrap().to_owned(), found.clone())
        };
        workspace.query(query).iter().map(row).collect()
    };
    let there = KEYS.iter().enumerate().filter(|(_, (_, key))| !key.is_empty());
    let mut expected: Vec<(String, Value)> =
        there.map(|(image, (name, _))| (format!("train/{name}"), digest(image))).collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    bucket.faults("rate=0.2&seed=3");
    assert_eq!(read("kind = \"imagefolder\"\nsplits.train = \"train\""), expected);
    expected.push(("train/e\u{301}/gone.png".to_owned(), "no such file".into()));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(read("kind = \"list\"\nsplits.train = \"list.txt\""), expected);
    let samples = [("t.tar#0.png".to_owned(), digest(0)), ("t.tar#1.png".to_owned(), digest(1))];
    assert_eq!(read("kind = \"webdataset\"\nsplits.train = \"t.tar\""), samples);
}

#[test]
fn models_in_s3_are_fetched_once_and_are_the_same() {
    let bucket = Bucket::new("models");
    let mut folders = vec![root().join("models/digits")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
                request("PUT", &format!("/models/{name}"), &fs::read(&path).unwrap());
            }
        }
    }
    request("PUT", "/models/models/digits/unet/diffusion_pytorch_model.bin", b"not for us");
    bucket.faults("rate=0.2&seed=3");
    let mut workspace = Workspace::small();
    workspace.edit("spectrum.image_guidance=[90]");
    workspace.edit("filter.max_attempts=1");
    workspace.variables = [variables(), cache(&workspace)].concat();
    workspace.ok("run", &["--until", "scores"]);
    workspace.edit("models.diffusion=s3://models/models/digits/");
    workspace.edit("models.clip=s3://models/models/digits/clip");
    let check = |workspace: &Workspace| stderr(&workspace.command("check", &[]).output().unwrap());
    let said = check(&workspace);
    assert!(said.starts_with("fetching `s3://models/models/digits`: "), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    assert_eq!(check(&workspace), "", "all files are there");
    // The models are the same as in the directory, so nothing is generated again.
    let plan = workspace.json("plan", &[])["steps"].clone();
    for step in ["spectrum", "scores"] {
        let planned = plan.as_array().unwrap().iter().find(|planned| planned["step"] == step).unwrap();
        assert_eq!(planned["skipped"], true, "{planned}");
    }
    // A truncated file in the cache is fetched again.
    bucket.faults("");
    let cut = files_below(&workspace.path("cache/discl-pipe/models"));
    assert!(cut.iter().all(|path| !path.ends_with("diffusion_pytorch_model.bin")));
    let cut = cut.iter().find(|path| path.ends_with("unet/model.onnx")).unwrap();
    fs::write(cut, "half").unwrap();
    assert!(check(&workspace).contains(": 1 file, "));
    assert_eq!(fs::read(cut).unwrap(), fs::read(root().join("models/digits/unet/model.onnx")).unwrap());
    workspace.edit("models.clip=s3://models/nothing");
    workspace.edit("models.diffusion=s3://models");
    let said = check(&workspace);
    assert!(said.contains("`models.diffusion`: `s3://models` is not a model"), "{said}");
    assert!(said.contains("`models.clip`: `s3://models/nothing` is not a model"), "{said}");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn an_export_to_s3_is_as_one_on_disk() {
    let bucket = Bucket::new("exports");
    let mut workspace = Workspace::small();
    workspace.variables = variables();
    workspace.run();
    bucket.faults("rate=0.2&seed=3");
    for form in ["webdataset", "imagefolder", "parquet"] {
        let (here, there) = (workspace.path(form), format!("s3://exports/{form}"));
        let arguments = ["--as", form, "--epoch", "1", "--shard-size", "100KB"];
        workspace.ok("export", &[&[here.to_str().unwrap()][..], &arguments[..]].concat());
        workspace.ok("export", &[&[there.as_str()][..], &arguments[..]].concat());
        let again = workspace.ok("export", &[&[there.as_str()][..], &arguments[..]].concat());
        assert!(again.trim_end().ends_with("; 1 epoch already complete"), "{again}");
    }
    assert!(bucket.counts().len() > 3);
    bucket.faults("");
    for form in ["webdataset", "imagefolder", "parquet"] {
        let files = contents(&workspace.path(form));
        assert!(files.len() > 2);
        request("PUT", &format!("/exports/{form}/{}", files.keys().last().unwrap()), b"cut");
        let (there, rest) = (format!("s3://exports/{form}"), ["--as", form, "--epoch", "1", "--shard-size", "100KB"]);
        let again = workspace.command("export", &[&[there.as_str()][..], &rest[..]].concat()).output().unwrap();
        assert!(ended(&again, 0).starts_with("epoch 1 is incomplete, continuing after its first "), "{form}");
        for (name, bytes) in files {
            assert!(request_bytes("GET", &format!("/exports/{form}/{name}"), &[]) == bytes, "{form}/{name}");
        }
    }
}

/// Starts one run, and two workers on another lake, all at once because they mostly wait for the store.
#[test]
fn a_run_and_two_workers_get_through_faults() {
    let (alone, shared) = (Bucket::new("alone"), Bucket::new("shared"));
    alone.faults("rate=0.2&seed=1");
    shared.faults("rate=0.1&seed=2");
    let (run, workers) = (alone.workspace(), shared.workspace());
    let runs = [(&run, None), (&workers, Some("0/2")), (&workers, Some("1/2"))].map(|(workspace, shard)| {
        let shard = shard.map_or_else(Vec::new, |shard| vec!["--shard", shard]);
        let mut run = workspace.command("run", &shard);
        run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let said = runs.map(|run| ended(&run.wait_with_output().unwrap(), 0));
    // Each run completes by itself and reports what slowed it down.
    assert!(said[0].contains("the object store throttled requests: "), "{}", said[0]);
    let counts = [alone.counts(), shared.counts()];
    for fault in FAULTS {
        assert!(counts.iter().any(|counts| counts.contains_key(*fault)), "no {fault}: {counts:?}");
    }
    for (bucket, workspace) in [(&alone, &run), (&shared, &workers)] {
        bucket.faults("");
        assert_sound(workspace);
        // Responses were lost but no work was, and no worker did another's part.
        assert_eq!(evaluations(workspace), quiet().1, "{}", bucket.0);
    }
}

#[test]
fn a_worker_says_which_step_waits_for_others() {
    let workspace = Workspace::small();
    let shard = |shard: &str| {
        let output = workspace.command("run", &["--shard", shard, "--wait", "0"]).output().unwrap();
        ended(&output, 75)
    };
    let said = shard("0/2");
    assert!(said.contains("step `pixels` waits for "), "{said}");
    // This worker completes the pixels, but not the images.
    let said = shard("1/2");
    assert!(said.contains("step `spectrum` waits for "), "{said}");
    workspace.run();
    assert_sound(&workspace);
}

/// Starts a run and waits for a row of `table`, so that a test can send a signal.
fn started(workspace: &Workspace, table: &str, arguments: &[&str]) -> Child {
    let mut run = workspace.command("run", arguments);
    let run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Version 0 is the empty table.
    let rows = workspace.lake().join(format!("digits_lt/{table}/_delta_log/00000000000000000001.json"));
    let begun = Instant::now();
    while !rows.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "`{table}` has no row");
        std::thread::sleep(Duration::from_millis(20));
    }
    run
}

fn terminate(run: &Child) {
    assert!(Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_lets_what_is_in_flight_end() {
    let workspace = Workspace::small();
    let run = started(&workspace, "spectrum", &["--units-in-flight", "1"]);
    terminate(&run);
    let signalled = Instant::now();
    let said = ended(&run.wait_with_output().unwrap(), 130);
    assert!(signalled.elapsed() < Duration::from_secs(25), "it took {:?}", signalled.elapsed());
    assert!(said.contains("stopping: 25 s for what is in flight"), "{said}");
    // A unit's ledger row precedes its images, so a unit with both is complete.
    let units = workspace.number("SELECT sum(rows) FROM ledger WHERE step = 'spectrum' AND unit IS NOT NULL");
    assert_eq!(workspace.number("SELECT count(*) FROM spectrum"), units);
    assert!(evaluations(&workspace) < quiet().1, "nothing was left to do: the signal came too late");
    workspace.run();
    assert_sound(&workspace);
    assert_eq!(evaluations(&workspace), quiet().1, "what was made before the signal was made again");
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let mut workspace = Workspace::small();
    // The work in flight would take minutes.
    workspace.edit("spectrum.timesteps=999");
    workspace.edit("spectrum.image_guidance=[10,50]");
    let mut run = started(&workspace, "candidates", &["--grace", "600"]);
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines();
    std::thread::sleep(Duration::from_secs(1));
    terminate(&run);
    assert!(said.any(|line| line.unwrap().starts_with("stopping: 600 s")));
    std::thread::sleep(Duration::from_millis(500));
    assert!(run.try_wait().unwrap().is_none(), "it did not wait for what is in flight");
    terminate(&run);
    let signalled = Instant::now();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(signalled.elapsed() < Duration::from_secs(5), "it took {:?}", signalled.elapsed());
}

/// A change to a workspace that makes its runs fail.
type Change<'a> = &'a dyn Fn(&mut Workspace);

#[test]
fn wrong_credentials_and_places_are_said_soon_and_no_secret_is() {
    let bucket = Bucket::new("refused");
    let nobody = |workspace: &mut Workspace| workspace.variables.push(("AWS_ACCESS_KEY_ID", "nobody".into()));
    let cases: [(&str, Change<'_>, &str); 4] = [
        ("credentials of the lake", &nobody, "InvalidAccessKeyId"),
        ("bucket of the lake", &|workspace| workspace.url = Some("s3://missing/lake".into()), "NoSuchBucket"),
        (
            "credentials of the source",
            &|workspace| {
                workspace.edit("source.root=s3://refused/data");
                workspace.url = None;
                nobody(workspace);
            },
            "403",
        ),
        ("bucket of the source", &|workspace| workspace.edit("source.root=s3://missing/data"), "s3://missing/data"),
    ];
    for (case, change, expected) in cases {
        let mut workspace = bucket.workspace();
        change(&mut workspace);
        let started = Instant::now();
        let output = workspace.command("run", &[]).output().unwrap();
        let (took, said) = (started.elapsed(), stderr(&output) + &String::from_utf8_lossy(&output.stdout));
        assert!(matches!(output.status.code(), Some(1 | 2)), "{case}: {:?}: {said}", output.status);
        assert!(said.contains(expected), "{case}: {said}");
        assert!(!said.contains(SECRET), "{case}: {said}");
        assert!(took < SOON, "{case}: it took {took:?}");
    }
}
