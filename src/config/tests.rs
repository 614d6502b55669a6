#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use insta::assert_snapshot;

use super::*;

/// A pipeline with only what is required.
const SMALL: &str = r#"name = "small"
[lake]
root = "lake"
[source]
kind = "parquet"
root = "data"
splits = { train = "train.parquet" }
[models]
diffusion = "models/d"
clip = "models/c"
[spectrum]
image_guidance = [0, 50]
seeds = [1, 2]
"#;

/// A pipeline with everything.
const FULL: &str = r#"name = "full-1"
seed = -7
sql_dir = "my_sql"
[lake]
root = "s3://bucket/lake"
[source]
kind = "parquet"
root = "memory:///data"
image_column = "photo"
label_column = "digit"
sql = "pixels/reference.sql"
classes = "classes.json"
[source.splits]
test = ["test/0.parquet", "test/1.parquet"]
train = "train.parquet"
[models]
diffusion = "models/d"
clip = "models/c"
[models.classifiers]
resnet = "models/r"
[hard_samples]
sql = "hard_samples/mine.sql"
classifier = "resnet"
exclude_classes = ["empty", "no name"]
max_class_count = 0x10
[prompts]
descriptions = "texts.json"
common_names = "names.json"
generation = "a {class}, {description}"
filter = "a {class}"
[spectrum]
image_guidance = [0, 10, 100]
seeds = [10, 20]
timesteps = 1_000
guidance_scale = 7
scheduler = "euler"
negative_prompt = "blurred"
width = 480
height = 270
keep_aspect = false
[filter]
sql = "kept/mine.sql"
min_text_similarity = -0.0
max_attempts = 1
[validation]
sources = 5

[curriculum]
strategy = "adaptive"
trials = ["a", "b"]
probe_size = 100
level = 10
class_balanced = true
manifest = "manifest/low_quality.sql"
epochs = 3
curriculum_epochs = 0
non_hard_fraction = 1
hard_share = 0.999
[learner]
architectures = ["mlp", "cnn"]
image_side = 32
batch_size = 8
iterations_per_epoch = 4
learning_rate = 0.01
weight_decay = 0
[experiment]
strategies = ["adaptive", "mine"]
learner_seeds = 3
many_class_count = 50
worst_classes = 5
pretraining = "seen.parquet"
[[experiment.split]]
seed = 1
set = "source.root=other"
[[experiment.split]]
seed = 2
set = ["source.root=third", "seed=4"]
[queries]
memory_limit_mib = 512
[rejects]
max_fraction = 0
[parameters]
min_contrast = 0.5
look = "dark"
count = 3
strict = true
[[step]]
table = "blurred"
sql = "steps/blurred.sql"
[[step]]
table = "dark"
sql = "steps/dark.sql"
[[expect]]
name = "no empty class"
sql = """
SELECT 1
WHERE false"""
"#;

fn edits(set: &[&str]) -> Vec<String> {
    set.iter().map(|&edit| edit.to_owned()).collect()
}

/// The messages for the small pipeline with `more` at its end and these edits.
fn wrong(more: &str, set: &[&str]) -> String {
    refused(&format!("{SMALL}{more}"), set).to_string()
}

/// The messages for the small pipeline with `old` replaced.
fn changed(old: &str, new: &str) -> String {
    assert!(SMALL.contains(old), "{old}");
    refused(&SMALL.replace(old, new), &[]).to_string()
}

fn refused(text: &str, set: &[&str]) -> Diagnostics {
    Config::parse(text, "x.toml", &edits(set)).expect_err("is refused")
}

