//! `docs/reference.md` has every declared key and SQL parameter, in tables that this test writes.
//!
//! After a change of declarations, `INSTA_UPDATE=always cargo test --lib config::` brings the tables up to date. The
//! text around them is written by hand.

use std::{collections::BTreeSet, fmt::Write, path::Path};

use crate::config::{ComputedParameter, Config, DefaultValue, Key, keys};

/// The line before a table, with the section's header, and the kind of data set if not all have its keys.
const BEGIN: &str = "<!-- keys of ";
/// The line before the table of computed parameters.
const BEGIN_COMPUTED: &str = "<!-- computed parameters -->";
const END: &str = "<!-- end -->";

fn page() -> (std::path::PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// The name of a key's table.
fn table_of(key: &Key) -> String {
    let header = if key.header.is_empty() { "the top level" } else { &key.header };
    match key.source_kind {
        Some(kind) => format!("{header}, kind {kind}"),
        None => header.to_owned(),
    }
}

fn key_table(name: &str) -> String {
    let keys: Vec<&Key> = keys().iter().filter(|key| table_of(key) == name).collect();
    assert!(!keys.is_empty(), "docs/reference.md has a table of {name}, which has no keys");
    let with_sql = keys.iter().any(|key| key.parameter.is_some());
    let sql_header = if with_sql { " SQL |" } else { "" };
    let mut out = format!("| key | value | default |{sql_header} description |\n");
    out += if with_sql { "|---|---|---|---|---|\n" } else { "|---|---|---|---|\n" };
    for key in keys {
        let expected = key.expected.strip_prefix("an ").or(key.expected.strip_prefix("a ")).unwrap_or(&key.expected);
        let default = match &key.default {
            DefaultValue::Required => "required".to_owned(),
            DefaultValue::Unset => String::new(),
            DefaultValue::Value(value) => format!("`{value}`"),
            DefaultValue::SameAs(other) => format!("the value of `{other}`"),
        };
        let parameter = key.parameter.map(|name| format!("`${name}`")).unwrap_or_default();
        let name = format!("`{}`", key.name);
        let mut cells = vec![name.as_str(), expected, default.as_str(), parameter.as_str(), key.description.as_str()];
        if !with_sql {
            cells.remove(3);
        }
        let cells = cells.iter().map(|cell| if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") });
        writeln!(out, "|{}", cells.collect::<String>()).unwrap();
    }
    out
}

fn computed_table() -> String {
    let mut out = "| SQL | description |\n|---|---|\n".to_owned();
    for parameter in ComputedParameter::ALL {
        writeln!(out, "| `${}` | {} |", parameter.name(), parameter.description()).unwrap();
    }
    out
}

/// The page with its tables replaced by those of the declarations, and the names of these tables.
fn updated(page: &str) -> (String, BTreeSet<String>) {
    let (mut out, mut tables) = (String::new(), BTreeSet::new());
    let mut in_table = false;
    for line in page.lines() {
        in_table &= line != END;
        if !in_table {
            writeln!(out, "{line}").unwrap();
        }
        let name = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->"));
        if name.is_some() || line == BEGIN_COMPUTED {
            in_table = true;
            out += "\n";
            out += &name.map_or_else(computed_table, key_table);
            out += "\n";
        }
        if let Some(name) = name {
            assert!(tables.insert(name.to_owned()), "docs/reference.md has two tables of {name}");
        }
    }
    assert!(!in_table, "docs/reference.md has a table without its last line, {END}");
    (out, tables)
}

#[test]
fn the_reference_has_every_declared_key_and_no_other() {
    let (path, page) = page();
    let (updated, tables) = updated(&page);
    assert_eq!(tables, keys().iter().map(table_of).collect());
    assert!(page.contains(BEGIN_COMPUTED));
    if page != updated && std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, updated).unwrap();
        return;
    }
    let (old, new) = (page.lines().collect::<BTreeSet<_>>(), updated.lines().collect::<BTreeSet<_>>());
    let differ = new.symmetric_difference(&old).collect::<Vec<_>>();
    assert!(page == updated, "run `INSTA_UPDATE=always cargo test --lib config::`; lines that differ: {differ:#?}");
}

/// An example is a part of a pipeline: only keys of other sections may be missing.
#[test]
fn the_examples_of_the_reference_are_valid() {
    let (_, page) = page();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|example| example.split("```").next().unwrap()).collect();
    assert!(examples.len() > 12, "{} examples", examples.len());
    for example in examples {
        let Err(problems) = Config::parse(example, "example", &[]) else { continue };
        for problem in problems.as_slice() {
            let required = keys().iter().any(|key| key.path() == problem.key && key.default == DefaultValue::Required);
            assert!(required && problem.message.starts_with("missing"), "{problem}\n{example}");
        }
    }
}

#[test]
fn sql_parameters_have_one_name_each() {
    let declared: Vec<&str> = keys().iter().filter_map(|key| key.parameter).collect();
    let computed = ComputedParameter::ALL.map(ComputedParameter::name);
    let all: BTreeSet<&str> = declared.iter().copied().chain(computed).collect();
    assert_eq!(all.len(), declared.len() + computed.len());
    assert_eq!(all.len(), 36);
    let config = super::sound(super::FULL, &[]);
    let values = config.sql_parameters();
    assert_eq!(values.len(), declared.len() + config.parameters.len());
    assert!(declared.iter().all(|name| values.contains_key(*name)));
}
