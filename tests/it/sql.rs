//! SQL functions and golden queries, run by `discl-pipe sql`.

use serde_json::{Value, json};

use crate::support::{Workspace, stderr};

/// Runs the query of the schedule with other epochs and levels, without the steps before it.
fn schedule(epochs: u32, curriculum_epochs: u32, levels: &str) -> Vec<Value> {
    let mut workspace = Workspace::full();
    workspace.edit(&format!("curriculum.epochs={epochs}"));
    workspace.edit(&format!("curriculum.curriculum_epochs={curriculum_epochs}"));
    workspace.edit(&format!("spectrum.image_guidance={levels}"));
    workspace.json("sql", &["-f", "sql/schedule/diverse_to_specific.sql"]).as_array().unwrap().clone()
}

/// Returns the epochs of each level, in the order of the schedule.
fn shares(mut rows: Vec<Value>) -> Vec<(i64, usize)> {
    rows.sort_by_key(|row| row["epoch"].as_i64());
    let mut shares: Vec<(i64, usize)> = Vec::new();
    for (epoch, row) in rows.iter().enumerate() {
        assert_eq!(row["epoch"].as_i64(), Some(epoch as i64), "epochs are 0, 1, 2, …");
        let level = row["image_guidance"].as_i64().unwrap();
        match shares.last_mut() {
            Some((last, count)) if *last == level => *count += 1,
            _ => shares.push((level, 1)),
        }
    }
    shares
}

#[test]
fn levels_have_equal_shares_and_the_earliest_the_remainder() {
    assert_eq!(shares(schedule(65, 60, "[50,0,30,10]")), [(0, 15), (10, 15), (30, 15), (50, 15), (100, 5)]);
    assert_eq!(
        shares(schedule(65, 60, "[0,10,20,30,40,50,60]")),
        [(0, 9), (10, 9), (20, 9), (30, 9), (40, 8), (50, 8), (60, 8), (100, 5)]
    );
    assert_eq!(shares(schedule(5, 0, "[0,50]")), [(100, 5)]);
    assert_eq!(shares(schedule(5, 5, "[30]")), [(30, 5)]);
    assert_eq!(shares(schedule(3, 2, "[0,10,30]")), [(0, 1), (10, 1), (100, 1)]);
}

#[test]
fn functions_answer() {
    let workspace = Workspace::small();
    workspace.ok("run", &["--until", "images"]);
    let rows = workspace.query(
        "SELECT draw(10, 'k') AS drawn, draw(0, 'k') AS none, digest('a', 1) AS id,
             cosine_similarity([1.0, 0.0], [1.0, 1.0]) AS cosine",
    );
    assert_eq!(rows, [json!({ "drawn": 3, "id": "e9e08b61ceef5f5e3620178fbc138fa8", "cosine": 0.70710677 })]);
    // Images are closer to the text of their class than to that of another.
    let nearer = workspace.number(
        "SELECT avg(CASE WHEN cosine_similarity(e, clip_text('a photo of six'))
                 > cosine_similarity(e, clip_text('a photo of two')) THEN 1.0 ELSE 0.0 END)
         FROM (SELECT clip_image(p.image) AS e FROM pixels p JOIN images i USING (source_id)
               WHERE i.class_name = 'six' AND i.split = 'test')",
    );
    assert!(nearer > 0.95, "{nearer}");
    let info = workspace
        .query("SELECT DISTINCT image_info(image)['width'] AS w, image_info(image)['format'] AS f FROM pixels");
    assert_eq!(info, [json!({ "w": 32, "f": "png" })]);
}

#[test]
fn img2img_answers_in_sql() {
    let workspace = Workspace::small();
    workspace.ok("run", &["--until", "images"]);
    let query = "SELECT source_id, image_info(made)['width'] AS width, image_info(made)['digest'] AS digest FROM (
         SELECT source_id, img2img(image, 'a photo of five', 50, 7) AS made FROM pixels ORDER BY source_id LIMIT 2)
         ORDER BY source_id";
    let rows = workspace.query(query);
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["width"] == 32), "{rows:?}");
    assert_eq!(rows, workspace.query(query), "the same seed gives the same image");
    let whole = workspace.query(
        "SELECT count(*) AS n FROM (SELECT image, img2img(image, 'x', 100, 1) AS made FROM pixels LIMIT 3)
         WHERE image_info(made)['width'] = image_info(image)['width']",
    );
    assert_eq!(whole, [json!({ "n": 3 })]);
}

/// DataFusion evaluates every occurrence of an expression, but an image is generated once.
#[test]
fn images_are_made_once_whatever_the_query_does() {
    let mut workspace = Workspace::small();
    let sql = workspace.path("sql");
    std::fs::create_dir_all(sql.join("spectrum")).unwrap();
    let query = std::fs::read_to_string("sql/spectrum/img2img.sql").unwrap();
    let greedy = query.replace(
        "img2img(p.image, c.prompt, c.image_guidance, c.noise_seed) AS image",
        "CASE WHEN image_info(img2img(p.image, c.prompt, c.image_guidance, c.noise_seed))['width'] > 1
         THEN img2img(p.image, concat(c.prompt, ''), c.image_guidance, c.noise_seed)
         ELSE img2img(p.image, c.prompt, c.image_guidance + 0, c.noise_seed) END AS image",
    );
    assert_ne!(greedy, query);
    std::fs::write(sql.join("spectrum/img2img.sql"), greedy).unwrap();
    workspace.edit(&format!("sql_dir={:?}", sql.to_str().unwrap()));
    let run = workspace.run();
    let asked = workspace.number("SELECT sum(unet_evaluations) FROM candidates");
    assert_eq!(run["engine"]["unet_evaluations"].as_f64(), Some(asked));
}

#[test]
fn nothing_can_be_written_from_sql() {
    let workspace = Workspace::small();
    for query in [
        "CREATE TABLE t AS SELECT 1",
        "DROP TABLE images",
        "INSERT INTO images SELECT * FROM images",
        "COPY (SELECT 1) TO '/tmp/x.parquet'",
        "SET datafusion.execution.batch_size = 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    ] {
        let output = workspace.command("sql", &[query]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{query}: {}", stderr(&output));
    }
    assert!(!workspace.lake().exists());
}

#[test]
fn rows_are_printed_with_their_headings_even_if_there_are_none() {
    let workspace = Workspace::small();
    let empty = workspace.ok("sql", &["SELECT sample_id, attempt FROM kept"]);
    assert!(empty.contains("| sample_id | attempt |"), "{empty}");
    let query = "SELECT * FROM (VALUES (1, 'a,b'), (2, NULL)) AS t(n, s) ORDER BY n";
    assert_eq!(workspace.ok("sql", &[query, "--format", "csv"]), "n,s\n1,\"a,b\"\n2,\n");
    assert_eq!(workspace.ok("sql", &["SELECT 1 AS n LIMIT 0", "--format", "csv"]), "n\n");
    assert_eq!(workspace.query("SELECT 1 AS n LIMIT 0"), Vec::<Value>::new());
}

#[test]
fn unknown_tables_and_wrong_arguments_are_named() {
    let workspace = Workspace::small();
    let said = |query: &str| stderr(&workspace.command("sql", &[query]).output().unwrap());
    assert_eq!(
        said("SELECT * FROM imgaes"),
        "error: query `sql`: there is no table `imgaes`; did you mean `images`?\n"
    );
    let expected = "error: query `sql`: `clip_text`: expected a string, found Int64\n";
    assert_eq!(said("SELECT clip_text(1)"), expected);
}
