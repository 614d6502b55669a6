//! Bad pipeline files: keys, values, edits and steps.

use insta::assert_snapshot;

use super::{check, rewritten, said, shipped, small};

#[test]
fn unknown_key() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["spectrum.timestep=3"]), @r"
    exit code 2
    error: --set spectrum.timestep=3: unknown key `spectrum.timestep`; did you mean `timesteps`?
    1 problem; nothing was run
    ");
}

#[test]
fn wrong_type() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["spectrum.timesteps=\"ten\""]), @r#"
    exit code 2
    error: --set spectrum.timesteps="ten": `spectrum.timesteps`: found "ten", expected an integer from 1 to 1000
    1 problem; nothing was run
    "#);
}

#[test]
fn guidance_beyond_the_real_image() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["spectrum.image_guidance=[0,101]"]), @r"
    exit code 2
    error: --set spectrum.image_guidance=[0,101]: `spectrum.image_guidance[1]`: found 101, expected an integer from 0 to 100 (percent of the real image kept)
    1 problem; nothing was run
    ");
}
#[test]
fn several_errors_are_said_at_once() {
    let (mut workspace, _guard) = shipped();
    let lines = [
        ("seed = 0", "seeed = 0"),
        ("guidance_scale", "guidance_scale = 400"),
        ("scheduler", "scheduler = \"ddmi\""),
        ("max_attempts", "max_attempts = \"three\""),
        ("hard_share", "hard_share = 1.0"),
    ];
    rewritten(&mut workspace, &lines);
    assert_snapshot!(check(&mut workspace, &[]), @r#"
    exit code 2
    error: [dir]/bad.toml:3: unknown key `seeed`; did you mean `seed`?
    [dir]/bad.toml:32: `spectrum.guidance_scale`: found 400, expected a number from 0 to 100 (factor)
    [dir]/bad.toml:33: `spectrum.scheduler`: found "ddmi", expected one of `ddim`, `pndm`, `euler`, `euler_ancestral`, `dpmpp_2m`, `dpmpp_2m_karras` or `lcm`; did you mean `ddim`?
    [dir]/bad.toml:37: `filter.max_attempts`: found "three", expected an integer from 1 to 100
    [dir]/bad.toml:43: `curriculum.hard_share`: found 1.0, expected a number from 0 to less than 1 (share of images)
    5 problems; nothing was run
    "#);
}

#[test]
fn no_toml() {
    let (mut workspace, _guard) = shipped();
    rewritten(&mut workspace, &[("seeds ", "seeds = [10, 20")]);
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: [dir]/bad.toml:31: not valid TOML: missing comma between array elements, expected `,`
    1 problem; nothing was run
    ");
}

#[test]
fn no_pipeline() {
    let (mut workspace, _guard) = shipped();
    workspace.pipeline = workspace.path("none.toml");
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: [dir]/none.toml: no such file
    1 problem; nothing was run
    ");
    workspace.pipeline = workspace.path("");
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: [dir]/: expected a pipeline's TOML file, found a directory; did you mean a pipeline with this `source.root`? (see docs/quickstart.md)
    1 problem; nothing was run
    ");
}

#[test]
fn edits_that_are_none() {
    let (workspace, _guard) = shipped();
    let said = ["spectrum", "spectral.seeds=3", "spectrum.seeds=[1,", "seed=x"].map(|edit| {
        let said = said(&mut workspace.command("check", &["--set", edit]));
        assert!(!workspace.lake().exists());
        said
    });
    assert_snapshot!(said.join("\n"), @r#"
    exit code 2
    error: --set spectrum: expected `key=value`, found no `=`
    1 problem; nothing was run

    exit code 2
    error: --set spectral.seeds=3: unknown section `spectral`; did you mean `spectrum`?
    1 problem; nothing was run

    exit code 2
    error: --set spectrum.seeds=[1,: `spectrum.seeds`: found "[1,": unclosed array, expected `]`
    1 problem; nothing was run

    exit code 2
    error: --set seed=x: `seed`: found "x", expected a 64-bit integer
    1 problem; nothing was run
    "#);
}

#[test]
fn a_step_that_is_not_there() {
    let (workspace, _guard) = small();
    assert_snapshot!(said(&mut workspace.command("run", &["--until", "imgaes"])), @r"
    exit code 2
    error: --until imgaes: there is no such step; the steps are `pixels`, `images`, `classes`, `hard_samples`, `candidates`, `spectrum`, `scores`, `kept`, `validation`, `probe`, `progress`, `schedule`, `manifest`
    1 problem; nothing was run
    ");
    assert!(!workspace.lake().exists());
}
