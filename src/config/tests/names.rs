//! Sections in which the user chooses names: classifiers, splits, parameters, steps, expectations.

use insta::assert_snapshot;

use super::wrong;

#[test]
fn names_of_classifiers_and_seeds_of_splits_are_checked() {
    assert_snapshot!(
        wrong(
            "[models.classifiers]\n\"Res-Net\" = \"r\"\nvit = 3\n[hard_samples]\nclassifier = \"dino\"\n\
            [learner]\narchitectures = [\"mlp\", \"resnet\"]\n[experiment]\nlearner_seeds = 1\n\
            [[experiment.split]]\nseed = 1\nset = \"root\"\n[[experiment.split]]\nseed = 1\n",
            &[]
        ),
        @r#"
    x.toml:15: `models.classifiers.Res-Net`: not a valid name, expected an identifier (a letter `a-z`, then up to 63 of `a-z`, `0-9` and `_`)
    x.toml:16: `models.classifiers.vit`: found 3, expected a directory, or a URL with `hf://` (`hf://ORG/REPO[@REVISION][/FOLDER]`), `s3://`, `gs://` or `az://`, without empty, `.` or `..` parts
    x.toml:18: `hard_samples.classifier`: found "dino", expected a name of `[models.classifiers]`
    x.toml:20: `learner.architectures[1]`: found "resnet", expected one of `softmax`, `mlp` or `cnn`
    x.toml:22: `experiment.learner_seeds`: found 1, expected an integer from 2 to 1000 (learners)
    x.toml:25: `experiment.split[0].set`: found "root", expected an edit of the form `section.key=value`, without control characters
    x.toml:27: `experiment.split[1].seed`: duplicate value 1
    7 problems; nothing was run
    "#
    );
}

#[test]
fn steps_and_expectations_are_complete_and_distinct() {
    let more = "[[step]]\ntable = \"t\"\nsql = \"t.sql\"\n[[step]]\ntable = \"t\"\n\
                [[step]]\nsql = \"SELECT 1\"\ntabel = \"u\"\n[[expect]]\nname = \"e\"\nsql = \" \"\n\
                [[expect]]\nname = \"e\"\nsql = \"SELECT 1\"\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:17: `step[1].sql`: missing, expected a relative path that ends in `.sql`, without empty, `.` or `..` parts
    x.toml:18: `step[1].table`: duplicate value "t"
    x.toml:19: `step[2].table`: missing, expected an identifier (a letter `a-z`, then up to 63 of `a-z`, `0-9` and `_`)
    x.toml:20: `step[2].sql`: found "SELECT 1", expected a relative path that ends in `.sql`, without empty, `.` or `..` parts
    x.toml:21: unknown key `step[2].tabel`; did you mean `table`?
    x.toml:24: `expect[0].sql`: found " ", expected an SQL query (a non-empty string without control characters)
    x.toml:26: `expect[1].name`: duplicate value "e"
    7 problems; nothing was run
    "#);
}

#[test]
fn parameters_are_plain_values_and_do_not_redefine_built_in_ones() {
    let more = "[parameters]\nseed = 1\nMy-Name = 2\na = [1]\nb = nan\nc = \"\\u0000\"\n";
    assert_snapshot!(wrong(more, &[]), @r#"
    x.toml:15: `parameters.seed`: `$seed` is a built-in parameter; set `seed` instead
    x.toml:16: `parameters.My-Name`: not a valid name, expected an identifier (a letter `a-z`, then up to 63 of `a-z`, `0-9` and `_`)
    x.toml:17: `parameters.a`: found a list, expected an integer, a finite number, a string or a boolean
    x.toml:18: `parameters.b`: found NaN, expected an integer, a finite number, a string or a boolean
    x.toml:19: `parameters.c`: found "\0", expected a string without control characters
    5 problems; nothing was run
    "#);
}
