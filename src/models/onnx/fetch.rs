//! Fetches ONNX Runtime from PyPI's wheels for this platform, and for a GPU the libraries of CUDA that the machine lacks.
//!
//! A wheel contains plain C libraries. pip checks each wheel against its hash. Nothing moves into the cache before all wheels
//! are there, and then file by file under its final name, ONNX Runtime's own library last: so two processes may fetch at the
//! same time, and what is interrupted is not taken for a runtime.
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

use super::{
    OnnxError,
    cuda_libraries::{self, Library},
    machine::Machine,
    wheels::{Build, Release, Wheel, release},
};
use crate::models::model_dir::FileError;

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

/// What a fetch would do.
#[derive(Debug)]
pub(crate) struct Fetch {
    build: Build,
    release: Release,
    /// The folder in the cache.
    folder: PathBuf,
    /// The wheels that are missing.
    pub(crate) wheels: Vec<Wheel>,
    /// The libraries of CUDA that the machine has.
    pub(crate) found: Vec<Library>,
}

impl Fetch {
    /// Says what has to be fetched into a folder of `root`: all that is neither there nor, of the libraries of CUDA, anywhere
    /// else where this program looks.
    ///
    /// # Errors
    /// Returns [`OnnxError::UnknownPlatform`] or [`OnnxError::NoCudaPlatform`] if there is nothing for this platform.
    pub(super) fn plan(build: Build, root: &Path, machine: &Machine<'_>) -> Result<Self, OnnxError> {
        Ok(Self::of(build, known(build)?, root, machine))
    }

    fn of(build: Build, release: Release, root: &Path, machine: &Machine<'_>) -> Self {
        let folder = root.join(release.folder);
        let (runtime, libraries) = release.wheels.split_at(1);
        let names: Vec<String> =
            libraries.iter().flat_map(|wheel| wheel.libraries).map(|name| (*name).to_owned()).collect();
        let search = |names: Vec<String>| cuda_libraries::search(names, &folder, machine).libraries;
        let searched = if names.is_empty() { Vec::new() } else { search(names) };
        let (found, missing): (Vec<_>, Vec<_>) = searched.into_iter().partition(|library| library.found.is_some());
        let lacks = |wheel: &&Wheel| missing.iter().any(|library| wheel.libraries.contains(&library.name.as_str()));
        let runtime = runtime.iter().filter(|wheel| wheel.libraries.iter().any(|name| !folder.join(name).is_file()));
        let wheels = runtime.chain(libraries.iter().filter(lacks)).copied().collect();
        Self { build, release, wheels, found, folder }
    }

    /// Returns the path of ONNX Runtime's library in the cache, once it is fetched.
    pub(crate) fn library(&self) -> PathBuf {
        self.folder.join(self.release.library)
    }

    /// Returns the size of all wheels that are missing.
    pub(crate) fn bytes(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.bytes).sum()
    }

    /// Fetches the wheels, each of which is told to `before`.
    ///
    /// # Errors
    /// Returns [`OnnxError::Fetch`], with what to do manually, if Python, pip or the network is missing, or if a wheel is
    /// not the known one. Then nothing is kept.
    pub(crate) fn run(&self, before: &dyn Fn(&Wheel)) -> Result<(), OnnxError> {
        let workspace = self.folder.with_file_name(format!(".fetch-{}", id()));
        let ready = workspace.join("ready");
        fs::create_dir_all(&ready).map_err(FileError::io("create", &ready))?;
        let fetch = |wheel| {
            before(wheel);
            self.download(wheel, &workspace, &ready)
        };
        let fetched = self.wheels.iter().try_for_each(fetch).and_then(|()| self.install(&ready));
        // Leftovers in the cache are harmless, and must not hide why the fetch failed.
        let _ = fs::remove_dir_all(&workspace);
        fetched
    }

    /// Fetches a wheel and moves the files that are kept into `ready`.
    fn download(&self, wheel: &Wheel, workspace: &Path, ready: &Path) -> Result<(), OnnxError> {
        let Wheel { package, version, platform, sha256, .. } = wheel;
        let folder = workspace.join(package);
        fs::create_dir_all(&folder).map_err(FileError::io("create", &folder))?;
        let requirements = folder.join("requirements.txt");
        let line = format!("{package}=={version} --hash=sha256:{sha256}\n");
        fs::write(&requirements, line).map_err(FileError::io("create", &requirements))?;
        let mut pip = python("pip", &folder);
        pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
            .args(["--only-binary=:all:", "--python-version", "3.11", "--platform", platform])
            .arg("-r")
            .arg(&requirements)
            .arg("-d")
            .arg(&folder);
        self.start(pip, package)?;
        let wheel_file = find_wheel(&folder)?.ok_or_else(|| self.failed("pip downloaded no wheel".to_owned()))?;
        let unpacked = folder.join("unpacked");
        let mut zipfile = python("zipfile", &folder);
        zipfile.arg("-e").arg(wheel_file).arg(&unpacked);
        self.start(zipfile, package)?;
        for path in files(&unpacked) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if wheel.kept.iter().any(|prefix| name.starts_with(prefix)) {
                fs::rename(&path, ready.join(name)).map_err(FileError::io("create", &path))?;
            }
        }
        // The space of the next one.
        let _ = fs::remove_dir_all(&folder);
        let lacks = wheel.libraries.iter().find(|name| !ready.join(name).is_file());
        lacks.map_or(Ok(()), |name| Err(self.failed(format!("the wheel of {package} has no `{name}`"))))
    }

    /// Moves all files that are ready into the folder, ONNX Runtime's library last: the folder is one with a runtime as soon
    /// as it is there.
    fn install(&self, ready: &Path) -> Result<(), OnnxError> {
        fs::create_dir_all(&self.folder).map_err(FileError::io("create", &self.folder))?;
        let mut paths = files(ready);
        paths.sort_by_key(|path| path.file_name().is_some_and(|name| name == self.release.library));
        for path in paths {
            let target = self.folder.join(path.file_name().unwrap_or_default());
            fs::rename(&path, &target).map_err(FileError::io("create", &target))?;
        }
        Ok(())
    }

    /// Runs a command without a shell. If it fails, the last line on stderr is the reason.
    fn start(&self, mut command: Command, package: &str) -> Result<(), OnnxError> {
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| self.failed(format!("cannot start `python3` ({error})")))?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("DO NOT MATCH THE HASHES") {
            let reason = "is not the known one: its hash is another; the index, or what is between, has changed it";
            return Err(self.failed(format!("the wheel of {package} {reason}")));
        }
        let last = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("without a message");
        Err(self.failed(format!("`python3` ended with {} for {package}: {last}", output.status)))
    }

    fn failed(&self, reason: String) -> OnnxError {
        OnnxError::Fetch { build: self.build, reason, packages: packages(self.release.wheels) }
    }
}

