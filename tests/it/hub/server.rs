//! A local server that speaks the protocol of Hugging Face's hub, with faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Workspace, cache, root, sha256};

/// A secret that must not occur in any output.
pub(super) const TOKEN: &str = "hf_a-secret-that-nobody-may-read";
/// The commit of `main`.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Files of the repository that are not part of the model and must not be requested.
pub(super) const FORBIDDEN: [&str; 6] = [
    "README.md",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/flax_model.msgpack",
    "unet/model_fp16.onnx",
    "clip/pytorch_model.bin",
];

/// The list of the files, for [`State::endless`].
pub(super) const LISTING: &str = "the listing";
/// What is sent instead of something without an end.
pub(super) const ENDLESS_BYTES: usize = 256 << 20;

/// The repository `tests/digits`, and how the server responds to requests.
#[derive(Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The token that may read the repository. Without one it is public.
    pub(super) token: Option<&'static str>,
    /// Close connections without a response.
    pub(super) down: bool,
    /// A file of which no byte from this one on is ever sent.
    pub(super) stalls: Option<(&'static str, usize)>,
    /// What all requests for files are redirected to, as mirrors do: a host, or nothing for a relative redirect.
    pub(super) mirrored: Option<String>,
    /// The host to which the next listing of the repository is redirected.
    pub(super) listed_by: Option<String>,
    /// The hosts that requests were sent to, and whether with a token.
    pub(super) hosts: BTreeSet<(String, bool)>,
    /// A file that is sent with a wrong byte once.
    pub(super) flips: Option<&'static str>,
    /// A file, or `LISTING`, that is sent without an end once, and the bytes that were sent until the client had enough.
    pub(super) endless: Option<&'static str>,
    pub(super) endless_bytes: usize,
    /// Requested paths, with the bytes of each response.
    pub(super) asked: Vec<(String, usize)>,
}

/// Serves until the tests end.
pub(super) struct Server {
    pub(super) port: u16,
    /// Another port with the same answers.
    pub(super) other_port: u16,
    pub(super) state: Arc<Mutex<State>>,
}

impl Server {
    /// Serves the digits models with their CLIP, and the forbidden files.
    pub(super) fn new() -> Self {
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns the requests since the last call.
    pub(super) fn asked(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.state().asked)
    }

    /// Returns how often the repository was listed and how often parts of files were requested.
    pub(super) fn counts(&self) -> (usize, usize) {
        let asked = self.asked();
        let listings = asked.iter().filter(|(path, _)| path.starts_with("/api/")).count();
        (listings, asked.len() - listings)
    }

    /// Returns the environment variables of a process that uses the server, with a separate cache.
    pub(super) fn variables(&self, workspace: &Workspace) -> Vec<(&'static str, String)> {
        let mut variables = cache(workspace);
        variables.extend([
            ("HF_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("HF_HOME", workspace.path("hf").to_str().unwrap().to_owned()),
            ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
        ]);
        variables
    }

    /// The small pipeline, with both models from this server.
    pub(super) fn workspace(&self) -> Workspace {
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

pub(super) fn is_large(name: &str) -> bool {
    name.ends_with(".onnx") || name.ends_with(".onnx_data")
}

/// Returns the SHA-256 that identifies a file. The hub uses it only for large files, and Git's digest for small ones.
pub(super) fn blob(bytes: &[u8]) -> String {
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
