//! A lake that cannot be opened, and one that was damaged.

use insta::assert_snapshot;

use super::{said, shipped, small};
use crate::support::stderr;

#[test]
fn a_lake_that_cannot_be_written() {
    let (workspace, _guard) = small();
    // Below a file, because root may write anywhere else.
    std::fs::write(workspace.lake(), "a file").unwrap();
    assert_snapshot!(said(&mut workspace.command("run", &[])), @r"
    exit code 1
    error: `file://[dir]/lake/digits_lt/feedback`: its log cannot be read: Failed to read delta log object: Generic LocalFileSystem error: Unable to walk dir: IO error for operation on [dir]/lake/digits_lt/feedback/_delta_log: Not a directory (os error 20)
    ");
    assert_eq!(std::fs::read_to_string(workspace.lake()).unwrap(), "a file");
}

#[test]
fn a_lake_where_no_store_is() {
    let (workspace, _guard) = shipped();
    assert_snapshot!(said(workspace.command("check", &[]).args(["--set", "lake.root=ftp://a/b"])), @r#"
    exit code 2
    error: --set lake.root=ftp://a/b: `lake.root`: found "ftp://a/b", expected a directory, or a URL with `file://`, `s3://`, `gs://`, `az://` or `memory://`
    1 problem; nothing was run
    "#);
    let mut process = crate::support::program();
    process.arg("check").arg(&workspace.pipeline).args(["--lake", "memory://bucket/lake"]);
    assert_snapshot!(said(&mut process), @r"
    exit code 2
    error: `memory://bucket/lake`: URLs with the scheme `memory` are not supported; allowed are a directory, and URLs with `file://`, `s3://`, `gs://` or `az://`
    1 problem; nothing was run
    ");
}

#[test]
fn a_data_file_that_was_deleted() {
    let (mut workspace, _guard) = small();
    workspace.edit("spectrum.image_guidance=[90]");
    workspace.edit("expect=[]");
    workspace.run();
    let folder = workspace.lake().join("digits_lt/candidates");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut deleted = 0;
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "parquet")) {
        std::fs::remove_file(file).unwrap();
        deleted += 1;
    }
    assert!(deleted > 0);
    let verified = workspace.command("verify", &[]).output().unwrap();
    assert_eq!(verified.status.code(), Some(1), "{}", stderr(&verified));
    let mut settings = insta::Settings::clone_current();
    settings.add_filter("-[0-9a-f]{16}\\.parquet", "-[digest].parquet");
    settings.bind(|| {
        assert_snapshot!(String::from_utf8_lossy(&verified.stdout), @"candidates: file `rows-[digest].parquet` does not exist");
        assert_snapshot!(said(&mut workspace.command("sql", &["SELECT count(DISTINCT prompt) FROM candidates"])), @r"
        exit code 1
        error: query `sql`: a file cannot be read: Parquet error: Failed to fetch metadata for file [dir]/lake/digits_lt/candidates/rows-[digest].parquet: Object Store error: Object at location [dir]/lake/digits_lt/candidates/rows-[digest].parquet not found: No such file or directory (os error 2)
        hint: `discl-pipe verify` finds what is wrong with a lake
        ");
    });
}
