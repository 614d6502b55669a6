//! Models from a hub: a local server that speaks the protocol of Hugging Face's hub, with faults.

mod server;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use insta::assert_snapshot;

use self::server::{COMMIT, ENDLESS_BYTES, FORBIDDEN, LISTING, Server, TOKEN};
use crate::{
    s3::quiet,
    support::{Workspace, root, stderr},
};

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
