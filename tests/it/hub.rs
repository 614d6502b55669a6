//! Models from a hub: a local server that speaks the protocol of Hugging Face's hub, with faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::{
    s3::quiet,
    support::{Workspace, cache, root, sha256, stderr},
};

/// A secret that must not occur in any output.
const TOKEN: &str = "hf_a-secret-that-nobody-may-read";
/// The commit of `main`.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Files of the repository that are not part of the model and must not be requested.
const FORBIDDEN: [&str; 6] = [
    "README.md",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/flax_model.msgpack",
    "unet/model_fp16.onnx",
    "clip/pytorch_model.bin",
];

/// The list of the files, for [`State::endless`].
const LISTING: &str = "the listing";
/// What is sent instead of something without an end.
const ENDLESS_BYTES: usize = 256 << 20;

/// The repository `tests/digits`, and how the server responds to requests.
#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// The token that may read the repository. Without one it is public.
    token: Option<&'static str>,
    /// Close connections without a response.
    down: bool,
    /// A file of which no byte from this one on is ever sent.
    stalls: Option<(&'static str, usize)>,
    /// What all requests for files are redirected to, as mirrors do: a host, or nothing for a relative redirect.
    mirrored: Option<String>,
    /// The host to which the next listing of the repository is redirected.
    listed_by: Option<String>,
    /// The hosts that requests were sent to, and whether with a token.
    hosts: BTreeSet<(String, bool)>,
    /// A file that is sent with a wrong byte once.
    flips: Option<&'static str>,
    /// A file, or `LISTING`, that is sent without an end once, and the bytes that were sent until the client had enough.
    endless: Option<&'static str>,
    endless_bytes: usize,
    /// Requested paths, with the bytes of each response.
    asked: Vec<(String, usize)>,
}

/// Serves until the tests end.
struct Server {
    port: u16,
    /// Another port with the same answers.
    other_port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Serves the digits models with their CLIP, and the forbidden files.
    fn new() -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![root().join("models/digits")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(root().join("models/digits")).unwrap().to_str().unwrap();
                    files.insert(name.to_owned(), std::fs::read(&path).unwrap());
                }
            }
        }
        files.extend(FORBIDDEN.map(|name| (name.to_owned(), b"no".to_vec())));
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let [hub, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, other_port] = [&hub, &other].map(|listener| listener.local_addr().unwrap().port());
        for listener in [hub, other] {
            let shared = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (stream, state) = (stream.unwrap(), Arc::clone(&shared));
                    // A client that disconnects is not a failure.
                    std::thread::spawn(move || answer(stream, &state, port).unwrap_or_default());
                }
            });
        }
        Self { port, other_port, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns the requests since the last call.
    fn asked(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.state().asked)
    }

    /// Returns how often the repository was listed and how often parts of files were requested.
    fn counts(&self) -> (usize, usize) {
        let asked = self.asked();
        let listings = asked.iter().filter(|(path, _)| path.starts_with("/api/")).count();
        (listings, asked.len() - listings)
    }

    /// Returns the environment variables of a process that uses the server, with a separate cache.
    fn variables(&self, workspace: &Workspace) -> Vec<(&'static str, String)> {
        let mut variables = cache(workspace);
        variables.extend([
            ("HF_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("HF_HOME", workspace.path("hf").to_str().unwrap().to_owned()),
            ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
        ]);
        variables
    }

    /// The small pipeline, with both models from this server.
    fn workspace(&self) -> Workspace {
        let mut workspace = Workspace::small();
        workspace.variables = self.variables(&workspace);
        workspace.edit("models.diffusion=hf://tests/digits");
        workspace.edit("models.clip=hf://tests/digits@main/clip");
        workspace
    }
}

