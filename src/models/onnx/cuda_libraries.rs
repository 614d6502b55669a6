//! The libraries of CUDA and cuDNN that a runtime needs: which ones, where they are, and loading them before the runtime
//! asks the system's loader for them.
//!
//! pip installs them where no loader looks. A library that is loaded already satisfies every later request for its name,
//! so those that are found are loaded by their absolute paths, and nobody has to set `LD_LIBRARY_PATH`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    elf,
    machine::{Machine, names},
};

/// The file of the runtime's CUDA provider, beside the runtime.
pub(super) const PROVIDER: &str = "libonnxruntime_providers_cuda.so";

/// Libraries by the beginning of their file names, with the pip package of each, in the order in which they are loaded: one
/// that others need comes first.
const PACKAGES: [(&str, &str); 7] = [
    ("libcudart.so.", "nvidia-cuda-runtime"),
    ("libcublasLt.so.", "nvidia-cublas"),
    ("libcublas.so.", "nvidia-cublas"),
    ("libcurand.so.", "nvidia-curand"),
    ("libcufft.so.", "nvidia-cufft"),
    (NVRTC, "nvidia-cuda-nvrtc"),
    (CUDNN, "nvidia-cudnn"),
];

const CUDNN: &str = "libcudnn.so.";

/// The compiler with which cuDNN makes some of its kernels. It does without.
const NVRTC: &str = "libnvrtc.so.";

/// cuDNN, which a provider may look for only when a convolution first runs. All that are built for CUDA 12 or later take
/// this version.
const CUDNN_LIBRARY: &str = "libcudnn.so.9";

/// A library that the provider needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    /// Its file name, such as `libcublas.so.13`.
    pub(crate) name: String,
    /// The pip package that has it.
    pub(crate) package: String,
    /// Where it is.
    pub(crate) found: Option<Found>,
    /// The same library of another version, if only that was found.
    pub(crate) other: Option<PathBuf>,
    /// Whether the provider works without it.
    pub(crate) is_optional: bool,
}

/// Where a library was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Which kind of place that is.
    pub(crate) place: &'static str,
}

/// What the CUDA provider of a runtime needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The major version of CUDA, such as `13`.
    pub(crate) cuda: String,
    /// In the order in which they are loaded.
    pub(crate) libraries: Vec<Library>,
}

/// Reads what the CUDA provider beside a runtime needs, and searches the machine for it. `None` if there is none: then the
/// runtime is for the CPU only.
///
/// # Errors
/// Returns an error if the provider's file cannot be read.
pub(crate) fn needs(runtime: &Path, machine: &Machine<'_>) -> std::io::Result<Option<Needs>> {
    let folder = runtime.parent().unwrap_or(Path::new("/"));
    let provider = folder.join(PROVIDER);
    if !provider.exists() {
        return Ok(None);
    }
    Ok(Some(search(elf::needed(&provider)?, folder, machine)))
}

/// Searches the machine for those of `needed` that NVIDIA's packages have, and for cuDNN. `folder` is that of the runtime.
pub(super) fn search(mut needed: Vec<String>, folder: &Path, machine: &Machine<'_>) -> Needs {
    if !needed.iter().any(|name| name.starts_with(CUDNN)) {
        needed.push(CUDNN_LIBRARY.to_owned());
    }
    let version = |prefix: &str| needed.iter().find_map(|name| name.strip_prefix(prefix));
    let cuda = version("libcudart.so.").or_else(|| version("libcublas.so.")).unwrap_or("13").to_owned();
    let compiler = format!("{NVRTC}{cuda}");
    let is_needed = needed.contains(&compiler);
    if !is_needed {
        needed.push(compiler);
    }
    let places = places(folder, machine);
    let of_package = |(prefix, package): &(&str, &str)| {
        let name = needed.iter().find(|name| name.starts_with(prefix))?;
        let is_there = |(place, folder): &(&'static str, PathBuf)| {
            let path = folder.join(name);
            path.is_file().then_some(Found { path, place })
        };
        let found = places.iter().find_map(is_there);
        let other = if found.is_some() { None } else { places.iter().find_map(|place| other(&place.1, prefix)) };
        let is_optional = *prefix == NVRTC && !is_needed;
        Some(Library { name: name.clone(), package: pip_name(package, &cuda), found, other, is_optional })
    };
    Needs { libraries: PACKAGES.iter().filter_map(of_package).collect(), cuda }
}

