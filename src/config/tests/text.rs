//! Files that are not TOML, not text, too large, or made to break a parser.

use std::path::Path;

use insta::assert_snapshot;

use super::{FULL, SMALL, refused, wrong};
use crate::config::Config;

#[test]
fn syntax_errors_have_a_line() {
    assert_snapshot!(wrong("seeds = [1,\n\n", &[]), @r"
    x.toml:14: not valid TOML: unclosed array, expected `]`
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("timesteps = 1\ntimesteps = 2\n", &[]), @r"
    x.toml:15: not valid TOML: duplicate key, at `timesteps`
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("[lake]\n", &[]), @r"
    x.toml:14: not valid TOML: duplicate key, at `lake`
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("scheduler = ddim\n", &[]), @r"
    x.toml:14: not valid TOML: string values must be quoted, expected literal string, at `ddim`
    1 problem; nothing was run
    ");
    assert_snapshot!(refused("this is not TOML", &[]), @r"
    x.toml:1: not valid TOML: key with no value, expected `=`
    1 problem; nothing was run
    ");
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("x = {}1{}\n", "[".repeat(40), "]".repeat(40));
    assert_snapshot!(refused(&deep, &[]), @r"
    x.toml:1: sections and lists are nested too deeply; no key needs more than 3 levels
    1 problem; nothing was run
    ");
    assert_snapshot!(refused(&format!("{} = 1", ["a"; 500].join(".")), &[]), @r"
    x.toml: sections and lists are nested too deeply; no key needs more than 3 levels
    1 problem; nothing was run
    ");
    let deepest = format!("{{{} = ", ["a"; 79].join(".")).repeat(70);
    refused(&format!("x = {deepest}1{}", "}".repeat(70)), &[]);
    refused(&format!("x = {}", "[".repeat(500_000)), &[]);
}

#[test]
fn files_that_cannot_be_read_are_one_diagnostic() {
    let folder = std::env::temp_dir().join(format!("config-tests-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let load = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        let shown = Config::load(&path, &[]).err().map(|error| error.to_string());
        shown.unwrap_or_default().replace(&folder.display().to_string(), "TMP")
    };
    assert_eq!(load("sound.toml", SMALL.as_bytes()), "");
    assert_snapshot!(load("bytes.toml", b"a = 1\nb = \"\xff\"\n"), @r"
    TMP/bytes.toml: not valid UTF-8 at line 2
    1 problem; nothing was run
    ");
    assert_snapshot!(load("long.toml", &vec![b'\n'; 1_048_577]), @r"
    TMP/long.toml: larger than 1048576 bytes, the limit of a pipeline file
    1 problem; nothing was run
    ");
    let missing = Config::load(Path::new("no/such.toml"), &[]).unwrap_err();
    assert_snapshot!(missing, @r"
    no/such.toml: no such file
    1 problem; nothing was run
    ");
    let directory = Config::load(&folder, &[]).unwrap_err().to_string();
    assert!(directory.contains("is a directory"), "{directory}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Deterministic numbers (SplitMix64), so that a failure repeats.
fn random(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) % below.max(1) as u64) as usize
}

/// Flips, drops, doubles or cuts at a random place.
fn mutate(bytes: &mut Vec<u8>, state: &mut u64) {
    const INTERESTING: &[u8] = b"[]{}\"'=.,#\n\r\\0_-+e\t\x00\x7f\xc3\xff";
    let at = random(state, bytes.len());
    match random(state, 6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..(at + random(state, 40)).min(bytes.len()))),
        2 => bytes.extend_from_within(at..(at + 60).min(bytes.len())),
        3 => bytes.insert(at, INTERESTING[random(state, INTERESTING.len())]),
        _ if at < bytes.len() => bytes[at] = INTERESTING[random(state, INTERESTING.len())],
        _ => bytes.push(b'['),
    }
}

#[test]
fn no_mutation_of_a_file_or_an_edit_panics() {
    let state = &mut 1;
    let (mut parsed, mut refused) = (0, 0);
    for round in 0..6000 {
        let mut file = if round % 2 == 0 { FULL } else { SMALL }.as_bytes().to_vec();
        let mut edit = b"spectrum.seeds=[1, {a = \"b\"}]".to_vec();
        for _ in 0..=random(state, 4) {
            mutate(&mut file, state);
            mutate(&mut edit, state);
        }
        let edit = [String::from_utf8_lossy(&edit).into_owned()];
        let set = if round % 3 == 0 { &edit[..] } else { &[] };
        match Config::parse(&String::from_utf8_lossy(&file), "fuzz.toml", set) {
            Ok(_) => parsed += 1,
            Err(diagnostics) => {
                let shown = diagnostics.to_string();
                assert_eq!(shown.lines().count(), diagnostics.as_slice().len() + 1, "{shown}");
                refused += 1;
            }
        }
    }
    assert!(parsed > 100 && refused > 100, "{parsed} parsed, {refused} refused");
}

/// None of these may overflow the stack, or take seconds.
#[test]
fn bombs_are_refused_with_short_messages() {
    let long = "k".repeat(1 << 20);
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a = {}", "{a = ".repeat(100_000)),
        format!("a{} = 1", ".a".repeat(100_000)),
        format!("[a{}]", ".a".repeat(100_000)),
        format!("[[a{}]]", ".a".repeat(100_000)),
        format!("{long} = 1"),
        format!("name = \"{long}\""),
        format!("[source.splits]\ntrain = {}", "[\"a\", ".repeat(50_000)),
    ] {
        let problems = Config::parse(&text, "x.toml", &[]).unwrap_err();
        let longest = problems.as_slice().iter().map(|problem| problem.to_string().len()).max().unwrap();
        assert!(problems.as_slice().len() < 20 && longest < 1000, "{longest} bytes");
    }
    let deep = format!("a={}", "[".repeat(100_000));
    assert!(Config::parse("", "x.toml", &[deep, format!("a{}=1", ".a".repeat(100_000))]).is_err());
}

#[test]
fn only_the_first_of_many_problems_are_listed() {
    let keys: String = (0..20_000).map(|key| format!("k{key}=1\n")).collect();
    let problems = Config::parse(&keys, "x.toml", &[]).unwrap_err();
    assert_eq!(problems.as_slice().len(), 1001);
    let shown = problems.to_string();
    assert!(shown.len() < 1 << 20, "{} bytes", shown.len());
    // Nine keys are missing.
    assert!(shown.contains("x.toml: 19009 further problems are not listed\n"), "{}", &shown[shown.len() - 200..]);
    let seeds = format!("[spectrum]\nseeds = [{}]", "-1,".repeat(50_000));
    assert!(Config::parse(&seeds, "x.toml", &[]).unwrap_err().to_string().len() < 1 << 20);
}

#[test]
fn a_file_of_a_million_keys_is_not_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let keys: String = (0..1_000_000).map(|key| format!("k{key}=1\n")).collect();
    std::fs::write(file.path(), keys).unwrap();
    let shown = Config::load(file.path(), &[]).unwrap_err().to_string();
    assert!(shown.contains("larger than 1048576 bytes"), "{shown}");
}
