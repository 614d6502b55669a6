//! Nothing of the working directory is run, and no child process gets a secret.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Workspace, program, root, stderr};

/// Stands for `python3`: records how it was called, then runs the real one. As `pip` it also leaves a wheel with a file
/// that is no library, because the real pip has no index here.
const RECORDER: &str = r#"#!/bin/sh
{ echo "directory $(pwd)"; echo "arguments $*"; env | sed 's/^/variable /'; } >> "RECORD"
[ "$3" = pip ] || exec "REAL" "$@"
"REAL" "$@"
exec "REAL" -I -c 'import zipfile
with zipfile.ZipFile("onnxruntime-1.24.4.whl", "w") as wheel:
    for name in ["libonnxruntime.so.1.24.4", "libonnxruntime.1.24.4.dylib"]:
        wheel.writestr("onnxruntime/capi/" + name, b"not a library")'
"#;

/// Modules that Python would import from the working directory or from `PYTHONPATH`.
const PLANTED: [&str; 5] = ["pip.py", "zipfile.py", "sitecustomize.py", "runpy.py", "encodings.py"];

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Returns the path of the real `python3`, as a version manager's stand-in would find it.
fn real_python() -> PathBuf {
    let output = Command::new("python3").args(["-I", "-c", "import sys; print(sys.executable)"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// A directory as a stranger shares it: a pipeline, with modules and a program beside it that leave `ran` behind.
fn plant(workspace: &Workspace) -> PathBuf {
    let shared = workspace.path("shared");
    fs::create_dir(&shared).unwrap();
    for folder in ["data", "models"] {
        std::os::unix::fs::symlink(root().join(folder), shared.join(folder)).unwrap();
    }
    let ran = workspace.path("ran");
    for name in PLANTED {
        fs::write(shared.join(name), format!("open({:?}, 'a').write({name:?})\nraise SystemExit(0)\n", ran)).unwrap();
    }
    for name in ["python3", "nvidia-smi"] {
        write_program(&shared.join(name), &format!("#!/bin/sh\necho {name} >> {}\n", ran.display()));
    }
    shared
}

#[test]
fn nothing_of_the_working_directory_is_run() {
    let workspace = Workspace::small();
    let shared = plant(&workspace);
    let (programs, record) = (workspace.path("programs"), workspace.path("record"));
    fs::create_dir(&programs).unwrap();
    let recorder = RECORDER.replace("RECORD", record.to_str().unwrap());
    write_program(&programs.join("python3"), &recorder.replace("REAL", real_python().to_str().unwrap()));
    let own = std::env::var("PATH").unwrap();
    let mut query = workspace.command("sql", &["SELECT clip_text('a')"]);
    query.current_dir(&shared).env_remove("ORT_DYLIB_PATH").envs([
        // An empty entry and `.` stand for the working directory.
        ("PATH", format!(":.:{}:{own}", programs.display())),
        ("PYTHONPATH", shared.display().to_string()),
        ("PYTHONSTARTUP", shared.join("pip.py").display().to_string()),
        ("XDG_CACHE_HOME", workspace.path("cache").display().to_string()),
        ("PIP_NO_INDEX", "1".to_owned()),
        ("HTTPS_PROXY", "http://127.0.0.1:1".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret-1".to_owned()),
        ("HF_TOKEN", "secret-2".to_owned()),
        ("OPENAI_API_KEY", "secret-3".to_owned()),
    ]);
    let output = query.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot load the ONNX Runtime library"), "{}", stderr(&output));
    assert!(!workspace.path("ran").exists(), "{} ran", fs::read_to_string(workspace.path("ran")).unwrap());

    let record = fs::read_to_string(record).unwrap();
    let lines = |kind: &str| -> Vec<&str> { record.lines().filter_map(|line| line.strip_prefix(kind)).collect() };
    let arguments = lines("arguments ");
    assert_eq!(arguments.len(), 2, "{record}");
    assert!(
        arguments[0].starts_with("-I -m pip download ") && arguments[1].starts_with("-I -m zipfile -e "),
        "{record}"
    );
    let cache = workspace.path("cache/discl-pipe/onnxruntime").canonicalize().unwrap();
    assert!(lines("directory ").iter().all(|directory| Path::new(directory).starts_with(&cache)), "{record}");
    let variables = lines("variable ");
    assert!(variables.contains(&"PIP_NO_INDEX=1") && variables.contains(&"HTTPS_PROXY=http://127.0.0.1:1"), "{record}");
    let is_private = |line: &&&str| line.contains("secret-") || line.starts_with("PYTHON") || line.starts_with("AWS_");
    assert_eq!(variables.iter().find(is_private), None);
}

#[test]
fn looking_for_gpus_runs_and_loads_nothing_of_the_working_directory() {
    let workspace = Workspace::small();
    let shared = plant(&workspace);
    let own = std::env::var("PATH").unwrap();
    let mut doctor = program();
    doctor.arg("doctor").current_dir(&shared).env("PATH", format!(":.:{own}"));
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "LD_LIBRARY_PATH"] {
        doctor.env(name, ".");
    }
    let output = doctor.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(" gpu: "), "{said}{}", stderr(&output));
    assert!(!workspace.path("ran").exists(), "{} ran", fs::read_to_string(workspace.path("ran")).unwrap());
}