/// Returns pip's name of a package: up to CUDA 12, all names end in the version of CUDA; since then, only cuDNN's.
fn pip_name(package: &str, cuda: &str) -> String {
    let has_version = package == "nvidia-cudnn" || cuda.parse::<u32>().is_ok_and(|major| major < 13);
    if has_version { format!("{package}-cu{cuda}") } else { package.to_owned() }
}

/// Returns a library in `folder` whose name begins with `prefix` and goes on with a major version.
fn other(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let is_major = |rest: &str| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit());
    let is_other = |name: &String| name.strip_prefix(prefix).is_some_and(is_major);
    names(folder).into_iter().find(is_other).map(|name| folder.join(name))
}

/// Returns the folders that may have libraries, the first to be searched first, each with what it is.
fn places(folder: &Path, machine: &Machine<'_>) -> Vec<(&'static str, PathBuf)> {
    let mut places = vec![("beside the runtime", folder.to_owned())];
    let mut add = |place, folders: Vec<PathBuf>| places.extend(folders.into_iter().map(|folder| (place, folder)));
    // A runtime that pip has installed is in `site-packages/onnxruntime/capi`.
    if let Some(packages) = folder.ancestors().nth(2).filter(|_| folder.ends_with("onnxruntime/capi")) {
        add("the runtime's environment", nvidia_folders(packages));
    }
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().flat_map(|name| machine.paths(name));
    // Without such a variable, the environment is that of the first Python that a shell would run.
    let python = machine.paths("PATH").into_iter().find(|folder| folder.join("python3").exists());
    let prefix = python.and_then(|folder| Some(folder.parent()?.to_owned()));
    let home = machine.paths("HOME").into_iter().map(|home| home.join(".local"));
    for environment in environments.chain(prefix).chain(home) {
        add("a Python environment", site_packages(&environment).iter().flat_map(|site| nvidia_folders(site)).collect());
        // conda has libraries here. Those of the system are the loader's.
        if environment.join("conda-meta").is_dir() {
            add("a conda environment", vec![environment.join("lib")]);
        }
    }
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().flat_map(|name| machine.paths(name));
    for toolkit in toolkits.chain([machine.path("/usr/local/cuda")]) {
        add("a CUDA installation", vec![toolkit.join("lib64"), toolkit.join("lib")]);
    }
    add("the loader's folders", loader_folders(machine));
    places
}

/// Returns the folders of packages of a Python environment.
fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for library in [environment.join("lib"), environment.join("lib64"), environment.join("local/lib")] {
        for name in names(&library).into_iter().filter(|name| name.starts_with("python3")) {
            // Debian has both.
            found.extend(["site-packages", "dist-packages"].map(|packages| library.join(&name).join(packages)));
        }
    }
    found
}

/// Returns `nvidia/*/lib` of a folder of packages.
fn nvidia_folders(packages: &Path) -> Vec<PathBuf> {
    let nvidia = packages.join("nvidia");
    names(&nvidia).into_iter().map(|name| nvidia.join(name).join("lib")).collect()
}

/// Returns the folders in which the system's loader searches.
fn loader_folders(machine: &Machine<'_>) -> Vec<PathBuf> {
    let mut folders = machine.paths("LD_LIBRARY_PATH");
    let settings = machine.path("/etc/ld.so.conf.d");
    for file in names(&settings) {
        let text = fs::read_to_string(settings.join(file)).unwrap_or_default();
        folders.extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(|line| machine.path(line)));
    }
    let architecture = std::env::consts::ARCH;
    let multiarch = [format!("/usr/lib/{architecture}-linux-gnu"), format!("/lib/{architecture}-linux-gnu")];
    folders.extend(multiarch.iter().map(|folder| machine.path(folder)));
    folders.extend(["/usr/local/lib", "/usr/lib64", "/lib64", "/usr/lib", "/lib"].map(|folder| machine.path(folder)));
    folders
}

