//! `verify --repair`: what is damaged is named, taken out of the tables, and made again by a run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    foreign::{complete, copy, touch},
    s3::{Bucket, request},
    support::{Workspace, contents, skipped, stderr},
};

/// What happens to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Gone,
    Empty,
    Torn,
    Zeros,
    Flipped,
}

use Damage::{Empty, Flipped, Gone, Torn, Zeros};

fn damage(file: &Path, damage: Damage) {
    let mut bytes = fs::read(file).unwrap();
    match damage {
        Gone => return fs::remove_file(file).unwrap(),
        Empty => bytes.clear(),
        Torn => bytes.truncate(bytes.len() / 2),
        Zeros => bytes.fill(0),
        Flipped => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
    }
    fs::write(file, bytes).unwrap();
}

fn folder(workspace: &Workspace, table: &str) -> PathBuf {
    workspace.lake().join("digits_lt").join(table)
}

/// Returns the names of the files in a folder that end like this, in order.
fn named(folder: &Path, end: &str) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(end)).collect();
    names.sort();
    names
}

/// Returns the names of the data files that the latest version of a table has.
fn live(folder: &Path) -> BTreeSet<String> {
    let log = folder.join("_delta_log");
    let mut live = BTreeSet::new();
    for entry in named(&log, ".json") {
        for line in fs::read_to_string(log.join(entry)).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            let path = |kind: &str| action[kind]["path"].as_str().map(str::to_owned);
            live.extend(path("add"));
            if let Some(removed) = path("remove") {
                live.remove(&removed);
            }
        }
    }
    live
}

/// Damages the first data file of a table, and returns its name.
fn damage_data(workspace: &Workspace, table: &str, what: Damage) -> String {
    let folder = folder(workspace, table);
    let name = live(&folder).pop_first().unwrap();
    damage(&folder.join(&name), what);
    name
}

/// Damages an entry of the log of a table, counted from the end, and returns its name.
fn damage_entry(workspace: &Workspace, table: &str, from_end: usize, what: Damage) -> String {
    let log = folder(workspace, table).join("_delta_log");
    let mut names = named(&log, "0.json");
    names.extend((1..10).flat_map(|digit| named(&log, &format!("{digit}.json"))));
    names.sort();
    let name = names[names.len() - 1 - from_end].clone();
    damage(&log.join(&name), what);
    name
}

/// Runs a command that ends with `code`, and returns its stdout.
fn ended(workspace: &Workspace, arguments: &[&str], code: i32) -> String {
    let output = workspace.command("verify", arguments).output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{said}", stderr(&output));
    said
}

/// Returns the lines that name the table and the file.
fn lines<'a>(said: &'a str, table: &str, file: &str) -> Vec<&'a str> {
    said.lines().filter(|line| line.starts_with(&format!("{table}: ")) && line.contains(file)).collect()
}

fn assert_named(said: &str, named: &[(&str, String)]) {
    for (table, file) in named {
        assert!(!lines(said, table, file).is_empty(), "{table}/{file} is not named:\n{said}");
    }
}

/// `verify` names the files. A dry run says what a repair does, and changes nothing; the repair does it, and deletes
/// nothing. Then a run makes again what is missing, and the lake is as after a quiet run.
fn assert_repaired(workspace: &Workspace, named: &[(&str, String)]) {
    let verify = workspace.command("verify", &[]).output().unwrap();
    assert_eq!(verify.status.code(), Some(1), "{}", stderr(&verify));
    assert_named(&String::from_utf8_lossy(&verify.stdout), named);
    assert!(stderr(&verify).contains("--repair --dry-run` shows what can be repaired"), "{}", stderr(&verify));
    let before = contents(&workspace.lake());
    let planned = ended(workspace, &["--repair", "--dry-run"], 1);
    assert_named(&planned, named);
    assert!(contents(&workspace.lake()) == before, "a dry run has changed something:\n{planned}");
    let done = ended(workspace, &["--repair"], 0);
    let (plan, last) = planned.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(last, "a dry run: nothing was changed");
    assert!(done.starts_with(plan), "planned:\n{planned}\ndone:\n{done}");
    let after = contents(&workspace.lake());
    for (name, bytes) in &before {
        let aside = after.get(&format!("{name}.corrupt"));
        let is_kept = after.get(name).or(aside) == Some(bytes) || aside == Some(bytes) || bytes.is_empty();
        assert!(is_kept, "{name} was deleted or changed");
    }
    assert_sound(workspace);
}

fn assert_sound(workspace: &Workspace) {
    workspace.run();
    assert_eq!(ended(workspace, &["--deep"], 0), "clean: every file is intact, no row is missing or duplicated\n");
    workspace.assert_holds(&complete().1);
    let again = skipped(&workspace.run());
    assert!(again.values().all(|skipped| *skipped), "{again:?}");
    assert_eq!(ended(workspace, &["--repair"], 0), "nothing to repair\n");
}

