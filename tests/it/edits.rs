//! What a change of the pipeline recomputes, and what it keeps.

use std::fmt::Write as _;

use crate::support::{SMALL, Workspace, skipped};

fn evaluations(workspace: &Workspace) -> f64 {
    workspace.number("SELECT coalesce(sum(unet_evaluations), 0) FROM ledger")
}

#[test]
fn a_second_run_does_nothing_and_says_why() {
    let workspace = Workspace::small();
    workspace.run();
    let output = workspace.command("run", &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    for step in ["pixels", "images", "hard_samples", "candidates", "spectrum", "scores", "kept", "schedule", "manifest"]
    {
        assert!(said.contains(&format!("{step}: skipped, it is up to date")), "{said}");
    }
}

#[test]
fn meaning_is_fingerprinted_and_not_text() {
    let mut workspace = Workspace::small();
    workspace.run();
    let mut text = std::fs::read_to_string(&workspace.pipeline).unwrap();
    text = text.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", line.split('#').next().unwrap().replace(" = ", "   =  "));
        text
    });
    // A replacement that differs only in comments, white space and the case of keywords.
    let sql = workspace.path("sql");
    std::fs::create_dir_all(sql.join("kept")).unwrap();
    let query = std::fs::read_to_string("sql/kept/text_similarity.sql").unwrap();
    let query = query.replace("SELECT", "select\n  ").replace("WHERE", "-- why\nwhere");
    std::fs::write(sql.join("kept/text_similarity.sql"), query).unwrap();
    workspace.pipeline = workspace.path("digits_lt.toml");
    std::fs::write(&workspace.pipeline, format!("sql_dir = {sql:?}\n{text}")).unwrap();
    let run = workspace.run();
    assert!(skipped(&run).values().all(|&skipped| skipped), "{run:#}");
}

#[test]
fn a_lower_threshold_runs_the_filter_and_no_model() {
    let mut workspace = Workspace::small();
    workspace.edit("filter.min_text_similarity=0.62");
    workspace.run();
    let (before, kept) = (evaluations(&workspace), workspace.number("SELECT count(*) FROM kept"));
    workspace.edit("filter.min_text_similarity=0.5");
    let run = workspace.run();
    assert_eq!(evaluations(&workspace), before);
    assert!(run["engine"].is_null(), "the diffusion model was loaded");
    assert!(workspace.number("SELECT count(*) FROM kept") > kept);
    assert!(skipped(&run)["pixels"] && skipped(&run)["schedule"]);
    assert!(!skipped(&run)["kept"] && !skipped(&run)["manifest"]);
}

#[test]
fn a_higher_threshold_makes_only_the_attempts_that_it_asks_for() {
    let mut workspace = Workspace::small();
    workspace.edit("filter.min_text_similarity=-1.0");
    workspace.run();
    let first = evaluations(&workspace);
    assert_eq!(workspace.number("SELECT max(attempt) FROM candidates"), 0.0);
    // Above the scores of the worse half.
    let median = workspace.number("SELECT median(text_similarity) FROM scores");
    workspace.edit(&format!("filter.min_text_similarity={median:.6}"));
    workspace.run();
    let further = workspace.number("SELECT sum(unet_evaluations) FROM candidates WHERE attempt > 0");
    assert!(further > 0.0);
    assert_eq!(evaluations(&workspace), first + further);
}

#[test]
fn a_new_seed_makes_only_what_is_new() {
    let mut workspace = Workspace::small();
    workspace.run();
    let before = evaluations(&workspace);
    workspace.edit("spectrum.seeds=[10,11]");
    workspace.run();
    let new = workspace.number("SELECT sum(unet_evaluations) FROM candidates WHERE seed = 11");
    assert_eq!(evaluations(&workspace), before + new);
}

/// After any sequence of edits, the tables equal those of a fresh lake.
#[test]
fn ten_edits_end_where_a_fresh_lake_begins() {
    let edits = [
        "filter.min_text_similarity=0.62",
        "spectrum.seeds=[10,20]",
        "spectrum.image_guidance=[50,90]",
        "filter.max_attempts=3",
        "curriculum.hard_share=0.2",
        "spectrum.guidance_scale=1.0",
        "hard_samples.max_class_count=5",
        "spectrum.seeds=[20]",
        "filter.min_text_similarity=0.5",
        "seed=1",
        "spectrum.guidance_scale=4.0",
        "prompts.filter=\"a photo of a {class}\"",
    ];
    // The order is drawn from a fixed seed, so that a failure is reproducible.
    let mut state = 20_241_017_u64;
    let mut workspace = Workspace::small();
    workspace.run();
    for _ in 0..10 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        workspace.edit(edits[(state >> 33) as usize % edits.len()]);
        workspace.run();
    }
    let mut fresh = Workspace::small();
    fresh.set.clone_from(&workspace.set);
    fresh.run();
    assert!(fresh.set.len() > SMALL.len());
    workspace.assert_equals(&fresh);
    workspace.ok("verify", &[]);
}

/// Custom tables, one inside the retry loop and one after the filter, whose columns change.
#[test]
fn steps_of_the_pipelines_own() {
    let mut workspace = Workspace::small();
    let sql = workspace.path("sql");
    std::fs::create_dir_all(sql.join("mine")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(sql.join("mine").join(name), text).unwrap();
    write("asked.sql", "-- Candidates of each class.\nSELECT class_name, count(*) AS asked FROM candidates GROUP BY 1");
    write(
        "yield.sql",
        "-- What was kept.\nSELECT a.class_name, a.asked, count(k.sample_id) AS kept, array_agg(k.sample_id) AS ids
         FROM asked a LEFT JOIN kept k ON k.class_name = a.class_name GROUP BY a.class_name, a.asked",
    );
    let mut text = format!("sql_dir = {sql:?}\n{}", std::fs::read_to_string(&workspace.pipeline).unwrap());
    text.push_str("\n[[step]]\ntable = \"asked\"\nsql = \"mine/asked.sql\"\n");
    text.push_str("\n[[step]]\ntable = \"yield\"\nsql = \"mine/yield.sql\"\n");
    text.push_str("\n[[expect]]\nname = \"kept is asked for\"\nsql = \"SELECT * FROM yield WHERE kept > asked\"\n");
    workspace.pipeline = workspace.path("own.toml");
    std::fs::write(&workspace.pipeline, text).unwrap();
    workspace.run();
    let candidates = workspace.number("SELECT count(*) FROM candidates");
    assert_eq!(workspace.number("SELECT sum(asked) FROM asked"), candidates);
    assert_eq!(workspace.number("SELECT sum(kept) FROM yield"), workspace.number("SELECT count(*) FROM kept"));
    assert!(skipped(&workspace.run()).values().all(|&skipped| skipped));
    write("yield.sql", "-- In other columns.\nSELECT class_name AS name, cast(asked AS double) / 2 AS half FROM asked");
    workspace.edit("expect=[]");
    let run = workspace.run();
    assert!(skipped(&run)["kept"] && !skipped(&run)["yield"]);
    assert_eq!(workspace.number("SELECT sum(half) FROM yield") * 2.0, candidates);
    workspace.ok("verify", &[]);
}