/// Responds to one request and closes the connection.
fn answer(mut stream: TcpStream, state: &Mutex<State>, port: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut head) = (String::new(), Vec::new());
    while reader.read_line(&mut line)? > 2 {
        head.push(line.trim().to_owned());
        line.clear();
    }
    let header = |name: &str| {
        let found =
            head.iter().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.to_owned())
    };
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let path = path.split('?').next().unwrap().to_owned();
    let mut locked = state.lock().unwrap();
    if locked.down {
        return Ok(());
    }
    let token = header("authorization");
    locked.hosts.insert((header("host").unwrap_or_default(), token.is_some()));
    let allowed = locked.token.is_none_or(|allowed| token == Some(format!("Bearer {allowed}")));
    if let Some(revision) = path.strip_prefix("/api/models/tests/digits/revision/") {
        if let Some(host) = locked.listed_by.take() {
            return end(&mut stream, "307 Temporary Redirect", &format!("location: http://{host}{path}\r\n"), b"");
        }
        locked.asked.push((path.clone(), 0));
        if locked.endless.take_if(|endless| *endless == LISTING).is_some() {
            drop(locked);
            return send_endlessly(stream, state);
        }
        return match revision {
            _ if !allowed => end(&mut stream, "401 Unauthorized", "", b"{\"error\": \"Repository not found\"}"),
            "main" | COMMIT => end(&mut stream, "200 OK", "", listing(&locked.files).to_string().as_bytes()),
            _ => end(&mut stream, "404 Not Found", "", b"{}"),
        };
    }
    let resolved = path.strip_prefix(&format!("/tests/digits/resolve/{COMMIT}/"));
    let elsewhere = path.strip_prefix("/cdn/");
    let name = match (resolved, elsewhere) {
        (Some(name), _) if allowed => name,
        (None, Some(name)) => name,
        _ => return end(&mut stream, "404 Not Found", "", b""),
    };
    if let Some(host) = locked.mirrored.as_ref().filter(|_| elsewhere.is_none()) {
        // A mirror says nothing about the file.
        let host = if host.is_empty() { String::new() } else { format!("http://{host}") };
        let to = format!("location: {host}/cdn/{name}?X-Signature={TOKEN}\r\n");
        return end(&mut stream, "308 Permanent Redirect", &to, b"");
    }
    let Some(bytes) = locked.files.get(name).cloned() else { return end(&mut stream, "404 Not Found", "", b"") };
    let facts = format!("x-repo-commit: {COMMIT}\r\netag: \"{}\"\r\n", blob(&bytes));
    if elsewhere.is_none() && is_large(name) {
        // Like the hub, redirect large files to another host, with a secret in the URL.
        let to = format!("location: http://localhost:{port}/cdn/{name}?X-Signature={TOKEN}\r\n");
        return end(&mut stream, "302 Found", &(to + &facts), b"");
    }
    let from = header("range").map_or(0, |range| {
        range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).unwrap().parse::<usize>().unwrap()
    });
    let mut rest = bytes[from..].to_vec();
    locked.asked.push((name.to_owned(), rest.len()));
    if locked.flips == Some(name) {
        locked.flips = None;
        rest[0] ^= 1;
    }
    if locked.endless.take_if(|endless| *endless == name).is_some() {
        drop(locked);
        return send_endlessly(stream, state);
    }
    let stalls = locked.stalls.filter(|(stalls, _)| *stalls == name);
    drop(locked);
    let range = format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    let (status, facts) = if from > 0 { ("206 Partial Content", range + &facts) } else { ("200 OK", facts) };
    if let Some((_, last)) = stalls {
        write!(stream, "HTTP/1.1 {status}\r\n{facts}content-length: {}\r\n\r\n", rest.len())?;
        stream.write_all(&rest[..last - from])?;
        std::thread::sleep(Duration::from_secs(600));
    }
    end(&mut stream, status, &facts, &rest)
}

fn send_endlessly(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..ENDLESS_BYTES / blanks.len() {
        stream.write_all(&blanks)?;
        state.lock().unwrap().endless_bytes += blanks.len();
    }
    Ok(())
}

fn end(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len())?;
    stream.write_all(body)
}

fn is_large(name: &str) -> bool {
    name.ends_with(".onnx") || name.ends_with(".onnx_data")
}

