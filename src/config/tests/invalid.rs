//! Diagnostics of a single key or section.

use insta::assert_snapshot;

use super::{SMALL, changed, refused, wrong};

#[test]
fn every_missing_key_of_an_empty_file_is_reported() {
    assert_snapshot!(refused("", &[]), @r"
    x.toml: `name`: missing, expected a string of 1 to 64 characters from `a-z`, `0-9`, `_` and `-`
    x.toml: `lake.root`: missing, expected a directory, or a URL with `file://`, `s3://`, `gs://`, `az://` or `memory://`
    x.toml: `source.kind`: missing, expected one of `parquet`, `list`, `imagefolder`, `csv` or `webdataset`
    x.toml: `source.root`: missing, expected a directory, or a URL with `file://`, `s3://`, `gs://`, `az://` or `memory://`
    x.toml: `source.splits.train`: missing, expected a path relative to `source.root`, without empty, `.` or `..` parts, which may have ranges such as `{000..146}`, `*` and `?`, or a list of them
    x.toml: `models.diffusion`: missing, expected a directory, or a URL with `hf://` (`hf://ORG/REPO[@REVISION][/FOLDER]`), `s3://`, `gs://` or `az://`, without empty, `.` or `..` parts
    x.toml: `models.clip`: missing, expected a directory, or a URL with `hf://` (`hf://ORG/REPO[@REVISION][/FOLDER]`), `s3://`, `gs://` or `az://`, without empty, `.` or `..` parts
    x.toml: `spectrum.image_guidance`: missing, expected a list, each item an integer from 0 to 100 (percent of the real image kept)
    x.toml: `spectrum.seeds`: missing, expected a list, each item an integer of at least 0
    9 problems; nothing was run
    ");
}

#[test]
fn problems_are_in_file_order_then_edits_then_missing_keys() {
    let text = SMALL
        .replace("root = \"lake\"\n", "")
        .replace("[0, 50]", "[\n  0,\n  101,\n  \"50\",\n]\ntime_steps = 3")
        .replace("\"small\"", "\"Small name\"");
    let set = ["filter.max_attempts=0", "spectrum.schedular=ddim"];
    assert_snapshot!(refused(&text, &set), @r#"
    x.toml:1: `name`: found "Small name", expected a string of 1 to 64 characters from `a-z`, `0-9`, `_` and `-`
    x.toml:13: `spectrum.image_guidance[1]`: found 101, expected an integer from 0 to 100 (percent of the real image kept)
    x.toml:14: `spectrum.image_guidance[2]`: found "50", expected an integer from 0 to 100 (percent of the real image kept)
    x.toml:16: unknown key `spectrum.time_steps`; did you mean `timesteps`?
    --set filter.max_attempts=0: `filter.max_attempts`: found 0, expected an integer from 1 to 100
    --set spectrum.schedular=ddim: unknown key `spectrum.schedular`; did you mean `scheduler`?
    x.toml: `lake.root`: missing, expected a directory, or a URL with `file://`, `s3://`, `gs://`, `az://` or `memory://`
    7 problems; nothing was run
    "#);
}

#[test]
fn an_unknown_key_gets_a_suggestion_or_the_list_of_keys() {
    let more = "time_steps = 3\nlambda = 1\n[filtre]\nx = 1\n[validation]\nsources = 100\n";
    assert_snapshot!(wrong(more, &[]), @r"
    x.toml:14: unknown key `spectrum.time_steps`; did you mean `timesteps`?
    x.toml:15: unknown key `spectrum.lambda`; expected one of `image_guidance`, `seeds`, `timesteps`, `guidance_scale`, `scheduler`, `negative_prompt`, `noise`, `pure_noise_at_zero`, `width`, `height`, `keep_aspect` or `area`
    x.toml:16: unknown section `filtre`; did you mean `filter`?
    3 problems; nothing was run
    ");
}

#[test]
fn a_key_of_another_section_is_reported_with_its_section() {
    let more = "min_text_similarity = 0.5\nseed = 1\n[curriculum]\nhard_fraction = 0.5\nmemory_limit_mib = 16\n";
    assert_snapshot!(wrong(more, &["timesteps=3"]), @r"
    x.toml:14: unknown key `spectrum.min_text_similarity`; it is a key of `[filter]`
    x.toml:15: unknown key `spectrum.seed`; it is a key of the top level, `[curriculum]` and `[[experiment.split]]`, or did you mean `seeds`?
    x.toml:17: unknown key `curriculum.hard_fraction`; it is a key of `[hard_samples]`, or did you mean `non_hard_fraction`?
    x.toml:18: unknown key `curriculum.memory_limit_mib`; it is a key of `[cuda]` and `[queries]`
    --set timesteps=3: unknown key `timesteps`; it is a key of `[spectrum]`
    5 problems; nothing was run
    ");
}

#[test]
fn keys_that_need_quotes_are_shown_on_one_line() {
    assert_snapshot!(wrong("\"a\\nb.c\" = 1\n\"\" = 2\n", &[]), @r#"
    x.toml:14: unknown key `spectrum."a\nb.c"`; expected one of `image_guidance`, `seeds`, `timesteps`, `guidance_scale`, `scheduler`, `negative_prompt`, `noise`, `pure_noise_at_zero`, `width`, `height`, `keep_aspect` or `area`
    x.toml:15: unknown key `spectrum.""`; expected one of `image_guidance`, `seeds`, `timesteps`, `guidance_scale`, `scheduler`, `negative_prompt`, `noise`, `pure_noise_at_zero`, `width`, `height`, `keep_aspect` or `area`
    2 problems; nothing was run
    "#);
}

#[test]
fn a_value_of_a_wrong_type_is_reported_with_the_type() {
    let more = "timesteps = \"50\"\nguidance_scale = true\nscheduler = 1\n\
                negative_prompt = [\"a\"]\n[filter]\nmax_attempts = 2026-01-01\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:14: `spectrum.timesteps`: found "50", expected an integer from 1 to 1000
    x.toml:15: `spectrum.guidance_scale`: found true, expected a number from 0 to 100 (factor)
    x.toml:16: `spectrum.scheduler`: found 1, expected one of `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras` or `lcm`
    x.toml:17: `spectrum.negative_prompt`: found a list, expected a string without control characters
    x.toml:19: `filter.max_attempts`: found the date or time 2026-01-01, expected an integer from 1 to 100
    5 problems; nothing was run
    "#);
}

#[test]
fn a_value_out_of_range_is_reported_with_the_range() {
    let more = "timesteps = 1001\nguidance_scale = inf\n\
                [filter]\nmin_text_similarity = nan\n[curriculum]\nhard_share = 1\n\
                non_hard_fraction = -0.1\n[hard_samples]\nmax_class_count = 0\n";
    assert_snapshot!(wrong(more, &[]), @r"
    x.toml:14: `spectrum.timesteps`: found 1001, expected an integer from 1 to 1000
    x.toml:15: `spectrum.guidance_scale`: found inf, expected a number from 0 to 100 (factor)
    x.toml:17: `filter.min_text_similarity`: found NaN, expected a number from -1 to 1 (cosine)
    x.toml:19: `curriculum.hard_share`: found 1, expected a number from 0 to less than 1 (share of images)
    x.toml:20: `curriculum.non_hard_fraction`: found -0.1, expected a number from 0 to 1 (share of images)
    x.toml:22: `hard_samples.max_class_count`: found 0, expected an integer of at least 1 (images)
    6 problems; nothing was run
    ");
}

#[test]
fn lists_are_not_empty_and_have_no_duplicates() {
    let text = SMALL.replace("[0, 50]", "[]").replace("[1, 2]", "[1, 2, 1, -3]");
    assert_snapshot!(refused(&text, &[]), @r"
    x.toml:12: `spectrum.image_guidance`: found an empty list, expected at least one item
    x.toml:13: `spectrum.seeds[2]`: duplicate value 1
    x.toml:13: `spectrum.seeds[3]`: found -3, expected an integer of at least 0
    3 problems; nothing was run
    ");
}

#[test]
fn choices_are_listed() {
    let text = SMALL.replace("\"parquet\"", "\"imagefolders\"\nlists = \"l\"") + "scheduler = \"eular\"\n";
    assert_snapshot!(refused(&text, &[]), @r#"
    x.toml:5: `source.kind`: found "imagefolders", expected one of `parquet`, `list`, `imagefolder`, `csv` or `webdataset`; did you mean `imagefolder`?
    x.toml:15: `spectrum.scheduler`: found "eular", expected one of `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras` or `lcm`; did you mean `euler`?
    2 problems; nothing was run
    "#);
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
fn names_and_paths_follow_their_rules() {
    assert_snapshot!(changed("\"small\"", "\"../small\""), @r#"
    x.toml:1: `name`: found "../small", expected a string of 1 to 64 characters from `a-z`, `0-9`, `_` and `-`
    1 problem; nothing was run
    "#);
    assert_snapshot!(changed("\"lake\"", "\"ftp://host/lake\""), @r#"
    x.toml:3: `lake.root`: found "ftp://host/lake", expected a directory, or a URL with `file://`, `s3://`, `gs://`, `az://` or `memory://`
    1 problem; nothing was run
    "#);
    assert_snapshot!(changed("\"models/d\"", "\"\""), @r#"
    x.toml:9: `models.diffusion`: found "", expected a directory, or a URL with `hf://` (`hf://ORG/REPO[@REVISION][/FOLDER]`), `s3://`, `gs://` or `az://`, without empty, `.` or `..` parts
    1 problem; nothing was run
    "#);
    let splits = "{ train = [\"/a\", \"b/../c\", 3], validation = \"v\", test = [\"v\"], tset = 1 }";
    assert_snapshot!(changed("{ train = \"train.parquet\" }", splits), @r#"
    x.toml:7: `source.splits.train[0]`: found "/a", expected a path relative to `source.root`, without empty, `.` or `..` parts
    x.toml:7: `source.splits.train[1]`: found "b/../c", expected a path relative to `source.root`, without empty, `.` or `..` parts
    x.toml:7: `source.splits.train[2]`: found 3, expected a path relative to `source.root`, without empty, `.` or `..` parts
    x.toml:7: `source.splits.test`: found "v", which is also in `source.splits.validation`
    x.toml:7: unknown key `source.splits.tset`; did you mean `test`?
    5 problems; nothing was run
    "#);
    let more = "[filter]\nsql = \"../x.sql\"\n[hard_samples]\nsql = \"a/.sql\"\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:15: `filter.sql`: found "../x.sql", expected a relative path that ends in `.sql`, without empty, `.` or `..` parts
    x.toml:17: `hard_samples.sql`: found "a/.sql", expected a relative path that ends in `.sql`, without empty, `.` or `..` parts
    2 problems; nothing was run
    "#);
}

#[test]
fn control_characters_are_refused_and_never_printed() {
    let more = "negative_prompt = \"a\\u001B[31mb\"\n[[expect]]\nname = \"a\\nb\"\nsql = \"\"\"\na\tb\"\"\"\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:14: `spectrum.negative_prompt`: found "a\u{1b}[31mb", expected a string without control characters
    x.toml:16: `expect[0].name`: found "a\nb", expected a non-empty string without control characters
    2 problems; nothing was run
    "#);
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
    --set spectrum.time_steps=3: unknown key `spectrum.time_steps`; did you mean `timesteps`?
    --set spectrum.seeds=[1,: `spectrum.seeds`: found "[1,": unclosed array, expected `]`
    --set spectrum.timesteps=many: `spectrum.timesteps`: found "many", expected an integer from 1 to 1000
    --set name.first=x: `name`: found "small", which is not a section
    --set no equals sign: expected `key=value`, found no `=`
    --set a..b=1: found the key "a..b", expected one such as `spectrum.timesteps`
    --set fliter.max_attempts=2: unknown section `fliter`; did you mean `filter`?
    --set spectrum.seeds=[1, 1]: `spectrum.seeds[1]`: duplicate value 1
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