fn sound(text: &str, set: &[&str]) -> Config {
    Config::parse(text, "x.toml", &edits(set)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    assert_snapshot!(serde_json::to_string(&sound(SMALL, &[])).unwrap(), @r#"{"name":"small","seed":0,"lake_root":"lake","sql_dir":null,"source":{"kind":{"parquet":{"image_column":"image","label_column":"label"}},"root":"data","splits":[["train",["train.parquet"]]],"sql":"pixels/embed.sql","classes":null},"models":{"diffusion":"models/d","clip":"models/c","classifiers":{}},"hard_samples":{"sql":"hard_samples/few_shot.sql","max_class_count":20,"confidences":null,"classifier":null,"max_probability":1.0,"hard_fraction":1.0,"exclude_classes":[]},"prompts":{"descriptions":null,"common_names":null,"generation":"a photo of {class}","filter":"a photo of {class}"},"spectrum":{"image_guidance":[0,50],"seeds":[1,2],"timesteps":50,"guidance_scale":10.0,"scheduler":null,"negative_prompt":null,"noise":"counter","pure_noise_at_zero":false,"size":null,"keep_aspect":true},"filter":{"sql":"kept/text_similarity.sql","frame":"center_crop","min_text_similarity":0.3,"max_attempts":6},"validation":{"sources":0},"curriculum":{"strategy":"diverse_to_specific","epochs":65,"curriculum_epochs":60,"non_hard_fraction":0.3,"hard_share":0.136,"level":null,"trials":["0"],"probe_size":0,"class_balanced":false,"manifest":"manifest/mixed.sql"},"learner":{"architectures":["mlp"],"image_side":16,"batch_size":64,"iterations_per_epoch":16,"learning_rate":0.001,"weight_decay":0.0001},"experiment":{"strategies":["diverse_to_specific"],"learner_seeds":10,"many_class_count":100,"worst_classes":3,"pretraining":null,"splits":[]},"rejects":{"max_fraction":0.01},"cuda":{"memory_limit_mib":null,"tf32":false},"queries":{"memory_limit_mib":null},"steps":[],"expect":[],"parameters":{}}"#);
}

#[test]
fn every_key_is_read() {
    assert_snapshot!(serde_json::to_string(&sound(FULL, &[])).unwrap(), @r#"{"name":"full-1","seed":-7,"lake_root":"s3://bucket/lake","sql_dir":"my_sql","source":{"kind":{"parquet":{"image_column":"photo","label_column":"digit"}},"root":"memory:///data","splits":[["train",["train.parquet"]],["test",["test/0.parquet","test/1.parquet"]]],"sql":"pixels/reference.sql","classes":"classes.json"},"models":{"diffusion":"models/d","clip":"models/c","classifiers":{"resnet":"models/r"}},"hard_samples":{"sql":"hard_samples/mine.sql","max_class_count":16,"confidences":null,"classifier":"resnet","max_probability":1.0,"hard_fraction":1.0,"exclude_classes":["empty","no name"]},"prompts":{"descriptions":"texts.json","common_names":"names.json","generation":"a {class}, {description}","filter":"a {class}"},"spectrum":{"image_guidance":[0,10,100],"seeds":[10,20],"timesteps":1000,"guidance_scale":7.0,"scheduler":"euler","negative_prompt":"blurred","noise":"counter","pure_noise_at_zero":false,"size":[480,270],"keep_aspect":false},"filter":{"sql":"kept/mine.sql","frame":"center_crop","min_text_similarity":0.0,"max_attempts":1},"validation":{"sources":5},"curriculum":{"strategy":"adaptive","epochs":3,"curriculum_epochs":0,"non_hard_fraction":1.0,"hard_share":0.999,"level":10,"trials":["a","b"],"probe_size":100,"class_balanced":true,"manifest":"manifest/low_quality.sql"},"learner":{"architectures":["mlp","cnn"],"image_side":32,"batch_size":8,"iterations_per_epoch":4,"learning_rate":0.01,"weight_decay":0.0},"experiment":{"strategies":["adaptive","mine"],"learner_seeds":3,"many_class_count":50,"worst_classes":5,"pretraining":"seen.parquet","splits":[{"seed":1,"set":["source.root=other"]},{"seed":2,"set":["source.root=third","seed=4"]}]},"rejects":{"max_fraction":0.0},"cuda":{"memory_limit_mib":null,"tf32":false},"queries":{"memory_limit_mib":512},"steps":[{"table":"blurred","sql":"steps/blurred.sql"},{"table":"dark","sql":"steps/dark.sql"}],"expect":[{"name":"no empty class","sql":"SELECT 1\nWHERE false"}],"parameters":{"count":3,"look":"dark","min_contrast":0.5,"strict":true}}"#);
}

#[test]
fn classifiers_and_splits_have_names_of_their_own() {
    assert_snapshot!(
        wrong(
            "[models.classifiers]\n\"Res-Net\" = \"r\"\nvit = 3\n[hard_samples]\nclassifier = \"dino\"\n\
            [learner]\narchitectures = [\"mlp\", \"resnet\"]\n[experiment]\nlearner_seeds = 1\n\
            [[experiment.split]]\nseed = 1\nset = \"root\"\n[[experiment.split]]\nseed = 1\n",
            &[]
        ),
        @r#"
    x.toml:15: `models.classifiers.Res-Net`: found this name, allowed are identifiers: a letter `a-z`, then up to 63 of `a-z`, `0-9` and `_`
    x.toml:16: `models.classifiers.vit`: found 3, expected a string with a directory or a URL
    x.toml:18: `hard_samples.classifier`: found `dino`, allowed are those of `[models.classifiers]`: none
    x.toml:20: `learner.architectures[1]`: found "resnet", allowed are `softmax`, `mlp` and `cnn`
    x.toml:22: `experiment.learner_seeds`: found 1, allowed are integers 2 to 1000 (learners)
    x.toml:25: `experiment.split[0].set`: found "root", allowed are edits of the form `section.key=value`, without control characters
    x.toml:27: `experiment.split[1].seed`: found "1" a second time
    7 problems; nothing was run
    "#
    );
}

#[test]
fn the_shipped_pipelines_parse() {
    let config = sound(include_str!("../../pipelines/digits_low_quality.toml"), &[]);
    assert_eq!(config.curriculum.strategy, "adaptive");
    assert_eq!(config.source.splits.len(), 4);
    assert_eq!(config.experiment.splits.len(), 5);

    let config = sound(include_str!("../../pipelines/digits_lt.toml"), &[]);
    assert_eq!(config.name, "digits_lt");
    assert_eq!(config.source.splits.len(), 3);
    assert_eq!(config.spectrum.image_guidance, [0, 10, 30, 50, 70, 90]);
    assert_eq!(config.curriculum.hard_share, 0.4);
    assert_eq!(config.expect.len(), 1);
}

#[test]
fn an_empty_file_lacks_everything_at_once() {
    assert_snapshot!(refused("", &[]), @r"
    x.toml: `name`: missing, expected a string of 1 to 64 characters out of `a-z`, `0-9`, `_` and `-`
    x.toml: `lake.root`: missing, expected a string with a directory or a URL
    x.toml: `source.kind`: missing, expected a string out of `parquet`, `list`, `imagefolder`, `csv` and `webdataset`
    x.toml: `source.root`: missing, expected a string with a directory or a URL
    x.toml: `source.splits.train`: missing, expected a string with a path relative to `source.root`, or a list of such
    x.toml: `models.diffusion`: missing, expected a string with a directory or a URL
    x.toml: `models.clip`: missing, expected a string with a directory or a URL
    x.toml: `spectrum.image_guidance`: missing, expected a list, each an integer 0 to 100 (percent of the real image kept)
    x.toml: `spectrum.seeds`: missing, expected a list, each an integer from 0
    9 problems; nothing was run
    ");
}

#[test]
fn problems_come_in_file_order_then_edits_then_what_is_missing() {
    let text = SMALL
        .replace("root = \"lake\"\n", "")
        .replace("[0, 50]", "[\n  0,\n  101,\n  \"50\",\n]\ntime_steps = 3")
        .replace("\"small\"", "\"Small name\"");
    let set = ["filter.max_attempts=0", "spectrum.schedular=ddim"];
    assert_snapshot!(refused(&text, &set), @r#"
    x.toml:1: `name`: found "Small name", allowed are 1 to 64 characters out of `a-z`, `0-9`, `_` and `-`
    x.toml:13: `spectrum.image_guidance[1]`: found 101, allowed are integers 0 to 100 (percent of the real image kept)
    x.toml:14: `spectrum.image_guidance[2]`: found "50", expected an integer 0 to 100 (percent of the real image kept)
    x.toml:16: unknown key `spectrum.time_steps`, did you mean `timesteps`?
    --set filter.max_attempts=0: `filter.max_attempts`: found 0, allowed are integers 1 to 100
    --set spectrum.schedular=ddim: unknown key `spectrum.schedular`, did you mean `scheduler`?
    x.toml: `lake.root`: missing, expected a string with a directory or a URL
    7 problems; nothing was run
    "#);
}

#[test]
fn unknown_keys_get_a_suggestion_or_the_list() {
    let more = "time_steps = 3\nlambda = 1\n[filtre]\nx = 1\n[validation]\nsources = 100\n";
    assert_snapshot!(wrong(more, &[]), @r"
    x.toml:14: unknown key `spectrum.time_steps`, did you mean `timesteps`?
    x.toml:15: unknown key `spectrum.lambda`, allowed are `image_guidance`, `seeds`, `timesteps`, `guidance_scale`, `scheduler`, `negative_prompt`, `noise`, `pure_noise_at_zero`, `width`, `height` and `keep_aspect`
    x.toml:16: unknown section `filtre`, did you mean `filter`?
    3 problems; nothing was run
    ");
}

#[test]
fn keys_that_need_quotes_are_shown_on_one_line() {
    assert_snapshot!(wrong("\"a\\nb.c\" = 1\n\"\" = 2\n", &[]), @r#"
    x.toml:14: unknown key `spectrum."a\nb.c"`, allowed are `image_guidance`, `seeds`, `timesteps`, `guidance_scale`, `scheduler`, `negative_prompt`, `noise`, `pure_noise_at_zero`, `width`, `height` and `keep_aspect`
    x.toml:15: unknown key `spectrum.""`, allowed are `image_guidance`, `seeds`, `timesteps`, `guidance_scale`, `scheduler`, `negative_prompt`, `noise`, `pure_noise_at_zero`, `width`, `height` and `keep_aspect`
    2 problems; nothing was run
    "#);
}

#[test]
fn wrong_types_say_what_is_expected() {
    let more = "timesteps = \"50\"\nguidance_scale = true\nscheduler = 1\n\
                negative_prompt = [\"a\"]\n[filter]\nmax_attempts = 2026-01-01\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:14: `spectrum.timesteps`: found "50", expected an integer 1 to 1000
    x.toml:15: `spectrum.guidance_scale`: found true, expected a number 0 to 100 (factor)
    x.toml:16: `spectrum.scheduler`: found 1, expected a string out of `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras` and `lcm`
    x.toml:17: `spectrum.negative_prompt`: found a list, expected a string
    x.toml:19: `filter.max_attempts`: found the date or time 2026-01-01, expected an integer 1 to 100
    5 problems; nothing was run
    "#);
}

#[test]
fn ranges_say_what_is_allowed() {
    let more = "timesteps = 1001\nguidance_scale = inf\n\
                [filter]\nmin_text_similarity = nan\n[curriculum]\nhard_share = 1\n\
                non_hard_fraction = -0.1\n[hard_samples]\nmax_class_count = 0\n";
    assert_snapshot!(wrong(more, &[]), @r"
    x.toml:14: `spectrum.timesteps`: found 1001, allowed are integers 1 to 1000
    x.toml:15: `spectrum.guidance_scale`: found inf, allowed are numbers 0 to 100 (factor)
    x.toml:17: `filter.min_text_similarity`: found NaN, allowed are numbers -1 to 1 (cosine)
    x.toml:19: `curriculum.hard_share`: found 1, allowed are numbers 0 to below 1 (share of images)
    x.toml:20: `curriculum.non_hard_fraction`: found -0.1, allowed are numbers 0 to 1 (share of images)
    x.toml:22: `hard_samples.max_class_count`: found 0, allowed are integers from 1 (images)
    6 problems; nothing was run
    ");
}

#[test]
fn lists_are_not_empty_and_have_no_value_twice() {
    let text = SMALL.replace("[0, 50]", "[]").replace("[1, 2]", "[1, 2, 1, -3]");
    assert_snapshot!(refused(&text, &[]), @r"
    x.toml:12: `spectrum.image_guidance`: found an empty list, expected a list, each an integer 0 to 100 (percent of the real image kept)
    x.toml:13: `spectrum.seeds[2]`: found 1 a second time
    x.toml:13: `spectrum.seeds[3]`: found -3, allowed are integers from 0
    3 problems; nothing was run
    ");
}

#[test]
fn choices_are_listed() {
    let text = SMALL.replace("\"parquet\"", "\"imagefolders\"\nlists = \"l\"") + "scheduler = \"eular\"\n";
    assert_snapshot!(refused(&text, &[]), @r#"
    x.toml:5: `source.kind`: found "imagefolders", allowed are `parquet`, `list`, `imagefolder`, `csv` and `webdataset`, did you mean `imagefolder`?
    x.toml:15: `spectrum.scheduler`: found "eular", allowed are `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras` and `lcm`, did you mean `euler`?
    2 problems; nothing was run
    "#);
}

/// The small pipeline with these keys in the place of its source's.
fn of_source(keys: &str) -> String {
    let (before, rest) = SMALL.split_once("kind =").unwrap();
    format!("{before}root = \"data\"\n{keys}\n{}", &rest[rest.find("[models]").unwrap()..])
}

#[test]
fn each_kind_of_source_has_keys_of_its_own() {
    let source = |keys: &str| serde_json::to_string(&sound(&of_source(keys), &[]).source).unwrap();
    assert_snapshot!(source("kind = \"list\"\nlists = \"s3://b/l\"\nsplits.train = \"t.txt\""), @r#"{"kind":{"list":{"lists":"s3://b/l"}},"root":"data","splits":[["train",["t.txt"]]],"sql":"pixels/embed.sql","classes":null}"#);
    assert_snapshot!(source("kind = \"imagefolder\"\nsplits = { train = [\"a\", \"b/c\"], test = \"d\" }"), @r#"{"kind":{"imagefolder":{"label_column":"label"}},"root":"data","splits":[["train",["a","b/c"]],["test",["d"]]],"sql":"pixels/embed.sql","classes":null}"#);
    assert_snapshot!(source("kind = \"csv\"\nsplits.train = \"t.csv\""), @r#"{"kind":{"csv":{"table":null,"split_column":null,"path_column":"path","path_prefix":"","label_column":"label"}},"root":"data","splits":[["train",["t.csv"]]],"sql":"pixels/embed.sql","classes":null}"#);
    let one = "kind = \"csv\"\ntable = \"m.csv\"\nsplit_column = \"split\"\npath_column = \"filename\"\n\
               path_prefix = \"train/\"\nlabel_column = \"y\"\nsplits = { train = \"train\", shifted_test = [\"test\", \"val: 2\"] }";
    assert_snapshot!(source(one), @r#"{"kind":{"csv":{"table":"m.csv","split_column":"split","path_column":"filename","path_prefix":"train/","label_column":"y"}},"root":"data","splits":[["train",["train"]],["shifted_test",["test","val: 2"]]],"sql":"pixels/embed.sql","classes":null}"#);
    let tars = "kind = \"webdataset\"\nlabel_column = \"json:kind\"\nsplits = { train = \"t-{08..10}.tar\", test = \"v.tar\" }";
    assert_snapshot!(source(tars), @r#"{"kind":{"webdataset":{"label_field":"kind"}},"root":"data","splits":[["train",["t-08.tar","t-09.tar","t-10.tar"]],["test",["v.tar"]]],"sql":"pixels/embed.sql","classes":null}"#);
}

#[test]
fn keys_of_another_kind_of_source_are_refused() {
    let refused = |keys: &str| refused(&of_source(keys), &[]).to_string();
    assert_snapshot!(refused("kind = \"list\"\nlabel_column = \"y\"\nlist = \"l\"\nsplits.train = \"a:b\""), @r#"
    x.toml:7: unknown key `source.label_column` of kind `list`, allowed are `kind`, `root`, `lists`, `splits`, `sql` and `classes`
    x.toml:8: unknown key `source.list`, did you mean `lists`?
    x.toml:9: `source.splits.train`: found "a:b", allowed are paths relative to `source.lists`, else to `source.root`, without empty, `.` or `..` parts
    3 problems; nothing was run
    "#);
    assert_snapshot!(refused("kind = \"csv\"\ntable = \"t.csv\"\nimage_column = \"i\"\nsplits.train = \"train\""), @r"
    x.toml:8: unknown key `source.image_column` of kind `csv`, allowed are `kind`, `root`, `table`, `split_column`, `path_column`, `path_prefix`, `label_column`, `splits`, `sql` and `classes`
    x.toml: `source.split_column`: missing, and `source.table` needs it: the column that names a row's split
    2 problems; nothing was run
    ");
    assert_snapshot!(refused("kind = \"csv\"\nsplit_column = \"split\"\nsplits.train = \"train\""), @r"
    x.toml: `source.table`: missing, and `source.split_column` needs it: the table below `source.root`
    1 problem; nothing was run
    ");
    let splits = "splits = { train = [\"{0..3}.tar\", \"2.tar\"], validation = \"{3..4}.tar\", test = \"{a,b}.tar\" }";
    assert_snapshot!(refused(&format!("kind = \"webdataset\"\nlabel_column = \"json\"\n{splits}")), @r#"
    x.toml:7: `source.label_column`: found "json", allowed are `cls` (the member `.cls`) and `json:FIELD` (of `.json`)
    x.toml:8: `source.splits.train`: found "2.tar" a second time
    x.toml:8: `source.splits.validation`: found "3.tar", which is in `source.splits.train` too
    x.toml:8: `source.splits.test`: found "{a,b}.tar", allowed in braces are ascending numbers such as `{000..146}`
    4 problems; nothing was run
    "#);
}

#[test]
fn the_shards_of_a_split_are_bounded_however_many_patterns_name_them() {
    let patterns: Vec<String> = (0..9).map(|n| format!("\"{n}/{}{{0..99999}}\"", "a".repeat(250))).collect();
    let keys = format!("kind = \"webdataset\"\nsplits.train = [{}]", patterns.join(", "));
    let said = refused(&of_source(&keys), &[]).to_string();
    let said = said.lines().next().unwrap();
    assert!(said.starts_with("x.toml:7: `source.splits.train[1]`: found \"1/aaa"), "{said}");
    assert!(said.ends_with(", whose names are too long, with those before it in the split"), "{said}");
}

#[test]
fn sections_of_a_wrong_type_are_reported_once() {
    let text = "filter = 3\n".to_owned() + &SMALL.replace("[lake]\nroot = \"lake\"\n", "[[lake]]\n");
    assert_snapshot!(refused(&text, &[]), @r"
    x.toml:1: `filter`: found 3, expected a section `[filter]`
    x.toml:3: `lake`: found a list, expected a section `[lake]`
    2 problems; nothing was run
    ");
    assert_snapshot!(wrong("[step]\ntable = \"t\"\n", &[]), @r"
    x.toml:14: `step`: found a section, expected sections that begin with `[[step]]`
    1 problem; nothing was run
    ");
    assert_snapshot!(changed("name", "expect = [1]\nname"), @r"
    x.toml:1: `expect[0]`: found 1, expected sections that begin with `[[expect]]`
    1 problem; nothing was run
    ");
}

#[test]
fn names_and_paths_keep_their_rules() {
    assert_snapshot!(changed("\"small\"", "\"../small\""), @r#"
    x.toml:1: `name`: found "../small", allowed are 1 to 64 characters out of `a-z`, `0-9`, `_` and `-`
    1 problem; nothing was run
    "#);
    assert_snapshot!(changed("\"lake\"", "\"ftp://host/lake\""), @r#"
    x.toml:3: `lake.root`: found "ftp://host/lake", allowed are directories, and URLs with `file://`, `s3://`, `gs://`, `az://` or `memory://`
    1 problem; nothing was run
    "#);
    assert_snapshot!(changed("\"models/d\"", "\"\""), @r#"
    x.toml:9: `models.diffusion`: found "", allowed are directories, and URLs with `hf://` (`hf://ORG/REPO[@REVISION][/FOLDER]`), `s3://`, `gs://` or `az://`, without empty, `.` or `..` parts
    1 problem; nothing was run
    "#);
    let splits = "{ train = [\"/a\", \"b/../c\", 3], validation = \"v\", test = [\"v\"], tset = 1 }";
    assert_snapshot!(changed("{ train = \"train.parquet\" }", splits), @r#"
    x.toml:7: `source.splits.train[0]`: found "/a", allowed are paths relative to `source.root`, without empty, `.` or `..` parts
    x.toml:7: `source.splits.train[1]`: found "b/../c", allowed are paths relative to `source.root`, without empty, `.` or `..` parts
    x.toml:7: `source.splits.train[2]`: found 3, expected a string with a path relative to `source.root`
    x.toml:7: `source.splits.test`: found "v", which is in `source.splits.validation` too
    x.toml:7: unknown key `source.splits.tset`, did you mean `test`?
    5 problems; nothing was run
    "#);
    let more = "[filter]\nsql = \"../x.sql\"\n[hard_samples]\nsql = \"a/.sql\"\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:15: `filter.sql`: found "../x.sql", allowed are relative paths ending in `.sql`, without empty, `.` or `..` parts
    x.toml:17: `hard_samples.sql`: found "a/.sql", allowed are relative paths ending in `.sql`, without empty, `.` or `..` parts
    2 problems; nothing was run
    "#);
}

#[test]
fn control_characters_are_refused_and_never_printed() {
    let more = "negative_prompt = \"a\\u001B[31mb\"\n[[expect]]\nname = \"a\\nb\"\nsql = \"\"\"\na\tb\"\"\"\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:14: `spectrum.negative_prompt`: found "a\u{1b}[31mb", allowed are strings without control characters
    x.toml:16: `expect[0].name`: found "a\nb", allowed are strings that are not empty, without control characters
    2 problems; nothing was run
    "#);
}

#[test]
fn prompts_have_only_placeholders_that_are_filled() {
    let more = "[prompts]\ngeneration = \"{clas} {description} {descripton}\"\nfilter = \"{description} {\"\n";
    assert_snapshot!(wrong(more, &[]), @r"
    x.toml:15: `prompts.generation`: found the placeholder `{clas}`, allowed are `{class}` and `{description}`, did you mean `{class}`?
    x.toml:15: `prompts.generation`: found the placeholder `{descripton}`, allowed are `{class}` and `{description}`, did you mean `{description}`?
    x.toml:16: `prompts.filter`: found the placeholder `{description}`, allowed is `{class}`
    x.toml:16: `prompts.filter`: found a `{` without a `}`, expected braces in pairs, as in `{class}`
    4 problems; nothing was run
    ");
    assert_snapshot!(wrong("[prompts]\ngeneration = \"{description}\"\nfilter = \"a } b\"\n", &[]), @r"
    x.toml:15: `prompts.generation`: found `{description}`, which needs `prompts.descriptions` to be set
    x.toml:16: `prompts.filter`: found a `}` without a `{`, expected braces in pairs, as in `{class}`
    2 problems; nothing was run
    ");
    sound(&format!("{SMALL}[prompts]\ngeneration = \"{{description}}\"\ndescriptions = \"d\"\n"), &[]);
}

#[test]
fn curriculum_epochs_are_some_of_the_epochs() {
    assert_snapshot!(wrong("[curriculum]\nepochs = 10\ncurriculum_epochs = 11\n", &[]), @r"
    x.toml:16: `curriculum.curriculum_epochs`: found 11, allowed are 0 to `curriculum.epochs` (10)
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("[curriculum]\nepochs = 10\n", &[]), @r"
    x.toml: `curriculum.curriculum_epochs`: missing, and its default 60 is over `curriculum.epochs` (10)
    1 problem; nothing was run
    ");
    // A value that is refused anyway is compared with nothing.
    assert_snapshot!(wrong("[curriculum]\nepochs = \"x\"\ncurriculum_epochs = 80\n", &[]), @r#"
    x.toml:15: `curriculum.epochs`: found "x", expected an integer 1 to 100000
    1 problem; nothing was run
    "#);
}

#[test]
fn steps_and_expectations_are_complete_and_distinct() {
    let more = "[[step]]\ntable = \"t\"\nsql = \"t.sql\"\n[[step]]\ntable = \"t\"\n\
                [[step]]\nsql = \"SELECT 1\"\ntabel = \"u\"\n[[expect]]\nname = \"e\"\nsql = \" \"\n\
                [[expect]]\nname = \"e\"\nsql = \"SELECT 1\"\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:17: `step[1].sql`: missing, expected a string with a relative path ending in `.sql`
    x.toml:18: `step[1].table`: found "t" a second time
    x.toml:19: `step[2].table`: missing, expected a string that is an identifier such as `few_shot`
    x.toml:20: `step[2].sql`: found "SELECT 1", allowed are relative paths ending in `.sql`, without empty, `.` or `..` parts
    x.toml:21: unknown key `step[2].tabel`, did you mean `table`?
    x.toml:24: `expect[0].sql`: found " ", allowed are SQL queries that are not empty, without control characters
    x.toml:26: `expect[1].name`: found "e" a second time
    7 problems; nothing was run
    "#);
}

#[test]
fn parameters_are_plain_and_have_names_of_their_own() {
    let more = "[parameters]\nseed = 1\nMy-Name = 2\na = [1]\nb = nan\nc = \"\\u0000\"\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:15: `parameters.seed`: found the name of a built-in parameter, which has its own key
    x.toml:16: `parameters.My-Name`: found this name, allowed are identifiers: a letter `a-z`, then up to 63 of `a-z`, `0-9` and `_`
    x.toml:17: `parameters.a`: found a list, expected an integer, a finite number, a string or a truth value
    x.toml:18: `parameters.b`: found NaN, expected an integer, a finite number, a string or a truth value
    x.toml:19: `parameters.c`: found "\0", allowed are strings without control characters
    5 problems; nothing was run
    "#);
}

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
    assert_snapshot!(refused("this is no TOML", &[]), @r"
    x.toml:1: not valid TOML: key with no value, expected `=`
    1 problem; nothing was run
    ");
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("x = {}1{}\n", "[".repeat(40), "]".repeat(40));
    assert_snapshot!(refused(&deep, &[]), @r"
    x.toml:1: sections and lists are nested too deep, nothing here needs over 3 levels
    1 problem; nothing was run
    ");
    assert_snapshot!(refused(&format!("{} = 1", ["a"; 500].join(".")), &[]), @r"
    x.toml: sections and lists are nested too deep, nothing here needs over 3 levels
    1 problem; nothing was run
    ");
    let deepest = format!("{{{} = ", ["a"; 79].join(".")).repeat(70);
    refused(&format!("x = {deepest}1{}", "}".repeat(70)), &[]);
    refused(&format!("x = {}", "[".repeat(500_000)), &[]);
}

#[test]
fn edits_win_over_the_file_and_later_ones_over_earlier() {
    let set = [
        "spectrum.seeds=[7]",
        "lake.root=/tmp/a lake=b",
        "source.splits.validation = 'v.parquet'",
        "spectrum.timesteps=5",
        "spectrum.timesteps = 6",
        "curriculum={epochs = 2, curriculum_epochs = 1}",
        "parameters.look=\"1\"",
    ];
    let config = sound(SMALL, &set);
    assert_eq!(config.spectrum.seeds, [7]);
    assert_eq!(config.lake_root, "/tmp/a lake=b");
    assert_eq!(config.source.splits[1], (Split::Validation, vec!["v.parquet".to_owned()]));
    assert_eq!(config.spectrum.timesteps, 6);
    assert_eq!(config.curriculum.epochs, 2);
    assert_eq!(config.parameters["look"], Parameter::String("1".to_owned()));
}

#[test]
fn edits_are_reported_under_their_own_name() {
    let set = [
        "spectrum.time_steps=3",
        "spectrum.seeds=[1,",
        "spectrum.timesteps=many",
        "name.first=x",
        "no equals sign",
        "a..b=1",
        "fliter.max_attempts=2",
        "spectrum.seeds=[1, 1]",
    ];
    assert_snapshot!(wrong("", &set), @r#"
    --set spectrum.time_steps=3: unknown key `spectrum.time_steps`, did you mean `timesteps`?
    --set spectrum.seeds=[1,: `spectrum.seeds`: found "[1,": unclosed array, expected `]`
    --set spectrum.timesteps=many: `spectrum.timesteps`: found "many", expected an integer 1 to 1000
    --set name.first=x: `name`: found "small", only keys of a section can be set
    --set no equals sign: expected `key=value`, found no `=`
    --set a..b=1: found the key "a..b", expected a key such as `spectrum.timesteps`
    --set fliter.max_attempts=2: unknown section `fliter`, did you mean `filter`?
    --set spectrum.seeds=[1, 1]: `spectrum.seeds[1]`: found 1 a second time
    8 problems; nothing was run
    "#);
}

#[test]
fn diagnostics_are_json_too() {
    let json = serde_json::to_string_pretty(&refused(&format!("{SMALL}time_steps = 3\n"), &[]));
    assert_snapshot!(json.unwrap(), @r#"
    [
      {
        "file": "x.toml",
        "line": 14,
        "key": "spectrum.time_steps",
        "message": "unknown key `spectrum.time_steps`",
        "help": "did you mean `timesteps`?"
      }
    ]
    "#);
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
    TMP/bytes.toml: not UTF-8 text, line 2 is the first that is not
    1 problem; nothing was run
    ");
    assert_snapshot!(load("long.toml", &vec![b'\n'; 1_048_577]), @r"
    TMP/long.toml: over 1048576 bytes long, which no pipeline is
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
fn no_mutation_of_a_file_or_an_edit_makes_it_panic() {
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

#[test]
fn strategies_say_what_else_they_need() {
    let of = |keys: &str| wrong(&format!("[curriculum]\n{keys}\n"), &[]);
    assert_snapshot!(of("strategy = \"fixed\""), @r"
    x.toml: `curriculum.level`: missing, and the strategy `fixed` needs it: one of 0, 50
    1 problem; nothing was run
    ");
    assert_snapshot!(of("strategy = \"adaptive\""), @r"
    x.toml:15: `curriculum.strategy`: found `adaptive`, which needs `curriculum.probe_size` and `validation.sources` above 0
    1 problem; nothing was run
    ");
    assert_snapshot!(of("level = 30"), @r"
    x.toml:15: `curriculum.level`: found 30, allowed are those of the spectrum: 0, 50
    1 problem; nothing was run
    ");
    assert_snapshot!(wrong("[curriculum]\nstrategy = \"text_only\"\n", &["spectrum.image_guidance=[50]"]), @r"
    x.toml:15: `curriculum.strategy`: found `text_only`, which needs 0 in `spectrum.image_guidance` (50)
    1 problem; nothing was run
    ");
}

/// Nothing here may take the stack, or seconds.
#[test]
fn bombs_are_refused_in_one_line() {
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
fn of_many_problems_the_first_are_listed() {
    let keys: String = (0..20_000).map(|key| format!("k{key}=1\n")).collect();
    let problems = Config::parse(&keys, "x.toml", &[]).unwrap_err();
    assert_eq!(problems.as_slice().len(), 1001);
    let said = problems.to_string();
    assert!(said.len() < 1 << 20, "{} bytes", said.len());
    // nine keys are missing
    assert!(said.contains("x.toml: 19009 further problems are not listed\n"), "{}", &said[said.len() - 200..]);
    let seeds = format!("[spectrum]\nseeds = [{}]", "-1,".repeat(50_000));
    assert!(Config::parse(&seeds, "x.toml", &[]).unwrap_err().to_string().len() < 1 << 20);
}

#[test]
fn a_file_of_a_million_keys_is_not_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let keys: String = (0..1_000_000).map(|key| format!("k{key}=1\n")).collect();
    std::fs::write(file.path(), keys).unwrap();
    let said = Config::load(file.path(), &[]).unwrap_err().to_string();
    assert!(said.contains("over 1048576 bytes long"), "{said}");
}
