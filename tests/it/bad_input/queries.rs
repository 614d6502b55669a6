//! Bad queries: replacements, expectations, and statements that reach beyond the lake.

use insta::assert_snapshot;

use super::{at, check, said, shipped, small};
use crate::support::{Workspace, root};

/// Writes a query to the folder `sql` of the workspace, where it replaces the built-in one.
fn replace(workspace: &mut Workspace, name: &str, text: &str) {
    let path = workspace.path("sql").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    workspace.edit(&at(workspace, "sql_dir", "sql"));
}

const FILTER: &str = "kept/text_similarity.sql";

fn built_in(name: &str) -> String {
    std::fs::read_to_string(root().join("sql").join(name)).unwrap()
}

#[test]
fn a_replacement_with_other_columns() {
    let (mut workspace, _guard) = shipped();
    let text = built_in(FILTER).replace(
        "    sample_id, source_id, label, class_name, image_guidance, seed, attempt, prompt, text_similarity",
        "    sample_id, source_id, class_name AS label, class_name, image_guidance, seed, 1 AS more, text_similarity",
    );
    assert_ne!(text, built_in(FILTER));
    replace(&mut workspace, FILTER, &text);
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: query `kept/text_similarity.sql`: column `label` is utf8, expected int64; column `attempt` is missing; unknown column `more`
    hint: the columns of `kept` are (sample_id utf8, source_id utf8, label int64, class_name utf8, image_guidance int64, seed int64, attempt int64, prompt utf8, text_similarity float32, image_similarity float32)
    1 problem; nothing was run
    ");
}

/// The queries that the program reads itself are checked like those of the steps.
#[test]
fn a_replaced_query_of_the_program_with_another_column() {
    for (name, column, other) in [
        ("verify/rows.sql", "rows", "number"),
        ("verify/deep.sql", "problem", "finding"),
        ("feedback/incoming.sql", "feedback_id", "id"),
        ("feedback/problems.sql", "problem", "trouble"),
        ("feedback/awaited.sql", "stale", "old"),
        ("report/levels.sql", "kept", "was_kept"),
        ("report/rate.sql", "seconds", "hours"),
        ("report/forecast.sql", "rows_at_most", "most"),
        ("report/contact_sheet.sql", "image", "photo"),
        ("experiment/samples.sql", "trained", "seen"),
    ] {
        let (mut workspace, _guard) = shipped();
        let text = built_in(name).replacen(&format!("AS {column}"), &format!("AS {other}"), 1);
        assert_ne!(text, built_in(name), "{name}");
        replace(&mut workspace, name, &text);
        let said = check(&mut workspace, &[]);
        assert!(said.starts_with(&format!("exit code 2\nerror: query `{name}`: ")), "{said}");
        assert!(said.contains(&format!("column `{column}`")), "{said}");
        assert!(said.contains("is missing"), "{said}");
    }
}