/// Returns the SHA-256 that identifies a file. The hub uses it only for large files, and Git's digest for small ones.
fn blob(bytes: &[u8]) -> String {
    sha256(bytes)
}

fn listing(files: &BTreeMap<String, Vec<u8>>) -> Value {
    let sibling = |(name, bytes): (&String, &Vec<u8>)| match is_large(name) {
        true => json!({
            "rfilename": name, "size": bytes.len(), "blobId": "0".repeat(40),
            "lfs": { "sha256": blob(bytes), "size": bytes.len(), "pointerSize": 130 },
        }),
        false => json!({ "rfilename": name, "size": bytes.len(), "blobId": blob(bytes) }),
    };
    json!({ "id": "tests/digits", "sha": COMMIT, "siblings": files.iter().map(sibling).collect::<Vec<_>>() })
}

/// Returns the stderr of a command, and asserts that it does not contain the secret.
fn said(workspace: &Workspace, command: &str, code: i32) -> String {
    let output = workspace.command(command, &[]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
    let home = workspace.path("").to_str().unwrap().to_owned();
    let port = |text: String| match text.split_once("127.0.0.1:") {
        Some((_, rest)) => {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            text.replace(&format!("http://127.0.0.1:{port}"), "HUB")
        }
        None => text,
    };
    port(said.replace(&home, "DIR/").replace(root().to_str().unwrap(), "ROOT"))
}

#[test]
fn models_of_the_hub_make_the_same_tables() {
    let server = Server::new();
    let workspace = server.workspace();
    let first = said(&workspace, "check", 0);
    assert!(
        first.starts_with(&format!("`hf://tests/digits`: `main` is commit {COMMIT}\nfetching `hf://tests/digits`: "))
    );
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|(path, _)| path.starts_with("/api/")).count(), 1, "two models, one repository");
    for name in FORBIDDEN {
        assert!(!asked.iter().any(|(path, _)| path.ends_with(name)), "{name}");
    }
    workspace.run();
    assert_eq!(server.counts(), (1, 0), "all files are there");
    workspace.assert_holds(&quiet().0);
    // The cache has the layout of Python's tools.
    let repository = workspace.path("hf/hub/models--tests--digits");
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    let link = std::fs::read_link(repository.join(format!("snapshots/{COMMIT}/unet/model.onnx"))).unwrap();
    assert!(link.starts_with("../../../blobs"), "{link:?}");
}

#[test]
fn what_is_in_the_cache_needs_no_network() {
    let server = Server::new();
    let mut workspace = server.workspace();
    said(&workspace, "check", 0);
    server.asked();
    // A commit never changes, so no request is needed.
    workspace.edit(&format!("models.diffusion=hf://tests/digits@{COMMIT}"));
    workspace.edit(&format!("models.clip=hf://tests/digits@{COMMIT}/clip"));
    assert_eq!(said(&workspace, "check", 0), "");
    assert_eq!(server.counts(), (0, 0));
    // A branch is resolved as it was last time.
    server.state().down = true;
    workspace.edit("models.diffusion=hf://tests/digits");
    workspace.edit("models.clip=hf://tests/digits/clip");
    let note = said(&workspace, "check", 0);
    assert!(note.starts_with("`hf://tests/digits`: HUB cannot be reached ("), "{note}");
    assert!(note.contains(&format!("`main` is taken to be commit {COMMIT}, from the cache DIR/hf/hub")), "{note}");
    workspace.variables.push(("HF_HUB_OFFLINE", "1".into()));
    assert!(said(&workspace, "check", 0).contains("(`HF_HUB_OFFLINE` is set)"));
    // An incomplete cache is not used.
    std::fs::remove_file(workspace.path(&format!("hf/hub/models--tests--digits/snapshots/{COMMIT}/unet/config.json")))
        .unwrap();
    let lacks = said(&workspace, "check", 2);
    assert!(lacks.contains("`models.diffusion`: `hf://tests/digits`: HUB cannot be reached"), "{lacks}");
    assert!(lacks.contains("lacks `unet/config.json`"), "{lacks}");
    // Contents that are already cached are linked.
    workspace.variables.pop();
    server.state().down = false;
    said(&workspace, "check", 0);
    assert_eq!(server.counts(), (1, 0));
}