#[test]
fn damaged_data_files_are_made_again() {
    let tables = ["pixels", "images", "hard_samples", "candidates", "spectrum", "scores", "kept", "manifest", "ledger"];
    let kinds = [Gone, Torn, Flipped, Empty, Zeros];
    // So that tables of both kinds have each.
    for shift in [0, 2, 3] {
        let workspace = copy();
        let named: Vec<(&str, String)> = (shift..)
            .zip(tables)
            .map(|(number, table)| (table, damage_data(&workspace, table, kinds[number % kinds.len()])))
            .collect();
        assert_repaired(&workspace, &named);
    }
}

#[test]
fn damaged_last_entries_are_moved_aside() {
    let tables = ["pixels", "images", "candidates", "spectrum", "scores", "kept", "manifest", "ledger"];
    let kinds = [Empty, Zeros, Torn];
    for shift in [0, 1] {
        let workspace = copy();
        let mut named = Vec::new();
        for (number, table) in (shift..).zip(tables) {
            named.push((table, damage_entry(&workspace, table, 0, kinds[number % kinds.len()])));
        }
        // The last two, and all: the table was never written then. Such a table is not even part of the pipeline yet.
        named.push(("spectrum", damage_entry(&workspace, "spectrum", 1, kinds[shift])));
        named.push(("schedule", damage_entry(&workspace, "schedule", 0, kinds[shift])));
        named.push(("schedule", damage_entry(&workspace, "schedule", 1, kinds[shift])));
        let log = folder(&workspace, "feedback").join("_delta_log");
        fs::create_dir_all(&log).unwrap();
        fs::write(log.join("00000000000000000000.json"), ["", "\0\0\0", "{\"commit"][shift]).unwrap();
        named.push(("feedback", "00000000000000000000.json".to_owned()));
        assert_repaired(&workspace, &named);
    }
}

/// A checkpoint and its hint only repeat what the entries say.
#[test]
fn damaged_checkpoints_and_hints_are_moved_aside() {
    let tables = ["pixels", "images", "spectrum", "scores", "kept", "manifest"];
    let kinds = [("checkpoint", Gone), ("checkpoint", Empty), ("checkpoint", Zeros), ("checkpoint", Torn)];
    let kinds: Vec<_> = kinds.into_iter().chain([("hint", Torn), ("hint", Empty)]).collect();
    for shift in [0, 3] {
        let workspace = copy();
        let mut named = Vec::new();
        for (number, table) in (shift..).zip(tables) {
            touch(&workspace, "checkpoint", table, &[]);
            let log = folder(&workspace, table).join("_delta_log");
            let checkpoint = self::named(&log, ".checkpoint.parquet").pop().unwrap();
            let (what, kind) = kinds[number % kinds.len()];
            let is_hint = what == "hint" || matches!(kind, Gone);
            named.push((table, if is_hint { "_last_checkpoint".to_owned() } else { checkpoint.clone() }));
            damage(&log.join(if what == "hint" { "_last_checkpoint".to_owned() } else { checkpoint }), kind);
        }
        assert_repaired(&workspace, &named);
    }
}

/// A table, and what damages its log and returns the name of the file.
type Case<'a> = (&'a str, &'a dyn Fn(&Workspace) -> String);

/// A checkpoint replaces the entries before it, so nobody misses them; but then the log is not whole without it.
#[test]
fn a_log_that_is_not_whole_is_left_and_the_way_out_is_named() {
    let cleaned = |workspace: &Workspace| {
        touch(workspace, "checkpoint", "scores", &[]);
        let log = folder(workspace, "scores").join("_delta_log");
        for name in named(&log, ".json") {
            fs::remove_file(log.join(name)).unwrap();
        }
        named(&log, ".checkpoint.parquet").pop().unwrap()
    };
    let whole = copy();
    cleaned(&whole);
    assert_sound(&whole);
    let cases: [Case<'_>; 4] = [
        ("spectrum", &|workspace| damage_entry(workspace, "spectrum", 2, Torn)),
        ("spectrum", &|workspace| damage_entry(workspace, "spectrum", 3, Gone)),
        ("kept", &|workspace| damage_entry(workspace, "kept", 1, Empty)),
        ("scores", &|workspace| {
            let checkpoint = cleaned(workspace);
            damage(&folder(workspace, "scores").join("_delta_log").join(&checkpoint), Torn);
            checkpoint
        }),
    ];
    for (table, damage) in cases {
        let workspace = copy();
        let file = damage(&workspace);
        // Another table is repaired all the same.
        let other = damage_data(&workspace, "manifest", Flipped);
        let found = ended(&workspace, &[], 1);
        assert_named(&found, &[(table, file.clone()), ("manifest", other.clone())]);
        let before = contents(&folder(&workspace, table));
        let done = ended(&workspace, &["--repair"], 1);
        assert_named(&done, &[(table, file), ("manifest", other.clone())]);
        let remedy = "not repaired: nobody can tell what the table holds; restore the file, or remove `file://";
        assert!(done.contains(remedy) && done.contains("the next `run` makes its rows again"), "{done}");
        assert!(contents(&folder(&workspace, table)) == before, "{done}");
        assert_eq!(lines(&ended(&workspace, &[], 1), "manifest", &other), Vec::<&str>::new());
        // What its lost entries name may still be needed.
        let collected = workspace.command("gc", &["--older-than", "0", "--apply"]).output().unwrap();
        assert_eq!(collected.status.code(), Some(1), "{}", stderr(&collected));
        assert!(contents(&folder(&workspace, table)) == before);
        fs::remove_dir_all(folder(&workspace, table)).unwrap();
        assert_sound(&workspace);
    }
}

