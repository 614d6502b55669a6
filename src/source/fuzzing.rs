//! Checks of data sets, for tests with damaged files and for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::{
    config::Config,
    error::{catch_panic, chain},
    limited_read::damaged::{assert_clean, without_own_panic},
};

/// A Parquet file is an error, or a data set whose images can be asked for.
pub(crate) fn parquet(folder: &Path, bytes: &[u8]) {
    fs::write(folder.join("a.parquet"), bytes).unwrap();
    check(folder, "kind = \"parquet\"\nsplits = { train = \"a.parquet\" }");
}

const MARK: &[u8] = b"\n=====\n";

/// Data sets of every other kind, and files with the texts of classes. The first byte of `input` selects one; `=====` on a
/// line of its own is between the files of two splits.
pub(crate) fn listing(folder: &Path, input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let (train, test) = match bytes.windows(MARK.len()).position(|window| window == MARK) {
        Some(at) => (&bytes[..at], Some(&bytes[at + MARK.len()..])),
        None => (bytes, None),
    };
    let root = folder.join("data");
    fs::create_dir_all(root.join("cat")).unwrap();
    for image in ["a.jpg", "b.jpg", "cat/0001.png"] {
        fs::write(root.join(image), image).unwrap();
    }
    let splits = |name: &str, file: &str| {
        let write = |split: &str, bytes: &[u8]| {
            let path = root.join(file.replace("SPLIT", split));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
            format!("{split} = \"{}\"", name.replace("SPLIT", split))
        };
        let (train, test) = (Some(write("train", train)), test.map(|test| write("test", test)));
        format!("splits = {{ {} }}", train.into_iter().chain(test).collect::<Vec<_>>().join(", "))
    };
    match choice % 16 {
        0 => check(&root, &format!("kind = \"list\"\n{}", splits("SPLIT.txt", "SPLIT.txt"))),
        1 => {
            fs::write(root.join("all.csv"), train).unwrap();
            let splits = "splits = { train = [\"train\", \"0\"], test = \"test\" }";
            check(&root, &format!("kind = \"csv\"\ntable = \"all.csv\"\nsplit_column = \"split\"\n{splits}"));
        }
        2 => check(&root, &format!("kind = \"csv\"\npath_prefix = \"cat/\"\n{}", splits("SPLIT.csv", "SPLIT.csv"))),
        3 => check(&root, &format!("kind = \"imagefolder\"\n{}", splits("SPLIT", "SPLIT/metadata.csv"))),
        4 => check(&root, &format!("kind = \"imagefolder\"\n{}", splits("SPLIT", "SPLIT/metadata.jsonl"))),
        5 | 6 => check(&root, &format!("kind = \"webdataset\"\n{}", splits("SPLIT.tar", "SPLIT.tar"))),
        7 => {
            let splits = splits("SPLIT.tar", "SPLIT.tar");
            check(&root, &format!("kind = \"webdataset\"\nlabel_column = \"json:label\"\n{splits}"));
        }
        8 => classes(folder, "classes.txt", bytes),
        9 => classes(folder, "classes.csv", bytes),
        10 => classes(folder, "classes.json", bytes),
        _ => texts(folder, *choice, bytes),
    }
    fs::remove_dir_all(&root).unwrap();
}

/// Class names are a problem of the file, or names.
fn classes(folder: &Path, name: &str, bytes: &[u8]) {
    fs::write(folder.join(name), bytes).unwrap();
    without_own_panic(|| match Classes::read(&folder.join(name)) {
        Ok(classes) => {
            for name in (0..100).filter_map(|label| classes.get(label)) {
                assert!(!name.trim().is_empty() && !name.contains(char::is_control), "{name:?}");
            }
        }
        Err(error) => assert_clean(&chain(&error)),
    });
}