/// Returns what is fetched for this platform.
///
/// # Errors
/// Returns [`OnnxError::UnknownPlatform`] or [`OnnxError::NoCudaPlatform`] if nothing is known for it.
pub(super) fn known(build: Build) -> Result<Release, OnnxError> {
    let (os, arch) = (OS, ARCH);
    release(build).ok_or(match build {
        Build::Cpu => OnnxError::UnknownPlatform { os, arch },
        Build::Cuda => OnnxError::NoCudaPlatform { os, arch },
    })
}

/// Returns the wheels as pip names them.
fn packages(wheels: &[Wheel]) -> String {
    let names: Vec<String> = wheels.iter().map(|wheel| format!("{}=={}", wheel.package, wheel.version)).collect();
    names.join(" ")
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

fn find_wheel(folder: &Path) -> Result<Option<PathBuf>, FileError> {
    let mut entries = fs::read_dir(folder).map_err(FileError::io("read", folder))?.filter_map(Result::ok);
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    Ok(entries.find_map(|entry| Some(entry.path()).filter(is_wheel)))
}

/// Returns every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const RUNTIME: Wheel = Wheel {
        package: "runtime",
        version: "1.0",
        platform: "linux",
        sha256: "",
        bytes: 300,
        libraries: &["libonnxruntime_providers_cuda.so", "libonnxruntime.so.1"],
        kept: &["libonnxruntime"],
    };
    const CUBLAS: Wheel =
        Wheel { package: "cublas", bytes: 4000, libraries: &["libcublasLt.so.13", "libcublas.so.13"], ..RUNTIME };
    const CUDNN: Wheel = Wheel { package: "cudnn", bytes: 50_000, libraries: &["libcudnn.so.9"], ..RUNTIME };
    const RELEASE: Release =
        Release { folder: "release", library: "libonnxruntime.so.1", wheels: &[RUNTIME, CUBLAS, CUDNN] };

    fn touch(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    /// Returns the packages that would be fetched, and their size.
    fn planned(root: &Path) -> (Vec<&'static str>, u64) {
        let venv = |name: &str| (name == "VIRTUAL_ENV").then(|| OsString::from(root.join("venv")));
        let machine = Machine { root, variable: &venv, tool: &|| None };
        let fetch = Fetch::of(Build::Cuda, RELEASE, &root.join("cache"), &machine);
        assert_eq!(fetch.library(), root.join("cache/release/libonnxruntime.so.1"));
        (fetch.wheels.iter().map(|wheel| wheel.package).collect(), fetch.bytes())
    }

    #[test]
    fn only_what_the_machine_lacks_is_fetched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(planned(root), (vec!["runtime", "cublas", "cudnn"], 54_300));
        // torch has brought one of them.
        touch(root.join("venv/lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9"));
        assert_eq!(planned(root), (vec!["runtime", "cublas"], 4300));
        // One of two libraries of a package does not suffice.
        touch(root.join("usr/local/cuda/lib64/libcublas.so.13"));
        assert_eq!(planned(root), (vec!["runtime", "cublas"], 4300));
        touch(root.join("usr/local/cuda/lib64/libcublasLt.so.13"));
        assert_eq!(planned(root), (vec!["runtime"], 300));
        // ONNX Runtime itself is taken from the cache alone.
        touch(root.join("venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1"));
        touch(root.join("cache/release/libonnxruntime.so.1"));
        assert_eq!(planned(root), (vec!["runtime"], 300));
        touch(root.join("cache/release/libonnxruntime_providers_cuda.so"));
        assert_eq!(planned(root), (vec![], 0));
        // The environment is gone.
        fs::remove_dir_all(root.join("venv")).unwrap();
        assert_eq!(planned(root), (vec!["cudnn"], 50_000));
    }

    fn failure(command: Command) -> String {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine { root: root.path(), variable: &|_| None, tool: &|| None };
        let fetch = Fetch::of(Build::Cuda, RELEASE, root.path(), &machine);
        fetch.start(command, "cublas").unwrap_err().to_string()
    }

    #[test]
    fn the_last_line_of_a_failing_command_is_the_reason() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first >&2; echo the reason >&2; exit 3"]);
        let message = failure(command);
        assert!(message.contains("exit status: 3 for cublas: the reason"), "{message}");
        assert!(message.contains("runtime==1.0 cublas==1.0 cudnn==1.0"), "{message}");
    }

    #[test]
    fn a_missing_command_is_reported() {
        let message = failure(Command::new("/no/such/python3"));
        assert!(message.contains("cannot start `python3`"), "{message}");
    }
}
