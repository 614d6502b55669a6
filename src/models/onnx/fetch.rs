//! Fetches the ONNX Runtime library once, from PyPI's wheel for this platform.
//!
//! A wheel contains a plain C library. pip checks the wheel against the hash below. A single rename moves the library
//! into the cache under its final name, so that two processes may fetch it at the same time.
//!
//! A pipeline may be a folder of strangers, so nothing of the caller's directory may run: Python is isolated, works in
//! the cache, and gets none of the caller's secrets.

use std::{
    env::{
        self,
        consts::{ARCH, OS},
    },
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
};

use super::OnnxError;
use crate::models::model_dir::FileError;

/// The version to fetch. Any library of version 1.24 or later works if it is named explicitly. Later wheels write
/// telemetry into the cache before a program can turn it off.
pub(super) const VERSION: &str = "1.24.4";

/// The wheel of a platform: the library's file name, pip's name of the platform, the wheel's SHA-256.
struct Wheel {
    library: &'static str,
    platform: &'static str,
    sha256: &'static str,
}

fn wheel() -> Result<Wheel, OnnxError> {
    match (OS, ARCH) {
        ("linux", "x86_64") => Ok(Wheel {
            library: "libonnxruntime.so.1.24.4",
            platform: "manylinux_2_28_x86_64",
            sha256: "e54ad52e61d2d4618dcff8fa1480ac66b24ee2eab73331322db1049f11ccf330",
        }),
        ("linux", "aarch64") => Ok(Wheel {
            library: "libonnxruntime.so.1.24.4",
            platform: "manylinux_2_28_aarch64",
            sha256: "046ff290045a387676941a02a8ae5c3ebec6b4f551ae228711968c4a69d8f6b7",
        }),
        ("macos", "aarch64") => Ok(Wheel {
            library: "libonnxruntime.1.24.4.dylib",
            platform: "macosx_14_0_arm64",
            sha256: "0bdfce8e9a6497cec584aab407b71bf697dac5e1b7b7974adc50bf7533bdb3a2",
        }),
        (os, arch) => Err(OnnxError::UnknownPlatform { os, arch }),
    }
}

/// The variables that Python gets, besides those of pip and of proxies: where programs, libraries and caches are, the
/// language of messages, and which certificates to trust.
const VARIABLES: [&str; 15] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];

/// Returns the library's file name on this platform.
pub(super) fn library() -> Result<&'static str, OnnxError> {
    wheel().map(|wheel| wheel.library)
}

/// Fetches the library to `target`, a path in the cache.
///
/// # Errors
/// Returns [`OnnxError::Fetch`], with what to do manually, if Python, pip or the network is missing.
pub(super) fn into_cache(target: &Path) -> Result<(), OnnxError> {
    let wheel = wheel()?;
    let directory = target.parent().unwrap_or(Path::new("."));
    let workspace = directory.join(format!(".fetch-{}", id()));
    fs::create_dir_all(&workspace).map_err(FileError::io("create", &workspace))?;
    let fetched = download(&wheel, &workspace)
        .and_then(|library| Ok(fs::rename(&library, target).map_err(FileError::io("create", target))?));
    // Leftovers in the cache are harmless, and must not hide why the fetch failed.
    let _ = fs::remove_dir_all(&workspace);
    fetched
}

fn download(wheel: &Wheel, workspace: &Path) -> Result<PathBuf, OnnxError> {
    let requirements = workspace.join("requirements.txt");
    let line = format!("onnxruntime=={VERSION} --hash=sha256:{}\n", wheel.sha256);
    fs::write(&requirements, line).map_err(FileError::io("create", &requirements))?;
    let mut pip = python("pip", workspace);
    pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
        .args(["--only-binary=:all:", "--python-version", "3.11", "--platform", wheel.platform])
        .arg("-r")
        .arg(&requirements)
        .arg("-d")
        .arg(workspace);
    run(pip)?;
    let unpacked = workspace.join("unpacked");
    let mut zipfile = python("zipfile", workspace);
    zipfile.arg("-e").arg(find_wheel(workspace)?).arg(&unpacked);
    run(zipfile)?;
    let library = unpacked.join("onnxruntime").join("capi").join(wheel.library);
    if library.is_file() { Ok(library) } else { Err(failed(format!("the wheel has no `{}`", wheel.library))) }
}

/// Returns a command that runs one of Python's own modules. `-I` keeps `PYTHONPATH` and the working directory out of the
/// search for modules.
fn python(module: &str, workspace: &Path) -> Command {
    let is_passed = |name: &str| {
        VARIABLES.contains(&name) || name.starts_with("PIP_") || name.to_ascii_lowercase().ends_with("_proxy")
    };
    let mut command = Command::new("python3");
    command.args(["-I", "-m", module]).current_dir(workspace).env_clear();
    command.envs(env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_passed)));
    command
}

fn find_wheel(workspace: &Path) -> Result<PathBuf, OnnxError> {
    let entries = fs::read_dir(workspace).map_err(FileError::io("read", workspace))?;
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| failed("pip downloaded no wheel".to_owned()))
}

/// Runs a command without a shell. If it fails, the last line on stderr is the reason.
fn run(mut command: Command) -> Result<(), OnnxError> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| failed(format!("cannot start `python3` ({error})")))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("without a message");
    Err(failed(format!("`python3` ended with {}: {last}", output.status)))
}

fn failed(reason: String) -> OnnxError {
    OnnxError::Fetch { version: VERSION, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_failing_command_is_the_reason() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first >&2; echo the reason >&2; exit 3"]);
        let message = run(command).unwrap_err().to_string();
        assert!(message.contains("exit status: 3: the reason"), "{message}");
        assert!(message.contains("hint: set `ORT_DYLIB_PATH`"), "{message}");
    }

    #[test]
    fn a_missing_command_is_reported() {
        let message = run(Command::new("/no/such/python3")).unwrap_err().to_string();
        assert!(message.contains("cannot start `python3`"), "{message}");
    }
}