impl Needs {
    /// Loads what was found, and returns why a library cannot be loaded, as far as there are some.
    pub(super) fn preload(&self) -> Vec<String> {
        let load = |found: &Found| {
            let error = ort::util::preload_dylib(&found.path).err()?;
            Some(format!("`{}` cannot be loaded: {error}", found.path.display()))
        };
        self.libraries.iter().filter_map(|library| library.found.as_ref().and_then(load)).collect()
    }

    /// Returns the names of the libraries that were not found and without which the provider does not work.
    pub(crate) fn missing(&self) -> Vec<&str> {
        let is_missing = |library: &&Library| library.found.is_none() && !library.is_optional;
        self.libraries.iter().filter(is_missing).map(|library| library.name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const NEEDED: [&str; 6] =
        ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1", "libc.so.6"];

    fn touch(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    /// Searches with these variables, in which `ROOT` is the root of the machine.
    fn search_with(root: &Path, folder: &str, variables: &[(&str, &str)]) -> Needs {
        let value = |name: &str| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(value.replace("ROOT", root.to_str().unwrap())))
        };
        let machine = Machine { root, variable: &value, tool: &|| None };
        search(NEEDED.map(str::to_owned).into(), &root.join(folder), &machine)
    }

    fn place(needs: &Needs, name: &str) -> Option<&'static str> {
        needs.libraries.iter().find(|library| library.name == name).unwrap().found.as_ref().map(|found| found.place)
    }

    #[test]
    fn what_is_needed_and_its_packages_depend_on_the_version_of_cuda() {
        let root = tempfile::tempdir().unwrap();
        let needs = search_with(root.path(), "runtime", &[]);
        assert_eq!(needs.cuda, "13");
        let names: Vec<&str> = needs.libraries.iter().map(|library| library.name.as_str()).collect();
        // In the order of loading; cuDNN although it is not needed at once; neither the driver nor the system's own.
        assert_eq!(
            names,
            [
                "libcudart.so.13",
                "libcublasLt.so.13",
                "libcublas.so.13",
                "libcurand.so.10",
                "libnvrtc.so.13",
                "libcudnn.so.9"
            ]
        );
        assert_eq!(needs.missing(), [&names[..4], &names[5..]].concat());
        let packages: Vec<&str> = needs.libraries.iter().map(|library| library.package.as_str()).collect();
        assert_eq!(
            packages,
            [
                "nvidia-cuda-runtime",
                "nvidia-cublas",
                "nvidia-cublas",
                "nvidia-curand",
                "nvidia-cuda-nvrtc",
                "nvidia-cudnn-cu13"
            ]
        );
        let machine = Machine { root: root.path(), variable: &|_| None, tool: &|| None };
        let older = ["libcublas.so.12", "libcudnn.so.9", "libcufft.so.11", "libcudart.so.12"].map(str::to_owned).into();
        let needs = search(older, root.path(), &machine);
        let shown: Vec<String> =
            needs.libraries.iter().map(|library| format!("{} {}", library.name, library.package)).collect();
        assert_eq!(needs.cuda, "12");
        assert_eq!(
            shown,
            [
                "libcudart.so.12 nvidia-cuda-runtime-cu12",
                "libcublas.so.12 nvidia-cublas-cu12",
                "libcufft.so.11 nvidia-cufft-cu12",
                "libnvrtc.so.12 nvidia-cuda-nvrtc-cu12",
                "libcudnn.so.9 nvidia-cudnn-cu12"
            ]
        );
    }

