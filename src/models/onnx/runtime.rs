//! Finds the ONNX Runtime library, and loads it once.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ort::environment::Environment;

use super::{
    OnnxError,
    fetch::{self, Fetch},
    machine::Machine,
    wheels::{Build, release},
};
use crate::models::cache_dir::cache_dir;

/// Names a library explicitly. The command line takes precedence over it, and it takes precedence over the cache.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The only environment of this process: the library does not allow a second.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

/// How a library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Named on the command line.
    Flag,
    /// Named by `ORT_DYLIB_PATH`.
    Variable,
    /// Fetched by an earlier run, for the CPU.
    Cache,
    /// Fetched by `runtime fetch cuda`.
    CacheCuda,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "the command line",
            Self::Variable => "`ORT_DYLIB_PATH`",
            Self::Cache => "the cache",
            Self::CacheCuda => "the cache, for CUDA",
        })
    }
}

/// A library on this machine that is not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) path: PathBuf,
    pub(crate) how: How,
}

/// The loaded library. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runtime {
    environment: Environment,
    located: Arc<Located>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("located", &self.located).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Finds the library without fetching or loading it: the explicit path, otherwise `ORT_DYLIB_PATH`, otherwise the one
    /// for CUDA in the [cache](cache_dir), which runs models on the CPU too, otherwise the one for the CPU there.
    ///
    /// # Errors
    /// Returns [`OnnxError::NoSuchLibrary`] if a named file does not exist, [`OnnxError::NotInstalled`] if the cache has
    /// no library, and [`OnnxError::NoCache`] or [`OnnxError::UnknownPlatform`] if it cannot have one.
    pub(crate) fn locate(explicit: Option<&Path>) -> Result<Located, OnnxError> {
        let variable = env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        locate(explicit, variable.as_deref(), &cache_root)
    }

    /// Whether the library may be of a version that sends telemetry: any but the one that is fetched for the CPU.
    pub(crate) fn may_send_telemetry() -> bool {
        Self::locate(None).is_ok_and(|located| located.how != How::Cache)
    }

    /// Loads the library, and fetches it into the cache first if necessary. The first call of a process decides which
    /// library that is; later calls return the same runtime.
    ///
    /// # Errors
    /// Returns the errors of [`Runtime::locate`], [`OnnxError::Fetch`] and [`OnnxError::Load`].
    pub(crate) fn open(explicit: Option<&Path>) -> Result<Self, OnnxError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return Ok(runtime.clone());
        }
        let located = match Self::locate(explicit) {
            Err(OnnxError::NotInstalled { cached }) => {
                Self::plan_fetch(Build::Cpu)?.run(&|_| ())?;
                Located { path: cached, how: How::Cache }
            }
            other => other?,
        };
        let runtime = Self::load(located)?;
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// Says what has to be fetched into the cache for a runtime of `build`.
    ///
    /// # Errors
    /// Returns [`OnnxError::NoCache`] and the errors of [`Fetch::plan`].
    pub(crate) fn plan_fetch(build: Build) -> Result<Fetch, OnnxError> {
        Fetch::plan(build, &cache_root()?, &Machine::this())
    }

    fn load(located: Located) -> Result<Self, OnnxError> {
        let failed = |reason: String| OnnxError::Load { path: located.path.clone(), reason };
        // `ort::init` without a path would panic if the library is missing; this returns an error.
        let environment = ort::init_from(&located.path)
            .map_err(|error| failed(error.to_string()))?
            .with_telemetry(false)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { environment, located: Arc::new(located) })
    }

    /// Returns the library's description of its build, including the version.
    pub(crate) fn build_info(&self) -> &'static str {
        ort::info()
    }

    /// Returns the path of the library.
    pub(super) fn path(&self) -> &Path {
        &self.located.path
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}

fn locate(
    explicit: Option<&Path>,
    variable: Option<&Path>,
    cache_root: &dyn Fn() -> Result<PathBuf, OnnxError>,
) -> Result<Located, OnnxError> {
    let named = [(explicit, How::Flag, "the command line"), (variable, How::Variable, "`ORT_DYLIB_PATH`")];
    for (path, how, named_by) in named {
        let Some(path) = path else { continue };
        return if path.is_file() {
            // Relative names would be searched for in the loader's folders.
            Ok(Located { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), how })
        } else {
            Err(OnnxError::NoSuchLibrary { path: path.to_owned(), named_by })
        };
    }
    let (root, cpu) = (cache_root()?, fetch::known(Build::Cpu)?);
    // Not every platform has one for CUDA.
    if let Some(path) = release(Build::Cuda).map(|cuda| root.join(cuda.folder).join(cuda.library))
        && path.is_file()
    {
        return Ok(Located { path, how: How::CacheCuda });
    }
    let cached = root.join(cpu.folder).join(cpu.library);
    if cached.is_file() {
        Ok(Located { path: cached, how: How::Cache })
    } else {
        Err(OnnxError::NotInstalled { cached })
    }
}

fn cache_root() -> Result<PathBuf, OnnxError> {
    Ok(cache_dir().ok_or(OnnxError::NoCache)?.join("onnxruntime"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_variable_and_the_variable_over_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"x").unwrap();
            path
        };
        let root = || Ok(dir.path().to_owned());
        let (flag, variable) = (file("flag.so"), file("variable.so"));
        assert!(matches!(locate(None, None, &root), Err(OnnxError::NotInstalled { .. })));
        let in_cache = |build| release(build).map(|release| file(&format!("{}/{}", release.folder, release.library)));
        let cached = in_cache(Build::Cpu).unwrap();
        let how = |explicit, variable| locate(explicit, variable, &root).unwrap();
        assert_eq!(how(Some(&*flag), Some(&*variable)), Located { path: flag.clone(), how: How::Flag });
        assert_eq!(how(None, Some(&*variable)), Located { path: variable.clone(), how: How::Variable });
        assert_eq!(how(None, None), Located { path: cached, how: How::Cache });
        // The one for CUDA serves the CPU as well.
        if let Some(cuda) = in_cache(Build::Cuda) {
            assert_eq!(how(None, None), Located { path: cuda, how: How::CacheCuda });
        }
    }

    #[test]
    fn a_named_library_that_is_missing_is_not_replaced_by_another() {
        let error = locate(None, Some(Path::new("/no/such.so")), &|| Err(OnnxError::NoCache)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the ONNX Runtime library `/no/such.so`, named by `ORT_DYLIB_PATH`, does not exist"
        );
    }

    #[test]
    fn opening_twice_returns_the_same_runtime() {
        let first = Runtime::open(None).unwrap();
        let second = Runtime::open(Some(Path::new("/ignored.so"))).unwrap();
        assert_eq!(first.located, second.located);
    }
}