#[test]
fn a_fetch_that_was_killed_goes_on() {
    const WEIGHTS: &str = "unet/model.onnx_data";
    let server = Server::new();
    let bytes: Vec<u8> = (0..25_000_000_u32).map(|at| (at % 251) as u8).collect();
    server.state().files.insert(WEIGHTS.to_owned(), bytes.clone());
    server.state().stalls = Some((WEIGHTS, 20_000_000));
    server.state().flips = Some("vae_decoder/model.onnx");
    let workspace = server.workspace();
    let mut check = workspace.command("check", &[]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let blobs = workspace.path("hf/hub/models--tests--digits/blobs");
    let part = || {
        let parts = std::fs::read_dir(&blobs).into_iter().flatten().map(|entry| entry.unwrap().path());
        let parts = parts.filter(|path| path.extension().is_some_and(|extension| extension == "incomplete"));
        parts.map(|path| std::fs::metadata(path).map_or(0, |found| found.len())).max().unwrap_or(0)
    };
    let begun = Instant::now();
    while part() < 20_000_000 {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", server.asked());
        std::thread::sleep(Duration::from_millis(50));
    }
    check.kill().unwrap();
    check.wait().unwrap();
    let snapshot = workspace.path(&format!("hf/hub/models--tests--digits/snapshots/{COMMIT}"));
    assert!(!snapshot.join(WEIGHTS).exists(), "half a file is none");
    server.asked();
    server.state().stalls = None;
    said(&workspace, "check", 0);
    let again: usize = server.asked().iter().filter(|(path, _)| path == WEIGHTS).map(|(_, bytes)| bytes).sum();
    assert!(again < 6_000_000, "{again} bytes came again");
    assert!(std::fs::read(snapshot.join(WEIGHTS)).unwrap() == bytes);
    // The file with the wrong byte was fetched again.
    let decoder = std::fs::read(snapshot.join("vae_decoder/model.onnx")).unwrap();
    assert!(decoder == std::fs::read(root().join("models/digits/vae_decoder/model.onnx")).unwrap());
}

#[test]
fn an_answer_without_an_end_is_cut_off() {
    let server = Server::new();
    server.state().endless = Some("vae_decoder/model.onnx");
    let workspace = server.workspace();
    said(&workspace, "check", 0);
    let sent = std::mem::take(&mut server.state().endless_bytes);
    assert!(sent < ENDLESS_BYTES / 2, "{sent} bytes of a file, and then the file itself");
    server.state().endless = Some(LISTING);
    let message = said(&workspace, "check", 2);
    assert!(message.contains("its list of files has more than 67108864 bytes"), "{message}");
    let sent = server.state().endless_bytes;
    assert!(sent < ENDLESS_BYTES / 2, "{sent} bytes of a listing");
}

#[test]
fn a_token_stays_with_the_hub() {
    let server = Server::new();
    server.state().token = Some(TOKEN);
    let mut workspace = server.workspace();
    workspace.variables.push(("HF_TOKEN", TOKEN.into()));
    let hub = format!("127.0.0.1:{}", server.port);
    let other_port = format!("127.0.0.1:{}", server.other_port);
    let other_name = format!("localhost:{}", server.port);
    // Large files alone are redirected, then all; to another host, another port, and within the hub.
    for mirrored in [None, Some(&other_name), Some(&other_port), Some(&hub), Some(&String::new())] {
        let _ = std::fs::remove_dir_all(workspace.path("hf"));
        server.state().mirrored = mirrored.cloned();
        said(&workspace, "check", 0);
        assert!(server.asked().iter().any(|(path, _)| path == "unet/model.onnx"), "{mirrored:?}: the files came");
        let hosts = std::mem::take(&mut server.state().hosts);
        assert!(hosts.contains(&(hub.clone(), true)), "{mirrored:?}: {hosts:?}");
        let elsewhere = mirrored.unwrap_or(&other_name);
        let stays = elsewhere.is_empty() || *elsewhere == hub;
        assert!(stays || hosts.contains(&(elsewhere.clone(), false)), "{mirrored:?}: {hosts:?}");
        let leaked: Vec<_> = hosts.iter().filter(|(host, has_token)| *has_token && *host != hub).collect();
        assert!(leaked.is_empty(), "{mirrored:?}: {leaked:?}");
    }
    // Another host that lists the repository gets no token either, and refuses.
    for host in [other_name, other_port] {
        server.state().listed_by = Some(host.clone());
        workspace.edit("models.clip=models/digits/clip");
        let refused = said(&workspace, "check", 2);
        assert!(refused.contains("denies access (401)"), "{refused}");
        let hosts = std::mem::take(&mut server.state().hosts);
        assert_eq!(hosts, [(hub.clone(), true), (host, false)].into());
    }
}

#[test]
fn a_mirror_that_redirects_is_followed_or_named() {
    let server = Server::new();
    // The same server under another name.
    server.state().mirrored = Some(format!("localhost:{}", server.port));
    let workspace = server.workspace();
    said(&workspace, "check", 0);
    let elsewhere = |host: &str| {
        std::fs::remove_dir_all(workspace.path("hf")).unwrap();
        server.state().mirrored = Some(host.to_owned());
        said(&workspace, "check", 2)
    };
    let gone = elsewhere(&format!("localhost:{}/gone", server.port));
    assert!(gone.contains("HUB, which redirects to localhost:"), "{gone}");
    assert!(gone.contains(", has no such repository or revision (404)"), "{gone}");
    // Nothing listens there.
    let closed = elsewhere("localhost:1");
    assert!(closed.contains(": it, or the host to which it redirects, cannot be reached: "), "{closed}");
}

#[test]
fn a_repository_that_is_not_exported_says_so() {
    let server = Server::new();
    let mut workspace = server.workspace();
    let pytorch = |name: &String| name.ends_with(".onnx") || name.ends_with(".onnx_data");
    server.state().files.retain(|name, _| !pytorch(name));
    workspace.edit("models.clip=hf://tests/digits/clip");
    assert_snapshot!(said(&workspace, "check", 2), @r"
    `hf://tests/digits`: `main` is commit 0123456789abcdef0123456789abcdef01234567
    error: `models.diffusion`: `hf://tests/digits` is not exported: `unet/diffusion_pytorch_model.safetensors` holds weights of PyTorch or another framework, and there is no ONNX graph
    hint: `optimum-cli export onnx --model tests/digits --task TASK DIRECTORY` exports it, where TASK is `image-to-image` for a diffusion model, `zero-shot-image-classification` for a CLIP and `image-classification` for a classifier; docs/models.md has more
    `models.clip`: `hf://tests/digits/clip` is not exported: `pytorch_model.bin` holds weights of PyTorch or another framework, and there is no ONNX graph
    hint: `optimum-cli export onnx --model tests/digits --task TASK DIRECTORY` exports it, where TASK is `image-to-image` for a diffusion model, `zero-shot-image-classification` for a CLIP and `image-classification` for a classifier; docs/models.md has more
    2 problems; nothing was run
    ");
    // As of a directory.
    workspace.edit(&format!("models.clip={:?}", workspace.path("clip")));
    std::fs::create_dir(workspace.path("clip")).unwrap();
    std::fs::write(workspace.path("clip/model.safetensors"), "no").unwrap();
    let local = said(&workspace, "check", 2);
    assert!(local.contains("`DIR/clip` is not exported: `model.safetensors` holds weights of PyTorch"), "{local}");
}

#[test]
fn graphs_in_a_folder_of_a_repository_are_fetched_alone() {
    let server = Server::new();
    {
        let mut state = server.state();
        let graph = state.files.remove("clip/model.onnx").unwrap();
        state.files.insert("clip/onnx/model.onnx".to_owned(), graph);
        for name in ["model_fp16.onnx", "model_fp16.onnx_data", "model_q4.onnx", "text_model.onnx"] {
            state.files.insert(format!("clip/onnx/{name}"), b"no".to_vec());
        }
    }
    let workspace = server.workspace();
    said(&workspace, "check", 0);
    let asked: Vec<String> = server.asked().into_iter().map(|(name, _)| name).collect();
    let graphs: Vec<&String> = asked.iter().filter(|name| name.starts_with("clip/onnx/")).collect();
    assert_eq!(graphs, ["clip/onnx/model.onnx"]);
}

#[test]
fn what_the_hub_refuses_says_what_to_do() {
    let server = Server::new();
    server.state().token = Some(TOKEN);
    let mut workspace = server.workspace();
    assert_snapshot!(said(&workspace, "check", 2), @r"
    error: `models.diffusion`: `hf://tests/digits`: HUB denies access (401)
    hint: the repository is private, its terms must be accepted on its page, or it does not exist; set `HF_TOKEN` to the token of an account with access (no token was sent)
    `models.clip`: `hf://tests/digits@main/clip`: HUB denies access (401)
    hint: the repository is private, its terms must be accepted on its page, or it does not exist; set `HF_TOKEN` to the token of an account with access (no token was sent)
    2 problems; nothing was run
    ");
    // Both models and every other problem are reported at once.
    workspace.variables.push(("HF_TOKEN", "hf_of-somebody-else".into()));
    workspace.edit("models.diffusion=hf://tests/digits@nightly");
    workspace.edit("source.root=nowhere");
    assert_snapshot!(said(&workspace, "check", 2), @r"
    error: `models.diffusion`: `hf://tests/digits@nightly`: HUB denies access (401)
    hint: the repository is private, its terms must be accepted on its page, or it does not exist; set `HF_TOKEN` to the token of an account with access (a token was sent)
    `models.clip`: `hf://tests/digits@main/clip`: HUB denies access (401)
    hint: the repository is private, its terms must be accepted on its page, or it does not exist; set `HF_TOKEN` to the token of an account with access (a token was sent)
    `source.root` is `nowhere`, and there is no directory `ROOT/nowhere/`
    hint: relative paths of a pipeline file start at the directory where the command runs
    3 problems; nothing was run
    ");
    workspace.variables.push(("HF_TOKEN", TOKEN.into()));
    workspace.set.retain(|edit| !edit.starts_with("source"));
    workspace.edit("models.clip=hf://tests/digits/scheduler/x");
    assert_snapshot!(said(&workspace, "check", 2), @r"
    `hf://tests/digits`: `main` is commit 0123456789abcdef0123456789abcdef01234567
    error: `models.diffusion`: `hf://tests/digits@nightly`: HUB has no such repository or revision (404)
    hint: allowed are `hf://ORG/REPO[@REVISION][/FOLDER]`; private repositories need `HF_TOKEN`
    `models.clip`: `hf://tests/digits/scheduler/x` is not a model: there is no `model_index.json`, `model.onnx` or configuration among its 0 files of commit 0123456789abcdef0123456789abcdef01234567
    hint: name a folder that `optimum-cli export onnx` has written
    2 problems; nothing was run
    ");
    workspace.edit("models.diffusion=hf://tests/digits");
    workspace.edit("models.clip=hf://tests/digits/clip");
    said(&workspace, "check", 0);
    workspace.edit("models.diffusion=hf://tests/../digits");
    workspace.edit("models.clip=ftp://tests/digits");
    assert_snapshot!(said(&workspace, "check", 2), @r#"
    error: --set models.diffusion=hf://tests/../digits: `models.diffusion`: found "hf://tests/../digits", expected a directory, or a URL with `hf://` (`hf://ORG/REPO[@REVISION][/FOLDER]`), `s3://`, `gs://` or `az://`, without empty, `.` or `..` parts
    --set models.clip=ftp://tests/digits: `models.clip`: found "ftp://tests/digits", expected a directory, or a URL with `hf://` (`hf://ORG/REPO[@REVISION][/FOLDER]`), `s3://`, `gs://` or `az://`, without empty, `.` or `..` parts
    2 problems; nothing was run
    "#);
}