    #[test]
    fn nearer_places_come_first() {
        let root = tempfile::tempdir().unwrap();
        let folder = "env/lib/python3.12/site-packages/onnxruntime/capi";
        let variables = [
            ("VIRTUAL_ENV", "ROOT/venv"),
            ("CONDA_PREFIX", "ROOT/conda"),
            ("PATH", "relative:ROOT/none/bin:ROOT/opt/bin"),
            ("HOME", "ROOT/home"),
            ("CUDA_HOME", "ROOT/cuda-13"),
            ("LD_LIBRARY_PATH", "ROOT/ld:"),
        ];
        touch(root.path().join("opt/bin/python3"));
        touch(root.path().join("conda/conda-meta/history"));
        fs::create_dir_all(root.path().join("etc/ld.so.conf.d")).unwrap();
        fs::write(root.path().join("etc/ld.so.conf.d/cuda.conf"), "# CUDA\n/opt/listed\n").unwrap();
        // From the last place to the first: each is found instead of those before.
        for (library, wanted) in [
            ("usr/lib64/", "the loader's folders"),
            ("opt/listed/", "the loader's folders"),
            ("ld/", "the loader's folders"),
            ("usr/local/cuda/lib64/", "a CUDA installation"),
            ("cuda-13/lib64/", "a CUDA installation"),
            ("home/.local/lib/python3.12/site-packages/nvidia/cu13/lib/", "a Python environment"),
            ("opt/lib/python3.11/dist-packages/nvidia/cu13/lib/", "a Python environment"),
            ("conda/lib/", "a conda environment"),
            ("venv/lib/python3.11/site-packages/nvidia/cu13/lib/", "a Python environment"),
            ("env/lib/python3.12/site-packages/nvidia/cu13/lib/", "the runtime's environment"),
            ("env/lib/python3.12/site-packages/onnxruntime/capi/", "beside the runtime"),
        ] {
            touch(root.path().join(library).join("libcublas.so.13"));
            let needs = search_with(root.path(), folder, &variables);
            assert_eq!(place(&needs, "libcublas.so.13"), Some(wanted), "{library}");
            let found = needs.libraries[2].found.clone().unwrap().path;
            assert_eq!(found, root.path().join(library).join("libcublas.so.13"));
            assert_eq!(place(&needs, "libcublasLt.so.13"), None);
        }
    }

    #[test]
    fn a_library_of_another_version_is_named() {
        let root = tempfile::tempdir().unwrap();
        touch(root.path().join("usr/lib64/libcublas.so.12"));
        touch(root.path().join("usr/lib64/libcublas.so"));
        let needs = search_with(root.path(), "runtime", &[]);
        assert_eq!(needs.libraries[2].found, None);
        assert_eq!(needs.libraries[2].other, Some(root.path().join("usr/lib64/libcublas.so.12")));
    }

    #[test]
    fn the_working_directory_is_no_place() {
        let variables = [("VIRTUAL_ENV", "venv"), ("PATH", ".:"), ("LD_LIBRARY_PATH", ":lib"), ("CUDA_HOME", "cuda")];
        let value = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.into());
        let machine = Machine { root: Path::new("/"), variable: &value, tool: &|| None };
        let places = places(Path::new("/runtime"), &machine);
        assert!(places.iter().all(|(_, folder)| folder.is_absolute()), "{places:?}");
    }

    #[test]
    fn a_runtime_without_a_provider_is_for_the_cpu_and_a_broken_provider_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let runtime = root.path().join("libonnxruntime.so");
        let machine = Machine { root: root.path(), variable: &|_| None, tool: &|| None };
        assert_eq!(needs(&runtime, &machine).unwrap(), None);
        fs::write(root.path().join(PROVIDER), elf::library(&NEEDED)).unwrap();
        assert_eq!(needs(&runtime, &machine).unwrap().unwrap().cuda, "13");
        fs::write(root.path().join(PROVIDER), "version https://git-lfs.github.com/spec/v1").unwrap();
        assert!(needs(&runtime, &machine).is_err());
    }

    #[test]
    fn a_file_that_is_no_library_is_named_and_the_rest_is_loaded() {
        let root = tempfile::tempdir().unwrap();
        touch(root.path().join("runtime/libcublas.so.13"));
        let needs = search_with(root.path(), "runtime", &[]);
        let failed = needs.preload();
        assert_eq!(failed.len(), 1);
        assert!(failed[0].contains("runtime/libcublas.so.13` cannot be loaded: "), "{failed:?}");
    }
}
