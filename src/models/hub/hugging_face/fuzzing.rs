//! Checks of what a hub answers, for tests with damaged answers and for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use super::*;
use crate::limited_read::damaged::{assert_clean, without_own_panic};

/// A listing of a repository is an error, or a record whose files stay in the snapshot.
pub(crate) fn listing(cache: &Path, body: &[u8]) {
    without_own_panic(|| {
        let record = match parsed(body) {
            Ok(record) => record,
            Err(reason) => return assert_clean(&reason),
        };
        assert!(is_commit(&record.commit));
        let saved = serde_json::to_vec(&record).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&saved).unwrap(), record);
        for folder in ["", "clip"] {
            let folder = folder.to_owned();
            let wanted = HubFolder { repository: "a/b".to_owned(), revision: "main".to_owned(), folder };
            let endpoint = "http://127.0.0.1:9".to_owned();
            let settings = Settings { endpoint, cache: cache.to_owned(), token: None, offline: true };
            let hub = Hub::open("hf://a/b", &wanted, settings).unwrap_or_else(|error| panic!("{error}"));
            match hub.needed(&record) {
                Ok(needed) => check_files(&hub, &record.commit, &needed),
                Err(error) => assert_clean(&error::chain(&error)),
            }
        }
    });
}

/// Places every file, so that a wrong place would show.
fn check_files(hub: &Hub<'_>, commit: &str, needed: &[&HubFile]) {
    total(needed);
    fs::create_dir_all(hub.folder().join("blobs")).unwrap();
    let snapshot = hub.snapshot(commit);
    for file in needed {
        let blob = file.blob.clone().unwrap_or_else(|| "unnamed".to_owned());
        if let Err(error) = hub.place(commit, file, &blob) {
            assert_clean(&error::chain(&error));
            continue;
        }
        let placed = snapshot.join(&file.path);
        let folder = fs::canonicalize(placed.parent().unwrap()).unwrap();
        assert!(folder.starts_with(fs::canonicalize(&snapshot).unwrap()), "{}", placed.display());
        let target = folder.join(fs::read_link(&placed).unwrap());
        assert_eq!(
            fs::canonicalize(target.parent().unwrap().join("..")).unwrap(),
            fs::canonicalize(hub.folder()).unwrap()
        );
    }
    fs::remove_dir_all(snapshot).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limited_read::damaged::{each_copy, in_bounds};

    #[test]
    fn damaged_listings_are_errors_or_stay_in_the_snapshot() {
        in_bounds(|| {
            let cache = tempfile::tempdir().unwrap();
            let (git, sha) = ("a".repeat(40), "b".repeat(64));
            let file = |path: &str| serde_json::json!({"rfilename": path, "size": 300, "blobId": git});
            let large = |path: &str| {
                let lfs = serde_json::json!({"sha256": sha, "size": 5_000_000_000_u64, "pointerSize": 130});
                serde_json::json!({"rfilename": path, "size": 130, "blobId": git, "lfs": lfs})
            };
            let siblings = [
                file("model_index.json"),
                file("unet/config.json"),
                large("unet/model.onnx"),
                large("unet/model.onnx_data"),
                file("tokenizer/merges.txt"),
                file("clip/config.json"),
                large("clip/model.onnx"),
                file("README.md"),
            ];
            let whole = serde_json::json!({"id": "a/b", "sha": "c".repeat(40), "siblings": siblings}).to_string();
            listing(cache.path(), whole.as_bytes());
            assert!(parsed(whole.as_bytes()).is_ok());
            each_copy(whole.as_bytes(), 300, |damaged| listing(cache.path(), damaged));
            for (from, to) in [
                ("unet/config.json", "unet/../../../../../x.json"),
                ("unet/config.json", "unet/a\\nb.json"),
                ("\"size\":300", "\"size\":18446744073709551615"),
                ("clip/config.json", "clip//x.json"),
                ("clip/model.onnx", "/clip/../model.onnx"),
                ("\"c", "\"\\u001b[31m"),
            ] {
                assert!(whole.contains(from), "{from}");
                listing(cache.path(), whole.replace(from, to).as_bytes());
            }
        });
    }
}