#[test]
fn a_replacement_of_nothing() {
    let (mut workspace, _guard) = shipped();
    replace(&mut workspace, "kept/text_similarty.sql", &built_in(FILTER));
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: query `kept/text_similarty.sql`: does not replace a built-in query, and the pipeline does not name it
    hint: did you mean `kept/text_similarity.sql`?
    1 problem; nothing was run
    ");
    let (mut workspace, _guard) = shipped();
    let nowhere = at(&workspace, "sql_dir", "nowhere");
    assert_snapshot!(check(&mut workspace, &[&nowhere]), @r"
    exit code 2
    error: `[dir]/nowhere`: cannot read the folder `sql_dir`: No such file or directory (os error 2)
    1 problem; nothing was run
    ");
}

#[test]
fn replacements_that_are_no_query() {
    let texts: [&[u8]; 6] = [
        b"SELEC sample_id FROM candidates",
        b"SELECT sample_id\nFROM candidates\nWHERE (attempt = 1",
        b"DROP TABLE images",
        b"SELECT 1; SELECT 2",
        b"-- nothing yet\n",
        b"SELECT '\xff\xfe'",
    ];
    let (mut workspace, _guard) = shipped();
    replace(&mut workspace, FILTER, "");
    let said = texts.map(|text| {
        std::fs::write(workspace.path("sql").join(FILTER), text).unwrap();
        check(&mut workspace, &[])
    });
    assert_snapshot!(said.join("\n"), @r"
    exit code 2
    error: query `kept/text_similarity.sql`: not valid SQL: Expected: an SQL statement, found: SELEC at Line: 1, Column: 1
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: not valid SQL: Expected: ), found: EOF
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: expected one SELECT that only reads
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: expected one SELECT that only reads
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: expected one SELECT, found nothing
    1 problem; nothing was run

    exit code 2
    error: query `kept/text_similarity.sql`: the file cannot be read: invalid utf-8 sequence of 1 bytes from index 8
    1 problem; nothing was run
    ");
}

/// No query writes or reads a file that the pipeline does not name, neither in a replacement nor at the prompt.
#[test]
fn queries_that_reach_beyond_the_lake() {
    let (mut workspace, _guard) = small();
    let target = workspace.path("out.csv");
    let copy = format!("COPY (SELECT 1) TO '{}' STORED AS CSV", target.display());
    let queries = [
        copy.clone(),
        format!("EXPLAIN ANALYZE {copy}"),
        "CREATE EXTERNAL TABLE passwd STORED AS CSV LOCATION '/etc/passwd'".to_owned(),
        "CREATE TABLE mine AS SELECT 1".to_owned(),
        "SELECT 1 AS one INTO mine".to_owned(),
        "INSERT INTO rejects SELECT * FROM rejects".to_owned(),
        "EXPLAIN ANALYZE INSERT INTO rejects SELECT * FROM rejects".to_owned(),
        "WITH a AS (SELECT 1) INSERT INTO rejects SELECT * FROM rejects".to_owned(),
        "DELETE FROM rejects".to_owned(),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "SELECT * FROM '/etc/passwd'".to_owned(),
        "SELECT * FROM \"/etc/passwd\"".to_owned(),
        "SELECT * FROM 'file:///etc/passwd'".to_owned(),
        format!("SELECT * FROM '{}'", root().join("data/digits_lt/train.parquet").display()),
        "SELECT * FROM read_parquet('data/digits_lt/train.parquet')".to_owned(),
        "SELECT * FROM read_csv('/etc/passwd')".to_owned(),
        "SELECT * FROM parquet_metadata('data/digits_lt/train.parquet')".to_owned(),
    ];
    for query in &queries {
        let said = said(&mut workspace.command("sql", &[query]));
        assert!(said.starts_with("exit code 2\nerror: query `sql`: "), "{query}\n{said}");
    }
    replace(&mut workspace, FILTER, "");
    for query in queries.iter().map(String::as_str).chain(["EXPLAIN SELECT * FROM images", "SHOW TABLES"]) {
        std::fs::write(workspace.path("sql").join(FILTER), query).unwrap();
        let said = check(&mut workspace, &[]);
        assert!(said.starts_with("exit code 2\nerror: query `kept/text_similarity.sql`: "), "{query}\n{said}");
    }
    assert!(!target.exists());
}

#[test]
fn expectations_that_cannot_be_asked() {
    let queries = [
        "SELECT * FROM imagse",
        "SELECT lable FROM images",
        "SELECT blurr(label) FROM images",
        "SELECT * FROM images WHERE label > $labell",
        "DROP TABLE images",
    ];
    let (mut workspace, _guard) = shipped();
    let said =
        queries.map(|sql| check(&mut workspace, &[&format!("expect=[{{name=\"all is well\", sql=\"{sql}\"}}]")]));
    assert_snapshot!(said.join("\n"), @r"
    exit code 2
    error: query `[[expect]] all is well`: unknown table `imagse`; the tables are `candidates`, `classes`, `common_names`, `confidences`, `descriptions`, `experiments`, `feedback`, `hard_samples`, `images`, `kept`, `ledger`, `listing`, `manifest`, `pixels`, `probe`, `progress`, `rejects`, `schedule`, `scores`, `spectrum` and `validation`

    exit code 2
    error: query `[[expect]] all is well`: No field named lable. Did you mean 'images.label'?
    Valid fields are images.source_id, images.pixel_id, images.path, images.label, images.class_name, images.split, images.width, images.height, images.format, images.digest.
    1 problem; nothing was run

    exit code 2
    error: query `[[expect]] all is well`: Invalid function 'blurr'.
    Did you mean 'floor'?
    1 problem; nothing was run

    exit code 2
    error: query `[[expect]] all is well`: unknown parameter `$labell`; the parameters are `$captions`, `$class_balanced`, `$classifier`, `$clip`, `$curriculum_epochs`, `$curriculum_seed`, `$epochs`, `$exclude_classes`, `$exploration`, `$filter_prompt`, `$generation_prompt`, `$generator`, `$guidance_scale`, `$hard_fraction`, `$hard_share`, `$image_guidance`, `$level`, `$levels`, `$max_attempts`, `$max_class_count`, `$max_probability`, `$max_repeats`, `$min_text_similarity`, `$name`, `$negative_prompt`, `$non_hard_fraction`, `$probe_size`, `$scheduler`, `$seed`, `$seeds`, `$strategy`, `$synthetic_per_hard`, `$timesteps`, `$trials`, `$unet_evaluations` and `$validation_sources`

    exit code 2
    error: query `[[expect]] all is well`: expected one SELECT that only reads
    ");
}

#[test]
fn an_unknown_strategy() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["curriculum.strategy=divers_to_specific"]), @r"
    exit code 2
    error: query `schedule/divers_to_specific.sql`: this file does not exist; the files of `schedule` are `schedule/adaptive.sql`, `schedule/adaptive_by_class.sql`, `schedule/all_levels.sql`, `schedule/diverse_to_specific.sql`, `schedule/fixed.sql`, `schedule/least_gain.sql`, `schedule/random.sql`, `schedule/random_choice.sql`, `schedule/real_only.sql`, `schedule/recursive.sql`, `schedule/shrink.sql`, `schedule/specific_to_diverse.sql` and `schedule/text_only.sql`
    hint: did you mean `schedule/diverse_to_specific.sql`? A new query belongs in the folder `sql_dir`
    ");
}

