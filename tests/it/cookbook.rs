//! The recipes of docs/cookbook.md, extracted from the page. Each runs unchanged and does what the page claims.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    readers::environment,
    support::{Workspace, root, skipped, stderr},
};

/// A fenced block of the page.
struct Block {
    language: String,
    text: String,
}

impl Block {
    /// The path in `sql_dir`, if the block is a file.
    fn file(&self) -> Option<&str> {
        self.text.lines().next()?.strip_prefix("-- file: ").filter(|_| self.language == "sql")
    }

    fn is_query(&self) -> bool {
        self.language == "sql" && self.text.starts_with("-- query\n")
    }

    /// The columns of a result that the page shows: the head of a table, or the keys of an object.
    fn columns(&self) -> BTreeSet<String> {
        match self.language.as_str() {
            "json" => keys(&serde_json::from_str(&self.text).unwrap()).collect(),
            _ => {
                let head = self.text.lines().nth(1).unwrap_or_default();
                head.split('|').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
            }
        }
    }
}

fn keys(row: &Value) -> impl Iterator<Item = String> {
    row.as_object().unwrap().keys().cloned()
}

/// The section below a heading that begins with a number.
struct Recipe {
    number: usize,
    blocks: Vec<Block>,
}

impl Recipe {
    /// The last table that the recipe needs. Manifests take longer than everything before them.
    fn last_table(&self) -> &'static str {
        let schedules = self.blocks.iter().filter_map(Block::file).any(|name| name.starts_with("schedule/"));
        if schedules { "manifest" } else { "kept" }
    }
}

/// Returns the recipes of the page, in order.
fn recipes() -> Vec<Recipe> {
    let page = fs::read_to_string(root().join("docs/cookbook.md")).unwrap();
    let sections = page.split("\n## ").skip(1);
    let numbered = sections.filter_map(|section| Some((section.split_once(". ")?.0.parse().ok()?, section)));
    numbered.map(|(number, section)| Recipe { number, blocks: blocks(section) }).collect()
}

fn blocks(section: &str) -> Vec<Block> {
    let fenced = section.split("```").skip(1).step_by(2);
    fenced
        .map(|block| {
            let (language, text) = block.split_once('\n').unwrap();
            Block { language: language.to_owned(), text: text.to_owned() }
        })
        .collect()
}

/// Runs the small pipeline once, with enough images to choose from.
fn base() -> Workspace {
    let mut workspace = Workspace::small();
    workspace.edit("spectrum.seeds=[10,20,30]");
    workspace.edit("spectrum.timesteps=10");
    workspace.run();
    workspace
}

/// Copies the lake, and adds the files and the TOML of a recipe. Nothing is run yet.
fn prepared(base: &Workspace, recipe: &Recipe) -> Workspace {
    let mut workspace = Workspace::small();
    workspace.set.clone_from(&base.set);
    copy(&base.lake(), &workspace.lake());
    let mut pipeline: toml::Table = fs::read_to_string(&base.pipeline).unwrap().parse().unwrap();
    let sql = workspace.path("my_sql");
    fs::create_dir(&sql).unwrap();
    pipeline.insert("sql_dir".into(), sql.to_str().unwrap().into());
    for block in &recipe.blocks {
        if let Some(name) = block.file() {
            fs::create_dir_all(sql.join(name).parent().unwrap()).unwrap();
            fs::write(sql.join(name), &block.text).unwrap();
        }
        if block.language == "toml" {
            let lines: toml::Table = block.text.parse().unwrap();
            // The keys of the recipe take precedence over the test's own edits.
            workspace.set.retain(|edit| !names(&lines, edit.split('=').next().unwrap()));
            merge(&mut pipeline, lines);
        }
    }
    workspace.pipeline = workspace.path("pipeline.toml");
    fs::write(&workspace.pipeline, toml::to_string(&pipeline).unwrap()).unwrap();
    workspace
}

/// Returns whether the table has the key `section.name`.
fn names(table: &toml::Table, key: &str) -> bool {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    table.get(section).and_then(toml::Value::as_table).is_some_and(|section| section.contains_key(name))
}

