//! `[source]` and its kinds.

use insta::assert_snapshot;

use super::{SMALL, refused, sound};

/// The small pipeline with these keys for its source.
fn of_source(keys: &str) -> String {
    let (before, rest) = SMALL.split_once("kind =").unwrap();
    format!("{before}root = \"data\"\n{keys}\n{}", &rest[rest.find("[models]").unwrap()..])
}

#[test]
fn each_kind_of_source_has_its_own_keys() {
    let source = |keys: &str| serde_json::to_string(&sound(&of_source(keys), &[]).source).unwrap();
    assert_snapshot!(source("kind = \"list\"\nlists = \"s3://b/l\"\nsplits.train = \"t.txt\""), @r##"{"kind":{"list":{"lists":"s3://b/l"}},"root":"data","splits":{"names":[["train",["t.txt"]]],"shares":[]},"sql":"pixels/embed.sql","classes":null,"label_kind":null,"background":"#ffffff"}"##);
    assert_snapshot!(source("kind = \"imagefolder\"\nsplits = { train = [\"a\", \"b/c\"], test = \"d\" }"), @r##"{"kind":{"imagefolder":{"label_column":"label"}},"root":"data","splits":{"names":[["train",["a","b/c"]],["test",["d"]]],"shares":[]},"sql":"pixels/embed.sql","classes":null,"label_kind":null,"background":"#ffffff"}"##);
    assert_snapshot!(source("kind = \"csv\"\nsplits.train = \"t.csv\""), @r##"{"kind":{"csv":{"table":null,"split_column":null,"path_column":"path","path_prefix":"","label_column":"label"}},"root":"data","splits":{"names":[["train",["t.csv"]]],"shares":[]},"sql":"pixels/embed.sql","classes":null,"label_kind":null,"background":"#ffffff"}"##);
    let one = "kind = \"csv\"\ntable = \"m.csv\"\nsplit_column = \"split\"\npath_column = \"filename\"\n\
               path_prefix = \"train/\"\nlabel_column = \"y\"\nsplits = { train = \"train\", shifted_test = [\"test\", \"val: 2\"] }";
    assert_snapshot!(source(one), @r##"{"kind":{"csv":{"table":"m.csv","split_column":"split","path_column":"filename","path_prefix":"train/","label_column":"y"}},"root":"data","splits":{"names":[["train",["train"]],["shifted_test",["test","val: 2"]]],"shares":[]},"sql":"pixels/embed.sql","classes":null,"label_kind":null,"background":"#ffffff"}"##);
    let tars = "kind = \"webdataset\"\nlabel_column = \"json:kind\"\nsplits = { train = \"t-{08..10}.tar\", test = \"v.tar\" }";
    assert_snapshot!(source(tars), @r##"{"kind":{"webdataset":{"label_field":"kind","image_member":null}},"root":"data","splits":{"names":[["train",["t-08.tar","t-09.tar","t-10.tar"]],["test",["v.tar"]]],"shares":[]},"sql":"pixels/embed.sql","classes":null,"label_kind":null,"background":"#ffffff"}"##);
}

#[test]
fn keys_of_another_kind_of_source_are_refused() {
    let refused = |keys: &str| refused(&of_source(keys), &[]).to_string();
    assert_snapshot!(refused("kind = \"list\"\nlabel_column = \"y\"\nlist = \"l\"\nsplits.train = \"a:b\""), @r#"
    x.toml:7: `source.label_column` is not a key of kind `list`; expected one of `kind`, `lists`, `root`, `splits`, `sql`, `classes`, `label_kind` or `background`
    x.toml:8: unknown key `source.list`; did you mean `lists`?
    x.toml:9: `source.splits.train`: found "a:b", expected a path relative to `source.lists` (or `source.root` if that is not set), without empty, `.` or `..` parts
    3 problems; nothing was run
    "#);
    assert_snapshot!(refused("kind = \"csv\"\ntable = \"t.csv\"\nimage_column = \"i\"\nsplits.train = \"train\""), @r"
    x.toml:8: `source.image_column` is not a key of kind `csv`; expected one of `kind`, `table`, `split_column`, `path_column`, `path_prefix`, `label_column`, `root`, `splits`, `sql`, `classes`, `label_kind` or `background`
    x.toml: `source.split_column`: missing, expected the column with the split of a row because `source.table` is set
    2 problems; nothing was run
    ");
    assert_snapshot!(refused("kind = \"csv\"\nsplit_column = \"split\"\nsplits.train = \"train\""), @r"
    x.toml: `source.table`: missing, expected the table below `source.root` because `source.split_column` is set
    1 problem; nothing was run
    ");
    let splits = "splits = { train = [\"{0..3}.tar\", \"2.tar\"], validation = \"{3..4}.tar\", test = \"{a,b}.tar\" }";
    assert_snapshot!(refused(&format!("kind = \"webdataset\"\nlabel_column = \"json\"\n{splits}")), @r#"
    x.toml:7: `source.label_column`: found "json", expected `cls` (the member `.cls`) or `json:FIELD` (a field of the member `.json`)
    x.toml:8: `source.splits.train`: duplicate value "2.tar"
    x.toml:8: `source.splits.validation`: found "3.tar", which is also in `source.splits.train`
    x.toml:8: `source.splits.test`: found "{a,b}.tar", expected ascending numbers in braces, such as `{000..146}`
    4 problems; nothing was run
    "#);
}

#[test]
fn the_shards_of_a_split_are_bounded_for_any_number_of_patterns() {
    let patterns: Vec<String> = (0..9).map(|n| format!("\"{n}/{}{{0..99999}}\"", "a".repeat(250))).collect();
    let keys = format!("kind = \"webdataset\"\nsplits.train = [{}]", patterns.join(", "));
    let shown = refused(&of_source(&keys), &[]).to_string();
    let first = shown.lines().next().unwrap();
    assert!(first.starts_with("x.toml:7: `source.splits.train[1]`: found \"1/aaa"), "{first}");
    assert!(first.ends_with("too long, together with those before it in the split"), "{first}");
}