/// Texts of classes are a problem of the file, or texts.
fn texts(folder: &Path, choice: u8, bytes: &[u8]) {
    without_own_panic(|| match choice % 16 {
        14 => config::fuzzing::braces(bytes),
        13 => {
            fs::write(folder.join("names.json"), bytes).unwrap();
            if let Err(error) = common_names(Some(&folder.join("names.json"))) {
                assert_clean(&chain(&error));
            }
        }
        11 | 12 => {
            let path = folder.join(if choice % 16 == 11 { "texts.json" } else { "texts.jsonl" });
            fs::write(&path, bytes).unwrap();
            match side_tables::read_descriptions(&path) {
                Ok(found) => assert!(found.values().flatten().all(|text| !text.trim().is_empty())),
                Err(error) => assert_clean(&chain(&error)),
            }
        }
        _ => {
            let Some(found) = std::str::from_utf8(bytes).ok().map(lines) else { return };
            match found {
                Ok(found) => {
                    let line = |line: &Line| serde_json::to_string(line).unwrap() + "\n";
                    let again: String = found.iter().map(line).collect();
                    assert_eq!(lines(&again).unwrap(), found);
                }
                Err(problem) => assert_clean(&problem),
            }
        }
    });
}

/// Opens the data set that these lines of `[source]` describe, and reads its images.
fn check(root: &Path, lines: &str) {
    let text = format!(
        "name = \"t\"\nlake.root = \"lake\"\nmodels = {{ diffusion = \"d\", clip = \"c\" }}\n\
         spectrum = {{ image_guidance = [0], seeds = [1] }}\n[source]\nroot = \"{}\"\n{lines}",
        root.display()
    );
    let config = Config::parse(&text, "t.toml", &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    without_own_panic(|| {
        if let Err(error) = runtime.block_on(catch_panic(read_all(&config.source))) {
            assert_clean(&chain(&error));
        }
    });
}

async fn read_all(config: &config::Source) -> Result<()> {
    let source = Source::open(config, "").await?;
    let column = |name: &str| Arc::clone(source.listing().column_by_name(name).unwrap());
    let paths = column("path");
    let paths: Vec<Option<&str>> = paths.as_string::<i32>().iter().collect();
    assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len());
    assert!(column("label").as_primitive::<arrow::datatypes::Int64Type>().iter().all(|label| label.unwrap() >= 0));
    for path in paths.iter().flatten() {
        let inside = path.split('/').all(|part| !["", ".", ".."].contains(&part));
        assert!(inside && !path.contains(char::is_control), "{path:?}");
    }
    let some: Vec<_> = paths.into_iter().take(64).collect();
    let images = source.read(&some).await?;
    assert_eq!(images.len(), some.len());
    for problem in images.iter().filter_map(|image| image.as_ref().err()) {
        assert_clean(problem);
    }
    assert_eq!(source.read(&some).await?, images, "a second look shows the same");
    Ok(())
}

#[cfg(test)]
mod tests {
    use ::parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
    use arrow::{
        array::{Array, BinaryArray, StructArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;
    use crate::limited_read::damaged::{each_copy, in_bounds};

    /// A file as `datasets` writes it: images with their paths, and a `ClassLabel`.
    fn whole(compression: Compression, label: ArrayRef) -> Vec<u8> {
        let png = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imaging/rgb.png")).unwrap();
        let images: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&png; label.len()]));
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a.png"); label.len()]));
        let image = StructArray::from(vec![
            (Arc::new(Field::new("bytes", DataType::Binary, true)), images),
            (Arc::new(Field::new("path", DataType::Utf8, true)), names),
        ]);
        let features = serde_json::json!({"info": {"features": {"label": {"names": ["a", "b", "c"]}}}});
        let fields = vec![
            Field::new("image", image.data_type().clone(), true),
            Field::new("label", label.data_type().clone(), true),
        ];
        let schema = Schema::new_with_metadata(fields, [("huggingface".into(), features.to_string())].into());
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(image), label]).unwrap();
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(Some(4))
            .set_data_page_row_count_limit(2)
            .set_write_batch_size(2)
            .build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn damaged_parquet_files_are_errors_or_data_sets() {
        in_bounds(|| {
            let folder = tempfile::tempdir().unwrap();
            let numbers: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2, 0, 1, 2, 2]));
            let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "a", "b", "c", "b"]));
            for whole in [whole(Compression::SNAPPY, numbers), whole(Compression::UNCOMPRESSED, names)] {
                parquet(folder.path(), &whole);
                each_copy(&whole, 400, |damaged| parquet(folder.path(), damaged));
            }
        });
    }
}