#[test]
fn an_expectation_that_fails_shows_its_rows() {
    let (mut workspace, _guard) = small();
    let asked = |at_least: usize| {
        format!(
            "expect=[{{name=\"no class is small\", sql=\"SELECT class_name, count(*) AS images FROM images WHERE \
             split = 'train' GROUP BY class_name HAVING count(*) < {at_least} ORDER BY class_name\"}}]"
        )
    };
    workspace.edit(&asked(20));
    assert_snapshot!(said(&mut workspace.command("run", &["--until", "images"])), @r"
    exit code 1
    split       images  classes  smallest class  largest class  skipped
    train          337       10  eight (3)       zero (70)            0
    validation      43       10  one (2)         zero (8)             0
    test           400       10  zero (40)       zero (40)            0
    pixels: 780 rows in [time]
    images: 780 rows in [time]
    error: expectation `no class is small` failed: 4 rows, none expected
    +------------+--------+
    | class_name | images |
    +------------+--------+
    | eight      | 3      |
    | five       | 5      |
    | nine       | 4      |
    | three      | 15     |
    +------------+--------+
    ");
    // Completed tables are kept, and the next run continues.
    workspace.edit(&asked(0));
    let run = workspace.json("run", &["--until", "images"]);
    assert!(crate::support::skipped(&run).values().all(|&skipped| skipped), "{run:#}");
}

#[test]
fn two_rows_of_one_key() {
    let twice = |name: &str| {
        let query = built_in(name);
        format!("{query}\nUNION ALL\n{query}")
    };
    let (mut workspace, _guard) = small();
    replace(&mut workspace, "hard_samples/few_shot.sql", &twice("hard_samples/few_shot.sql"));
    assert_snapshot!(said(&mut workspace.command("run", &["--until", "hard_samples"])), @r"
    exit code 2
    split       images  classes  smallest class  largest class  skipped
    train          337       10  eight (3)       zero (70)            0
    validation      43       10  one (2)         zero (8)             0
    test           400       10  zero (40)       zero (40)            0
    pixels: 780 rows in [time]
    images: 780 rows in [time]
    classes: 10 rows in [time]
    error: query `hard_samples/few_shot.sql`: it returns two rows with the same (source_id); `hard_samples` allows one row per key
    ");
    assert_eq!(workspace.number("SELECT count(*) FROM hard_samples"), 0.0);
    let (mut workspace, _guard) = small();
    replace(&mut workspace, "pixels/embed.sql", &twice("pixels/embed.sql"));
    let pixels = said(&mut workspace.command("run", &["--until", "pixels"]));
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("[0-9a-f]{32}", "[source_id]");
    settings.bind(|| assert_snapshot!(pixels, @r"
    exit code 2
    split       images  classes  smallest class  largest class  skipped
    train          337       10  eight (3)       zero (70)            0
    validation      43       10  one (2)         zero (8)             0
    test           400       10  zero (40)       zero (40)            0
    error: query `pixels/embed.sql`: it returns a row twice, or one that was not requested, with the `pixel_id` `[source_id]`; `pixels` gets one row for each of `listing`
    "));
    assert_eq!(workspace.number("SELECT count(*) FROM pixels"), 0.0);
}
