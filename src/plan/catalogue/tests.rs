use super::*;

#[test]
fn built_in_queries_parse() {
    let catalogue = Catalogue::load(None, &[]).unwrap();
    let candidates = catalogue.get("candidates/spectrum.sql").unwrap();
    assert_eq!(
        candidates.tables.iter().map(String::as_str).collect::<Vec<_>>(),
        ["classes", "descriptions", "hard_samples", "images", "rejects", "scores"]
    );
    assert!(candidates.parameters.contains("image_guidance"));
    assert!(candidates.functions.contains("draw"));
}

#[test]
fn placeholders_are_replaced_in_the_tree() {
    let query = Query::parse("q", "SELECT $a + 1, $t FROM unnest($list) AS g(x) WHERE y > $f").unwrap();
    let values = BTreeMap::from([
        ("a".to_owned(), Parameter::Integer(-3)),
        ("f".to_owned(), Parameter::Float(10.0)),
        ("t".to_owned(), Parameter::Text("it's; DROP".into())),
        ("list".to_owned(), Parameter::Integers(vec![0, 90])),
    ]);
    assert_eq!(
        query.bind(&values).unwrap().to_string(),
        "SELECT (-3) + 1, 'it''s; DROP' FROM UNNEST([0, 90]) AS g (x) WHERE y > 1e1"
    );
}

#[test]
fn a_digest_depends_only_on_the_meaning() {
    let a = Query::parse("q", "select a from t -- why\n where a > 1").unwrap();
    let b = Query::parse("q", "SELECT a FROM t WHERE a > 1").unwrap();
    let c = Query::parse("q", "SELECT a FROM t WHERE a > 2").unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_ne!(a.digest(), c.digest());
}

#[test]
fn only_reading_is_allowed() {
    for text in [
        "DROP TABLE t",
        "SELECT 1; SELECT 2",
        "INSERT INTO t VALUES (1)",
        "",
        "COPY t TO 'x'",
        "COPY (SELECT * FROM images) TO '/tmp/x.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW t AS SELECT 1",
        "SET datafusion.catalog.location = '/'",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE INSERT INTO images SELECT * FROM images",
        "SELECT * INTO t FROM images",
        "SELECT 1 UNION ALL (SELECT 2 UNION SELECT * INTO t FROM images)",
        "SELECT * FROM (SELECT * INTO t FROM images)",
        "WITH a AS (SELECT 1) INSERT INTO images SELECT * FROM a",
        "WITH a AS (UPDATE images SET label = 1) SELECT * FROM a",
        "WITH a AS (DELETE FROM images) SELECT * FROM a",
    ] {
        assert!(Query::parse("q", text).is_err(), "{text}");
    }
}

#[test]
fn every_kind_of_reading_is_allowed() {
    for text in [
        "SELECT 1 UNION ALL (SELECT 2 EXCEPT SELECT 3) ORDER BY 1",
        "VALUES (1), (2)",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a WHERE x IN (SELECT 1)",
    ] {
        assert!(Query::parse("q", text).is_ok(), "{text}");
    }
}

/// No file within the size limit may overflow the stack.
#[test]
fn deep_queries_are_refused() {
    let deep = |start: &str, middle: &str, times: usize, end: &str| {
        assert!(Query::parse("q", &format!("{start}{}{end}", middle.repeat(times))).is_err(), "{middle}");
    };
    deep("SELECT ", "(", 100_000, "1");
    deep("SELECT ", "NOT ", 100_000, "true");
    deep("SELECT ", "- ", 100_000, "1");
    deep("SELECT ", "CASE WHEN ", 50_000, "1");
    deep("", "(SELECT * FROM ", 20_000, "t");
    deep("SELECT 1", "+1", 100_000, "");
    deep("SELECT true", " AND true", 50_000, "");
    deep("SELECT 1", " UNION ALL SELECT 1", 20_000, "");
    deep("SELECT a", "[1]", 50_000, "");
    deep("SELECT a", "::int", 50_000, "");
}

#[test]
fn long_queries_are_read() {
    let long = |start: &str, middle: &str, times: usize, end: &str| {
        let query = Query::parse("q", &format!("{start}{}{end}", middle.repeat(times))).unwrap();
        assert!(!query.digest().is_empty());
        query.bind(&BTreeMap::new()).unwrap();
    };
    long("SELECT x IN (", "1, ", 100_000, "2)");
    long("VALUES ", "(1, 'a'), ", 50_000, "(2, 'b')");
    long("SELECT ", "a + b AS c, ", 10_000, "d FROM t");
    long("SELECT 1", "+1", 60, "");
    long("SELECT true", " AND x = 1", 30, " FROM t");
    long("SELECT 1", " UNION ALL SELECT 1", 60, "");
    long("SELECT CASE", " WHEN x = 1 THEN 2", 200, " END FROM t");
}
