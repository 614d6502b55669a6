//! Class descriptions from an endpoint, which is a small local HTTP server; common names of classes; classes without a
//! spectrum.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Workspace, skipped, stderr};

const KEY: &str = "sk-never-to-be-seen-0123456789";
const DIGITS: [&str; 10] = ["eight", "five", "four", "nine", "one", "seven", "six", "three", "two", "zero"];

/// A request that the server has received.
#[derive(Clone)]
struct Request {
    /// The class of the first message.
    class: String,
    /// How many requests for this class preceded it.
    earlier: usize,
    authorization: Option<String>,
    body: Value,
}

/// What the server sends: a status with headers and a body, a part of a response, or nothing until the client
/// disconnects.
enum Reply {
    Http(&'static str, String),
    Torn,
    Silence,
}

/// An endpoint that responds as a function says, and records its requests.
struct Endpoint {
    base: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Endpoint {
    fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        Self { base, asked }
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns how often each class was requested.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in self.asked() {
            *counts.entry(request.class).or_default() += 1;
        }
        counts
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut authorization, mut line) = (0, None, String::new());
    reader.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), "POST /v1/chat/completions HTTP/1.1");
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line).unwrap();
        match line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())) {
            Some((name, value)) if name == "content-length" => length = value.parse().unwrap(),
            Some((name, value)) if name == "authorization" => authorization = Some(value),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let text = body["messages"][0]["content"].as_str().unwrap();
    let class = text.split("The subject is: ").nth(1).unwrap().split('.').next().unwrap().to_owned();
    let request = {
        let mut log = log.lock().unwrap();
        let earlier = log.iter().filter(|request| request.class == class).count();
        log.push(Request { class, earlier, authorization, body });
        log.last().unwrap().clone()
    };
    let mut stream = reader.into_inner();
    // The client may have disconnected.
    let _ = match answer(&request) {
        Reply::Http(status, body) => {
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        }
        Reply::Torn => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{{\"choices\": ["),
        Reply::Silence => stream.read(&mut [0]).map(|bytes| assert_eq!(bytes, 0)),
    };
}

/// Returns a chat completion with this text.
fn says(text: &str) -> Reply {
    let choice = json!({ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" });
    Reply::Http("200 OK", json!({ "object": "chat.completion", "choices": [choice] }).to_string())
}

/// Returns valid numbered lines.
fn scenes(class: &str, from: usize, to: usize) -> String {
    let scene = |number| {
        format!(
            "{number}. A {class} by itself in place {number}, seen from afar on a clear morning with long soft shadows\n"
        )
    };
    (from..to).map(scene).collect()
}

fn good(request: &Request) -> Reply {
    says(&scenes(&request.class, 0, 10))
}

/// The digits pipeline with an endpoint, and the file that it fills.
fn workspace(endpoint: &Endpoint) -> (Workspace, PathBuf) {
    let mut workspace = Workspace::small();
    workspace.variables = vec![
        ("OPENAI_BASE_URL", endpoint.base.clone()),
        ("OPENAI_API_KEY", KEY.to_owned()),
        ("NO_PROXY", "127.0.0.1".to_owned()),
    ];
    let file = workspace.path("texts.jsonl");
    (workspace, file)
}

/// Runs `discl-pipe prompts` with these arguments, and asserts that the key does not occur in its output.
fn prompts(workspace: &Workspace, arguments: &[&str]) -> Output {
    let file = workspace.path("texts.jsonl");
    let arguments: Vec<&str> =
        [file.to_str().unwrap(), "--model", "m", "--format", "json"].iter().chain(arguments).copied().collect();
    let output = workspace.command("prompts", &arguments).output().unwrap();
    let written = std::fs::read(&file).unwrap_or_default();
    for said in [&output.stdout, &output.stderr, &written] {
        let said = String::from_utf8_lossy(said);
        assert!(!said.contains(KEY) && !said.contains("never-to-be-seen") && !said.contains("panicked"), "{said}");
    }
    output
}

fn outcome(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

/// Returns the lines of a file by class. Each class must occur once.
fn lines(file: &Path) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let by_class: BTreeMap<_, _> =
        lines.iter().map(|line| (line["class_name"].as_str().unwrap().to_owned(), line.clone())).collect();
    assert_eq!(by_class.len(), lines.len(), "{text}");
    by_class
}

#[test]
fn answers_become_descriptions_and_descriptions_prompts() {
    let endpoint = Endpoint::start(good);
    let (mut workspace, file) = workspace(&endpoint);
    std::fs::write(workspace.path("names.json"), r#"{"nine": "number 9", "lynx": "bobcat"}"#).unwrap();
    workspace.edit(&format!("prompts.common_names={}", workspace.path("names.json").display()));
    let output = prompts(&workspace, &["--in-flight", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(outcome(&output), json!({"classes": 10, "there": 0, "answered": 10, "failed": [], "texts": 100}));
    assert!(stderr(&output).contains(&format!("`m` at {}/chat/completions", endpoint.base)));
    for request in endpoint.asked() {
        assert_eq!(request.authorization.as_deref(), Some(format!("Bearer {KEY}").as_str()));
        assert_eq!(request.body["model"], "m");
        let text = request.body["messages"][0]["content"].as_str().unwrap();
        assert!(text.contains("Describe 10 scenes") && text.contains("at least 15 words"), "{text}");
    }
    let classes: Vec<String> = endpoint.counts().into_keys().collect();
    assert_eq!(classes.len(), 10);
    assert!(classes.contains(&"number 9".to_owned()) && !classes.contains(&"nine".to_owned()));
    let by_class = lines(&file);
    assert_eq!(by_class.keys().collect::<Vec<_>>(), DIGITS.iter().collect::<Vec<_>>());
    let line = &by_class["nine"];
    assert_eq!(line["texts"].as_array().unwrap().len(), 10);
    assert!(line["texts"][0].as_str().unwrap().starts_with("A number 9 by itself in place 0, seen"));
    assert_eq!((line["model"].as_str(), line["date"].as_str().unwrap().len()), (Some("m"), 10));
    assert_eq!(line["request"].as_str().unwrap().len(), 32);

    // Each prompt is one of the descriptions of its class.
    workspace.edit(&format!("prompts.descriptions={}", file.display()));
    workspace.edit("prompts.generation=\"{description}\"");
    workspace.ok("run", &["--until", "candidates"]);
    let rows = workspace.query("SELECT class_name, prompt, filter_prompt FROM candidates");
    assert!(rows.len() > 20, "{}", rows.len());
    let mut seen = BTreeSet::new();
    for row in &rows {
        let class = row["class_name"].as_str().unwrap();
        assert!(by_class[class]["texts"].as_array().unwrap().contains(&row["prompt"]), "{row}");
        assert_eq!(row["filter_prompt"], format!("a photo of {}", if class == "nine" { "number 9" } else { class }));
        seen.insert(row["prompt"].as_str().unwrap());
    }
    assert!(seen.len() > 10, "{seen:?}");

    // Another name gives another prompt, but the tables still have the class.
    std::fs::write(workspace.path("names.json"), r#"{"nine": "figure 9"}"#).unwrap();
    let run = workspace.json("run", &["--until", "candidates"]);
    assert!(!skipped(&run)["candidates"] && skipped(&run)["hard_samples"]);
    let rows = workspace.query("SELECT DISTINCT filter_prompt FROM candidates WHERE class_name = 'nine'");
    assert_eq!(rows, [json!({"filter_prompt": "a photo of figure 9"})]);
    std::fs::write(workspace.path("names.json"), r#"{"nine": "number 9"}"#).unwrap();

    // A line that a person has added counts, so its class is not requested.
    let mut text = std::fs::read_to_string(&file).unwrap();
    text += r#"{"class_name": "five", "texts": ["a five by hand"]}"#;
    std::fs::write(&file, text).unwrap();
    let output = prompts(&workspace, &[]);
    assert_eq!(outcome(&output), json!({"classes": 10, "there": 10, "answered": 0, "failed": [], "texts": 91}));
    assert_eq!(endpoint.asked().len(), 10);
    workspace.ok("run", &["--until", "candidates"]);
    let rows = workspace.query("SELECT DISTINCT prompt FROM candidates WHERE class_name = 'five'");
    assert_eq!(rows, [json!({"prompt": "a five by hand"})]);
    // Another model gets requests for all other classes.
    let arguments = [file.to_str().unwrap(), "--model", "n", "--format", "json"];
    let output = workspace.command("prompts", &arguments).output().unwrap();
    assert_eq!(outcome(&output), json!({"classes": 10, "there": 1, "answered": 9, "failed": [], "texts": 91}));
}

#[test]
fn faults_of_the_endpoint_pass() {
    let endpoint = Endpoint::start(|request| match (request.class.as_str(), request.earlier) {
        ("one", 0) => Reply::Http("429 Too Many Requests\r\nRetry-After: 1", String::new()),
        ("two", 0 | 1) => Reply::Http("500 Internal Server Error\r\nRetry-After: 0", "broken".into()),
        ("three", 0) => Reply::Torn,
        ("four", 0) => Reply::Http("200 OK", "<html>".into()),
        ("five", 0) => Reply::Silence,
        ("six", 0) => Reply::Http("200 OK", json!({ "choices": [] }).to_string()),
        // Too few descriptions, then enough, with duplicates and one that is too short.
        ("seven", 0) => says(&format!("{}\n{}\nA seven", scenes("seven", 0, 6), scenes("SEVEN", 2, 4))),
        ("seven", 1) => says(&scenes("seven", 6, 10)),
        // Always too few.
        ("eight", _) => says("I cannot help with that."),
        _ => good(request),
    });
    let (workspace, file) = workspace(&endpoint);
    let output = prompts(&workspace, &["--in-flight", "10", "--timeout", "10"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let reason = "after 3 responses, 0 of 10 descriptions are usable; unusable lines: 1 with fewer than 15 words";
    let failed = json!([{ "class_name": "eight", "reason": reason }]);
    assert_eq!(outcome(&output), json!({"classes": 10, "there": 0, "answered": 9, "failed": failed, "texts": 90}));
    let counts = endpoint.counts();
    let expected =
        [("one", 2), ("two", 3), ("three", 2), ("four", 2), ("five", 2), ("six", 2), ("seven", 2), ("eight", 3)];
    for (class, count) in expected {
        assert_eq!(counts[class], count, "{class}");
    }
    let said = stderr(&output);
    assert!(said.contains("one: `") && said.contains("429 Too Many Requests; retrying in 1.0 s"), "{said}");
    assert!(said.contains("500 Internal Server Error: broken; retrying in 0.0 s"), "{said}");
    // the second question has the first answer, and says what was wrong with it
    let asked = endpoint.asked();
    let again = asked.iter().find(|request| request.class == "seven" && request.earlier == 1).unwrap();
    let messages = again.body["messages"].as_array().unwrap();
    assert_eq!(messages.iter().map(|message| &message["role"]).collect::<Vec<_>>(), ["user", "assistant", "user"]);
    let wanted = "6 of 10 descriptions are usable; unusable lines: 1 with fewer than 15 words, 2 repeating an earlier \
                  one. Write 4 more";
    assert!(messages[2]["content"].as_str().unwrap().contains(wanted), "{}", messages[2]);
    assert!(!lines(&file).contains_key("eight"));

    // Only the classes that failed are requested again.
    let before = asked.len();
    let file = file.to_str().unwrap().to_owned();
    let output = workspace.command("prompts", &[&file, "--model", "m"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("failed: eight: {reason}\n")), "{said}");
    assert!(said.starts_with("classes  already present  added  failed  descriptions\n"), "{said}");
    assert_eq!(endpoint.asked().len(), before + 3);
}

#[test]
fn what_cannot_pass_ends_at_once() {
    let body = json!({ "error": { "message": format!("Incorrect API key provided: {KEY}") } }).to_string();
    let endpoint = Endpoint::start(move |_| Reply::Http("401 Unauthorized", body.clone()));
    let (workspace, file) = workspace(&endpoint);
    let output = prompts(&workspace, &["--in-flight", "1"]);
    assert_eq!((output.status.code(), endpoint.asked().len()), (Some(1), 1));
    let said = outcome(&output)["errors"][0]["message"].as_str().unwrap().to_owned();
    let wanted = "returned 401 Unauthorized: Incorrect API key provided: [key]\nhint: set `OPENAI_API_KEY` to a key";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), b"");

    // An endpoint that does not respond is not tried for every class.
    let endpoint = Endpoint::start(|_| Reply::Http("400 Bad Request", "no".into()));
    let (workspace, _) = self::workspace(&endpoint);
    let output = prompts(&workspace, &["--in-flight", "1"]);
    assert_eq!((output.status.code(), endpoint.asked().len()), (Some(1), 3));
    let said = outcome(&output)["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(
        said.starts_with("no usable response for 3 classes in a row: `http://")
            && said.contains("400 Bad Request: no\nhint"),
        "{said}"
    );

    // Without a key none is sent. A password in the URL is sent, but never shown.
    let endpoint = Endpoint::start(good);
    let (mut workspace, _) = self::workspace(&endpoint);
    workspace.variables[0].1 = endpoint.base.replace("http://", "http://me:hunter2@");
    workspace.variables[1].1 = String::new();
    let output = prompts(&workspace, &["--set", "hard_samples.exclude_classes=[\"one\",\"two\"]"]);
    assert_eq!(outcome(&output)["classes"], 8);
    assert!(!stderr(&output).contains("hunter2"), "{}", stderr(&output));
    assert_eq!(endpoint.asked()[0].authorization.as_deref(), Some("Basic bWU6aHVudGVyMg=="));
}

#[test]
fn a_kill_loses_what_is_in_flight_and_no_answer() {
    let endpoint = Endpoint::start(|request| match (request.class.as_str(), request.earlier) {
        // At the fourth of ten classes nothing is sent until the client disconnects.
        ("nine", 0) => Reply::Silence,
        _ => good(request),
    });
    let (workspace, file) = workspace(&endpoint);
    let arguments = [file.to_str().unwrap(), "--model", "m", "--in-flight", "1"];
    let mut child =
        workspace.command("prompts", &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..600 {
        if endpoint.asked().len() == 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lines(&file).keys().collect::<Vec<_>>(), ["eight", "five", "four"]);
    // As if the process had been killed while it wrote the third line.
    let text = std::fs::read_to_string(&file).unwrap();
    let whole = text.trim_end().rfind('\n').unwrap() + 1;
    std::fs::write(&file, &text[..whole + 100]).unwrap();

    let output = prompts(&workspace, &[]);
    assert_eq!(outcome(&output), json!({"classes": 10, "there": 2, "answered": 8, "failed": [], "texts": 100}));
    assert!(stderr(&output).contains("removed 100 bytes of a truncated last line"), "{}", stderr(&output));
    let after = std::fs::read_to_string(&file).unwrap();
    assert!(after.starts_with(&text[..whole]), "what was whole is as it was");
    assert_eq!(lines(&file).len(), 10);
    let twice: Vec<String> =
        endpoint.counts().into_iter().filter(|(_, count)| *count > 1).map(|(class, _)| class).collect();
    assert_eq!(twice, ["four", "nine"], "the line that was cut off, and the request that was in flight");
    // Nothing is left to request.
    let output = prompts(&workspace, &[]);
    assert_eq!(outcome(&output)["there"], 10);
    assert_eq!(endpoint.asked().len(), 12);
}

#[test]
fn everything_wrong_is_said_before_any_request() {
    let endpoint = Endpoint::start(good);
    let (mut workspace, _) = workspace(&endpoint);
    let names = workspace.path("names.json");
    std::fs::write(&names, r#"{"one": ""}"#).unwrap();
    workspace.edit("source.root=none");
    workspace.edit(&format!("prompts.common_names={}", names.display()));
    workspace.variables[0].1 = "localhost".to_owned();
    let output = workspace.command("prompts", &["texts.json", "--model", "m"]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for wanted in [
        "none",
        "(`prompts.common_names`): the name of class `one` is blank",
        "`OPENAI_BASE_URL` is not the URL of an endpoint",
        "`texts.json`: its name must end in `.jsonl`",
        "4 problems; nothing was run",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    workspace.set.retain(|edit| !edit.starts_with("source.root"));
    std::fs::write(&names, r#"{"lynx": "bobcat"}"#).unwrap();
    workspace.edit("hard_samples.exclude_classes=[\"fife\", \"empty\"]");
    workspace.variables[0].1 = endpoint.base.clone();
    let said_by = |command: &str, arguments: &[&str]| {
        let output = workspace.command(command, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    for said in [said_by("prompts", &["texts.jsonl", "--model", "m"]), said_by("check", &[])] {
        assert!(
            said.contains("it names none of the 10 classes of the source, such as `eight`; its keys are"),
            "{said}"
        );
        let wanted =
            "`hard_samples.exclude_classes`: the source has no images of the class `fife`, did you mean `five`?";
        assert!(said.contains(wanted) && said.contains("2 problems"), "{said}");
    }
    assert!(endpoint.asked().is_empty());
}

#[test]
fn excluded_classes_get_no_spectrum() {
    let mut workspace = Workspace::small();
    workspace.edit("hard_samples.max_class_count=1000");
    workspace.edit("curriculum.hard_share=0.97");
    let classes = |workspace: &Workspace| -> BTreeSet<String> {
        workspace.ok("run", &["--until", "hard_samples"]);
        let rows = workspace.query("SELECT DISTINCT class_name FROM hard_samples");
        rows.iter().map(|row| row["class_name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(classes(&workspace).len(), 10);
    workspace.edit("hard_samples.exclude_classes=[\"zero\",\"five\"]");
    let some = classes(&workspace);
    assert!(some.len() == 8 && !some.contains("zero") && !some.contains("five"), "{some:?}");
    // Their descriptions are not needed.
    let texts: BTreeMap<&str, Vec<&str>> = some.iter().map(|class| (class.as_str(), vec!["a text"])).collect();
    std::fs::write(workspace.path("texts.json"), json!(texts).to_string()).unwrap();
    workspace.edit(&format!("prompts.descriptions={}", workspace.path("texts.json").display()));
    workspace.ok("check", &[]);
    // A query that ignores the setting is an error.
    let query = workspace.path("sql/hard_samples/few_shot.sql");
    std::fs::create_dir_all(query.parent().unwrap()).unwrap();
    std::fs::write(&query, "SELECT source_id, label, class_name, 'all' AS reason FROM images").unwrap();
    workspace.edit(&format!("sql_dir={}", workspace.path("sql").display()));
    let said = stderr(&workspace.command("check", &[]).output().unwrap());
    assert!(said.contains("does not use `$exclude_classes`, although `hard_samples.exclude_classes` is set"), "{said}");
}
