//! Other engines read every table: deltalake for Python, polars, pyarrow, and Hugging Face `datasets`.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    process::Command,
};

use crate::support::{Workspace, root, stderr};

#[test]
fn other_engines_read_every_table() {
    let workspace = Workspace::small();
    workspace.run();
    let mut check = Command::new(environment("readers").join("bin/python"));
    check.arg("-I").arg(root().join("tests/readers/check.py")).arg(workspace.lake().join("digits_lt"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
}

/// Returns a Python environment with `tests/NAME/requirements.txt`, created once per Python and content of that file.
pub(crate) fn environment(name: &str) -> PathBuf {
    let requirements = root().join("tests").join(name).join("requirements.txt");
    let mut hasher = DefaultHasher::new();
    fs::read(&requirements).unwrap().hash(&mut hasher);
    succeed(Command::new("python3").arg("--version")).hash(&mut hasher);
    let folder = root().join("target").join(name);
    let environment = folder.join(format!("venv-{:08x}", hasher.finish() >> 32));
    fs::create_dir_all(&folder).unwrap();
    // One test creates it and others wait. A killed process releases the lock.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    if !environment.exists() {
        // It gets its name once it is complete. `--clear` removes the remains of an interrupted installation.
        let partial = folder.join("partial");
        succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&partial));
        let pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"];
        succeed(Command::new(partial.join("bin/python")).args(pip).arg(&requirements));
        fs::rename(partial, &environment).unwrap();
    }
    environment
}

/// Runs a command that must succeed and returns its stdout. A failure reports what the command needs.
fn succeed(command: &mut Command) -> Vec<u8> {
    let needs = "This test needs `python3` on the path, 3.10 or newer and with its `venv` module (on Debian and \
                 Ubuntu: `apt install python3-venv`), and a package index from which pip installs \
                 tests/*/requirements.txt, once.";
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}\n{needs}"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?} failed:\n{said}{}\n{needs}", stderr(&output));
    output.stdout
}
