//! docs/quickstart.md as a new user follows it: its Python, its TOML and its commands, unchanged.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    readers::environment,
    support::{program, root, stderr},
};

/// Returns the fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/quickstart.md")).unwrap();
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| Some(block.strip_prefix(language)?.strip_prefix('\n')?.to_owned())).collect()
}

/// Runs a command that must succeed, and returns its stdout.
fn said(output: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what} failed:\n{}{said}", stderr(output));
    said
}

fn python(text: &str, folder: &Path) -> String {
    let mut python = Command::new(environment("readers").join("bin/python"));
    said(&python.args(["-I", "-c", text]).current_dir(folder).output().unwrap(), text)
}

/// Runs a command of the page in a shell whose `PATH` has the tested program.
fn shell(command: &str, folder: &Path) -> String {
    let program = program();
    let beside = Path::new(program.get_program()).parent().unwrap().to_str().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).env("PATH", format!("{beside}:{}", std::env::var("PATH").unwrap()));
    for (name, _) in program.get_envs() {
        shell.env_remove(name);
    }
    said(&shell.current_dir(folder).output().unwrap(), command)
}

#[test]
fn the_page_runs_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The page works in a clone of the repository. The test leaves no files in it.
    for shared in ["data", "models"] {
        std::os::unix::fs::symlink(root().join(shared), folder.join(shared)).unwrap();
    }
    let [images, training] = blocks("python").try_into().unwrap();
    python(&images, folder);
    let [pipeline] = blocks("toml").try_into().unwrap();
    fs::write(folder.join("quickstart.toml"), pipeline).unwrap();

    let commands: [String; 5] = blocks("sh").try_into().unwrap();
    let [check, plan, _, kept, verify] = commands.map(|command| shell(&command, folder));
    assert!(check.contains("\n`quickstart` is sound"), "{check}");
    assert!(plan.contains("hard_samples  run"), "{plan}");
    for class in ["eight", "five", "nine"] {
        assert!(kept.contains(class), "{kept}");
    }
    assert!(verify.starts_with("clean"), "{verify}");

    let sheet = image::open(folder.join("lake/quickstart/contact_sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (4 + 4 * 68, 4 + 12 * 68));

    // Each class is its folder's name. Classes with few images are hard.
    let asked = shell(
        "discl-pipe sql quickstart.toml --format json \"SELECT class_name, count(*) AS n FROM hard_samples GROUP BY 1 ORDER BY 1\"",
        folder,
    );
    let hard: Value = serde_json::from_str(&asked).unwrap();
    assert_eq!(
        hard,
        serde_json::json!([
            { "class_name": "eight", "n": 3 }, { "class_name": "five", "n": 5 }, { "class_name": "nine", "n": 4 },
        ])
    );

    let epochs = python(&training, folder);
    assert_eq!(epochs.lines().count(), 10, "{epochs}");
    for (epoch, line) in epochs.lines().enumerate() {
        assert!(line.starts_with(&format!("{epoch} ")), "{epochs}");
        assert_eq!(line.contains("synthetic"), epoch < 9, "{line}");
    }
}