/// Readers take an empty entry for a commit that did nothing, so rows are missing, or there are those of two versions.
#[test]
fn an_empty_entry_in_the_middle_is_made_good() {
    let workspace = copy();
    let named: Vec<(&str, String)> = [("spectrum", 2), ("scores", 2), ("candidates", 1), ("ledger", 3)]
        .map(|(table, from_end)| (table, damage_entry(&workspace, table, from_end, Empty)))
        .into();
    assert_repaired(&workspace, &named);
}

/// A row that is neither in its table nor rejected is missing, whoever lost it.
#[test]
fn lost_rejects_are_tried_again() {
    for what in [Gone, Zeros] {
        let workspace = copy();
        let sample = workspace.query("SELECT sample_id FROM kept ORDER BY sample_id LIMIT 1");
        touch(&workspace, "reject", "", &["spectrum", sample[0]["sample_id"].as_str().unwrap()]);
        workspace.run();
        assert_eq!(workspace.number("SELECT count(*) FROM rejects"), 1.0);
        // Another program has written the file, so its name has no digest.
        let file = damage_data(&workspace, "rejects", what);
        assert_repaired(&workspace, &[("rejects", file)]);
    }
}

/// Rows that differ without any damaged file: a foreign commit that hides what it does.
#[test]
fn a_mark_that_is_not_true_is_void() {
    let workspace = copy();
    for (table, keep) in [("kept", 1), ("spectrum", 1)] {
        let log = folder(&workspace, table).join("_delta_log");
        let entries = named(&log, ".json");
        let entry = log.join(&entries[entries.len() - 1 - keep]);
        let without: Vec<String> = fs::read_to_string(&entry)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with("{\"add\""))
            .map(str::to_owned)
            .collect();
        fs::write(&entry, without.join("\n")).unwrap();
    }
    let found = ended(&workspace, &[], 1);
    assert!(
        found.contains("a row that its query returns is missing") || found.contains("neither in the table"),
        "{found}"
    );
    let done = ended(&workspace, &["--repair"], 0);
    assert!(done.contains("its step runs again"), "{done}");
    assert_sound(&workspace);
}

/// A store has no renames, and no directories.
#[test]
fn a_lake_in_s3_is_repaired_through_faults() {
    let (bucket, local) = (Bucket::new("repairs"), copy());
    let mut named = vec![
        ("spectrum", damage_data(&local, "spectrum", Torn)),
        ("kept", damage_data(&local, "kept", Gone)),
        ("scores", damage_entry(&local, "scores", 0, Empty)),
        ("manifest", damage_entry(&local, "manifest", 0, Torn)),
    ];
    touch(&local, "checkpoint", "pixels", &[]);
    let log = folder(&local, "pixels").join("_delta_log");
    named.push(("pixels", self::named(&log, ".checkpoint.parquet").remove(0)));
    damage(&log.join(&named[4].1), Zeros);
    for (name, bytes) in contents(&local.lake()) {
        request("PUT", &format!("/repairs/lake/{name}"), &bytes);
    }
    let workspace = bucket.workspace();
    assert_named(&ended(&workspace, &[], 1), &named);
    assert_named(&ended(&workspace, &["--repair", "--dry-run"], 1), &named);
    assert_named(&ended(&workspace, &[], 1), &named);
    bucket.faults("rate=0.2&seed=5");
    assert_named(&ended(&workspace, &["--repair"], 0), &named);
    bucket.faults("");
    assert_sound(&workspace);
    let gone = workspace.ok("gc", &["--older-than", "0", "--apply"]);
    assert!(
        named.iter().skip(2).all(|(table, file)| gone.contains(&format!("{table}/_delta_log/{file}.corrupt"))),
        "{gone}"
    );
    assert_sound(&workspace);
}

#[test]
fn what_is_done_is_in_the_json_too() {
    let workspace = copy();
    let file = damage_data(&workspace, "kept", Gone);
    let output = workspace.command("verify", &["--repair", "--dry-run", "--format", "json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["dry_run"], &said["repairs"][0]["file"]), (&Value::from(true), &Value::from(file)), "{said}");
    assert_eq!(said["repairs"][0]["left"], false);
    let alone = workspace.command("verify", &["--dry-run"]).output().unwrap();
    assert_eq!(alone.status.code(), Some(2), "{}", stderr(&alone));
}