/// Merges as the page describes: replaces keys of the same name, and appends steps and expectations.
fn merge(into: &mut toml::Table, lines: toml::Table) {
    for (key, value) in lines {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (Some(toml::Value::Array(old)), toml::Value::Array(new)) => old.extend(new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, target) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Runs a query of the page, with the `--set` that its comment names.
fn ask(workspace: &Workspace, query: &Block) -> Vec<Value> {
    let file = workspace.path("query.sql");
    fs::write(&file, &query.text).unwrap();
    let mut arguments = vec!["-f", file.to_str().unwrap()];
    for comment in query.text.lines().filter(|line| line.starts_with("-- discl-pipe")) {
        arguments.extend(comment.split(' ').skip_while(|word| *word != "--set"));
    }
    let rows = workspace.json("sql", &arguments).as_array().unwrap().clone();
    assert!(!rows.is_empty(), "no row: {}", query.text);
    rows
}

/// Runs a recipe's queries, and asserts that the results have the columns that the page shows. Queries before the
/// recipe's files run on the original lake, the others on the lake that the recipe has changed.
fn answers(base: &Workspace, edited: &Workspace, recipe: &Recipe) -> Vec<Vec<Value>> {
    let mut answers = Vec::new();
    let mut workspace = base;
    for (place, block) in recipe.blocks.iter().enumerate() {
        if block.file().is_some() || block.language == "toml" {
            workspace = edited;
        }
        if block.is_query() {
            let rows = ask(workspace, block);
            let found: BTreeSet<String> = rows.iter().flat_map(keys).collect();
            let shown = recipe.blocks.get(place + 1).map(Block::columns).unwrap_or_default();
            assert_eq!(found, shown, "the page shows other columns than {}", block.text);
            answers.push(rows);
        }
    }
    answers
}

/// Sums a column.
fn sum(rows: &[Value], column: &str) -> i64 {
    rows.iter().map(|row| row[column].as_i64().unwrap_or_else(|| panic!("`{column}` of {row}"))).sum()
}

/// Asserts that the query returns no row.
fn none(workspace: &Workspace, query: &str) {
    assert_eq!(workspace.query(query), Vec::<Value>::new(), "{query}");
}

fn count(workspace: &Workspace, from: &str) -> i64 {
    workspace.number(&format!("SELECT count(*) FROM {from}")) as i64
}

/// Asserts that an expectation makes the run fail.
fn stops(workspace: &Workspace, edit: &str, expectation: &str) {
    let output = workspace.command("run", &["--until", "kept", "--set", edit]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains(expectation), "{}", stderr(&output));
}

#[test]
fn every_block_of_the_page_runs_and_does_what_it_says() {
    let base = base();
    let recipes = recipes();
    assert_eq!(recipes.iter().map(|recipe| recipe.number).collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
    for recipe in &recipes {
        for block in recipe.blocks.iter().filter(|block| block.language == "sql") {
            assert!(block.file().is_some() || block.is_query(), "neither a file nor a query:\n{}", block.text);
        }
        let edited = prepared(&base, recipe);
        if recipe.blocks.iter().any(|block| block.language == "toml") {
            edited.json("run", &["--until", recipe.last_table()]);
            none(&edited, "SELECT 1 FROM kept GROUP BY source_id, image_guidance, seed HAVING count(*) > 1");
        }
        let answers = answers(&base, &edited, recipe);
        let check = [
            best_of_each,
            no_twins,
            filled,
            thresholds,
            never_empty,
            better_part,
            no_copies,
            lineage,
            attempts,
            two_levels,
            versions,
        ][recipe.number - 1];
        check(&base, &edited, recipe, &answers);
    }
}

type Answers = [Vec<Value>];

fn best_of_each(base: &Workspace, edited: &Workspace, _: &Recipe, _: &Answers) {
    assert_eq!(
        edited.number("SELECT max(n) FROM (SELECT count(*) AS n FROM kept GROUP BY label, image_guidance)"),
        3.0
    );
    assert!(count(edited, "kept") < count(base, "kept"));
    // No better image was left out.
    none(
        edited,
        "SELECT c.sample_id FROM candidates c JOIN scores s ON s.score_id = c.score_id
         JOIN (SELECT label, image_guidance, count(*) AS n, min(text_similarity) AS worst FROM kept GROUP BY 1, 2) k
             ON k.label = c.label AND k.image_guidance = c.image_guidance
         WHERE s.text_similarity >= $min_text_similarity AND (s.text_similarity > k.worst OR k.n < $best)
             AND c.sample_id NOT IN (SELECT sample_id FROM kept)",
    );
}

fn no_twins(_: &Workspace, edited: &Workspace, _: &Recipe, answers: &Answers) {
    assert!(sum(&answers[0], "kept") < sum(&answers[0], "passed"), "nothing was dropped: {:?}", answers[0]);
    // Embeddings are recomputed here, of the kept images and of the dropped ones.
    let images = "WITH made AS (
        SELECT c.sample_id, c.label, c.sample_id IN (SELECT sample_id FROM kept) AS kept, s.text_similarity, e.embedding
        FROM candidates c
        JOIN scores s ON s.score_id = c.score_id
        JOIN (SELECT sample_id, clip_image(image) AS embedding FROM spectrum) e ON e.sample_id = c.sample_id
        WHERE s.text_similarity >= $min_text_similarity)";
    none(
        edited,
        &format!(
            "{images} SELECT a.sample_id FROM made a JOIN made b ON b.label = a.label AND b.sample_id < a.sample_id
             WHERE a.kept AND b.kept AND cosine_similarity(a.embedding, b.embedding) >= 0.951"
        ),
    );
    none(
        edited,
        &format!(
            "{images} SELECT a.sample_id FROM made a WHERE NOT a.kept AND NOT EXISTS (
                 SELECT 1 FROM made b WHERE b.label = a.label AND b.sample_id <> a.sample_id
                     AND b.text_similarity >= a.text_similarity
                     AND cosine_similarity(a.embedding, b.embedding) >= 0.949)"
        ),
    );
    assert!(
        skipped(&edited.json("run", &["--until", "kept"])).values().all(|&skipped| skipped),
        "embeddings are made once"
    );
}

fn filled(_: &Workspace, edited: &Workspace, _: &Recipe, answers: &Answers) {
    for row in &answers[0] {
        assert_eq!(row["together"], 20, "{row}");
    }
    none(
        edited,
        "SELECT 1 FROM kept GROUP BY label HAVING count(DISTINCT image_guidance) < array_length($image_guidance)",
    );
    stops(edited, "parameters.class_size=1000", "every hard class reaches its size");
}

/// A run keeps as many images as the query of the page counts.
fn thresholds(base: &Workspace, edited: &Workspace, _: &Recipe, answers: &Answers) {
    let rows = &answers[0];
    assert_eq!(sum(rows, "slots"), 12 * 3 * 3);
    assert!(sum(rows, "at_55") > sum(rows, "at_58"), "{rows:?}");
    let kept = |workspace: &Workspace| {
        workspace.query("SELECT image_guidance, count(*) AS kept FROM kept GROUP BY 1 ORDER BY 1")
    };
    let foretold = |column: &str| -> Vec<Value> {
        let rows =
            rows.iter().map(|row| serde_json::json!({ "image_guidance": row["image_guidance"], "kept": row[column] }));
        rows.collect()
    };
    assert_eq!(kept(base), foretold("at_58"));
    edited.json("run", &["--until", "kept", "--set", "filter.min_text_similarity=0.55"]);
    assert_eq!(kept(edited), foretold("at_55"));
}

fn never_empty(_: &Workspace, edited: &Workspace, _: &Recipe, answers: &Answers) {
    let emptied: BTreeSet<&str> = answers[0].iter().map(|row| row["class_name"].as_str().unwrap()).collect();
    for row in &answers[1] {
        let (kept, below) = (row["kept"].as_i64().unwrap(), row["below"].as_i64().unwrap());
        let expected = emptied.contains(row["class_name"].as_str().unwrap());
        assert_eq!((below > 0, below == 0 || (below == 3 && kept == 3)), (expected, true), "{row}");
    }
    // Every image that passes is kept, and no better image of an emptied class is left out.
    none(
        edited,
        "SELECT c.sample_id FROM candidates c JOIN scores s ON s.score_id = c.score_id
         JOIN (SELECT label, min(text_similarity) AS worst FROM kept GROUP BY 1) k ON k.label = c.label
         WHERE (s.text_similarity >= $min_text_similarity OR s.text_similarity > k.worst)
             AND c.sample_id NOT IN (SELECT sample_id FROM kept)",
    );
    stops(edited, "parameters.at_least=0", "every hard class kept something");
}

fn better_part(_: &Workspace, edited: &Workspace, _: &Recipe, _: &Answers) {
    none(
        edited,
        "SELECT c.label FROM candidates c LEFT JOIN kept k ON k.sample_id = c.sample_id
         JOIN scores s ON s.score_id = c.score_id
         GROUP BY c.label, c.image_guidance
         HAVING count(k.sample_id) <> (count(*) + 1) / 2
             OR min(k.text_similarity) < max(CASE WHEN k.sample_id IS NULL THEN s.text_similarity END)",
    );
    assert_eq!(edited.number("SELECT max(attempt) FROM candidates"), 0.0);
}

fn no_copies(base: &Workspace, edited: &Workspace, _: &Recipe, _: &Answers) {
    let nearest = "SELECT max(image_similarity) FROM kept";
    assert!(edited.number(nearest) < 0.97 && base.number(nearest) >= 0.97);
    let near = count(base, "kept WHERE image_similarity < 0.97");
    assert_eq!(count(edited, "kept"), near);
    assert!(near > 0);
}

fn lineage(base: &Workspace, _: &Workspace, _: &Recipe, answers: &Answers) {
    let first =
        base.query("SELECT sample_id FROM manifest WHERE origin = 'synthetic' ORDER BY epoch, position LIMIT 1");
    let row = &answers[0][0];
    assert_eq!(row["sample_id"], first[0]["sample_id"]);
    assert_eq!(row["prompt"], format!("a photo of {}", row["class_name"].as_str().unwrap()));
    assert_eq!(answers[1][0]["sample_id"], row["sample_id"]);
    assert_eq!(answers[1][0]["difference"], 0);
}

fn attempts(base: &Workspace, edited: &Workspace, _: &Recipe, answers: &Answers) {
    let kept = count(base, "kept");
    let (attempts, levels) = (&answers[0], &answers[1]);
    assert_eq!((sum(attempts, "passed"), attempts.len()), (kept, 2));
    assert_eq!(attempts[1]["kept_so_far"], kept);
    assert_eq!(sum(attempts, "evaluations"), base.number("SELECT sum(unet_evaluations) FROM ledger") as i64);
    assert_eq!(sum(levels, "first_attempts"), attempts[0]["made"].as_i64().unwrap());
    stops(edited, "parameters.least_percent=101", "first attempts pass often enough at every level");
}

fn two_levels(_: &Workspace, edited: &Workspace, _: &Recipe, _: &Answers) {
    let epochs = edited.query(
        "SELECT epoch, array_agg(image_guidance ORDER BY image_guidance) AS levels FROM schedule GROUP BY epoch ORDER BY epoch",
    );
    let levels: Vec<String> = epochs.iter().map(|row| row["levels"].to_string()).collect();
    assert_eq!(levels, ["[10,50]", "[10,50]", "[50,90]", "[50,90]", "[100]"]);
    let trained = edited.query(
        "SELECT epoch, array_agg(DISTINCT image_guidance ORDER BY image_guidance) AS levels FROM manifest
         WHERE origin = 'synthetic' GROUP BY epoch ORDER BY epoch",
    );
    assert_eq!(trained, epochs[..4]);
    assert!(edited.ok("verify", &[]).starts_with("clean"));
}

/// Runs the Python of the page next to a lake in which recipe 1 has replaced `kept`.
fn versions(base: &Workspace, _: &Workspace, recipe: &Recipe, _: &Answers) {
    let edited = prepared(base, &recipes()[0]);
    edited.json("run", &["--until", "kept"]);
    let program = recipe.blocks.iter().find(|block| block.language == "python").unwrap();
    let mut python = Command::new(environment("readers").join("bin/python"));
    let output = python.args(["-I", "-c", &program.text]).current_dir(edited.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", stderr(&output));
    let gone: i64 =
        said.lines().next().unwrap().split([',', ')']).filter_map(|word| word.trim().parse::<i64>().ok()).sum();
    assert_eq!(gone, count(base, "kept") - count(&edited, "kept"), "{said}");
    assert!(said.ends_with("new []\n"), "{said}");
}
