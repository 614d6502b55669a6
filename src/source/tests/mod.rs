//! Opens each kind of source over files that a test writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod layouts;
mod names;
mod tars;

use std::{fs, path::PathBuf};

use arrow::{
    array::{AsArray, BinaryArray, UInt64Array},
    datatypes::{DataType, Field, Int64Type, Schema},
};

use super::*;
use crate::config::Config;

/// Names that are hard for stores, URLs and shells. The last two look alike, in the two forms of Unicode.
const ODD: [&str; 14] = [
    "a b.png",
    "a%20b.png",
    "100%.png",
    "a#b.png",
    "a#1.png",
    "a~b.png",
    "a?b.png",
    "a[1].png",
    "a{1}^`|.png",
    "12:30.png",
    "a&b=c+d;e,f.png",
    "'q\"<>*.png",
    "\u{e9}.png",
    "e\u{301}.png",
];

/// A folder with a data set in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and the folders that it is in.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    /// Writes files that contain their own names.
    fn images(&self, names: &[&str]) -> &Self {
        names.iter().for_each(|name| {
            self.write(name, name);
        });
        self
    }

    /// Writes a Parquet file with an image for each label, in the form of `datasets`: with the names of a `ClassLabel`,
    /// if there are any.
    fn class_label(&self, name: &str, names: &[&str], labels: ArrayRef) -> &Self {
        let features = serde_json::json!({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}});
        let field = |name: &str, data_type: &DataType| Field::new(name, data_type.clone(), true);
        let fields = vec![field("image", &DataType::Binary), field("label", labels.data_type())];
        let schema = Schema::new_with_metadata(fields, [("huggingface".into(), features.to_string())].into());
        let images = BinaryArray::from_vec(vec![b"x"; labels.len()]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(images), labels]).unwrap();
        let file = fs::File::create(self.path(name)).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        self
    }

    fn tar(&self, name: &str, members: &[(&str, &[u8])]) -> &Self {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if name.starts_with("..") {
                // No honest tool writes such a name.
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                tar.append(&header, *bytes).unwrap();
            } else {
                tar.append_data(&mut header, name, *bytes).unwrap();
            }
        }
        self.write(name, tar.into_inner().unwrap())
    }

    /// Opens the source that these lines of `[source]` describe.
    async fn open(&self, lines: &str) -> Result<Source> {
        let root = self.0.path().display();
        let text = format!(
            "name = \"t\"\nlake.root = \"lake\"\nmodels = {{ diffusion = \"d\", clip = \"c\" }}\n\
             spectrum = {{ image_guidance = [0], seeds = [1] }}\n[source]\nroot = \"{root}\"\n{}",
            lines.replace("ROOT", &root.to_string())
        );
        let config = Config::parse(&text, "t.toml", &[]).unwrap_or_else(|problems| panic!("{problems}"));
        Source::open(&config.source, "").await
    }

    /// Returns path, label, class and split of each row.
    async fn listed(&self, lines: &str) -> Vec<String> {
        rows(&self.open(lines).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Returns the error of an invalid source.
    async fn message(&self, lines: &str) -> String {
        let error = self.open(lines).await.expect_err("the source is invalid");
        crate::error::chain(&error).replace(&self.0.path().display().to_string(), "ROOT")
    }
}

fn column<'a>(source: &'a Source, name: &str) -> Vec<&'a str> {
    source.listing().column_by_name(name).unwrap().as_string::<i32>().iter().map(Option::unwrap).collect()
}

fn rows(source: &Source) -> Vec<String> {
    let labels = source.listing().column_by_name("label").unwrap().as_primitive::<Int64Type>();
    let texts = column(source, "path").into_iter().zip(column(source, "class_name")).zip(column(source, "split"));
    texts
        .zip(labels.values())
        .map(|(((path, class), split), label)| format!("{path} {label} {class} {split}"))
        .collect()
}

/// Returns the contents of every file, as text, or why they cannot be read.
async fn read(source: &Source) -> Vec<Result<String, String>> {
    let paths: Vec<Option<&str>> = column(source, "path").into_iter().map(Some).collect();
    let images = source.read_files(&paths).await.unwrap();
    images.into_iter().map(|image| Ok(String::from_utf8(image?.unwrap()).unwrap())).collect()
}

#[tokio::test]
async fn lists_name_images() {
    let folder = Folder::new();
    folder.images(&["data/train/n01/a.JPEG", "data/train/n02/b c.JPEG", "data/val/d.JPEG"]);
    folder.write("lists/train.txt", "train/n01/a.JPEG 0\n\n./train/n02/b c.JPEG 1\n");
    folder.write("lists/val.txt", "val/d.JPEG 1");
    let lines = "kind = \"list\"\nlists = \"ROOT/lists\"\nsplits = { train = \"train.txt\", validation = \"val.txt\" }";
    let lines = lines.replace("kind", &format!("classes = \"{}\"\nkind", folder.path("names.txt").display()));
    folder.write("names.txt", "cat/s\ncat/s\n");
    let config_root = folder.0.path().join("data");
    let source = folder.open(&lines).await;
    // The root of the lists is another one: below ROOT itself there is no `train`.
    let message = crate::error::chain(&source.unwrap_err());
    assert!(
        message.starts_with("none of the images of the split train exists; the first is \"train/n01/a.JPEG\" of"),
        "{message}"
    );
    fs::rename(config_root.join("train"), folder.path("train")).unwrap();
    fs::rename(config_root.join("val"), folder.path("val")).unwrap();
    let source = folder.open(&lines).await.unwrap();
    assert_eq!(
        rows(&source),
        ["train/n01/a.JPEG 0 cat/s train", "train/n02/b c.JPEG 1 cat/s train", "val/d.JPEG 1 cat/s validation"]
    );
    let texts = read(&source).await;
    assert_eq!(texts[1], Ok("data/train/n02/b c.JPEG".to_owned()));
    assert_eq!(source.read(&[None, Some("no/such")]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn names_stay_unchanged() {
    let folder = Folder::new();
    let names: Vec<String> = ODD.iter().map(|name| format!("sub [%41] #/{name}")).collect();
    folder.images(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let list: String = names.iter().map(|name| format!("{name} 0\n")).collect();
    folder.write("my list #1%20.txt", list);
    let source = folder.open("kind = \"list\"\nsplits.train = \"my list #1%20.txt\"").await.unwrap();
    assert_eq!(column(&source, "path"), names);
    let texts: Vec<String> = read(&source).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(texts, names);
    // The same holds below a folder of a split.
    let folder = Folder::new();
    let names: Vec<String> = ODD.iter().map(|name| format!("train/sub [%41] #/{name}")).collect();
    folder.images(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let source = folder.open("kind = \"imagefolder\"\nsplits.train = \"train\"").await.unwrap();
    let mut texts: Vec<String> = read(&source).await.into_iter().map(Result::unwrap).collect();
    texts.sort_by_key(|text| names.iter().position(|name| name == text));
    assert_eq!(texts, names);
    assert_eq!(column(&source, "class_name")[0], "sub [%41] #");
}

#[tokio::test]
async fn a_missing_file_is_a_row() {
    let folder = Folder::new();
    folder.images(&["a.png", "sub/b.png"]).write("empty.png", "");
    fs::File::create(folder.path("large.png")).unwrap().set_len((256 << 20) + 1).unwrap();
    folder.write(
        "l.txt",
        "a.png 0\ngone.png 0\nsub/b.png 1\nsub/gone.png 1\nno/folder.png 1\nempty.png 0\nlarge.png 0\nsub 0\n",
    );
    let lines = "kind = \"list\"\nsplits.train = \"l.txt\"";
    let source = folder.open(lines).await.unwrap();
    let missing = || Err("no such file".to_owned());
    let large = Err("it has 268435457 bytes, 268435456 are allowed".to_owned());
    let expected = [
        Ok("a.png".to_owned()),
        missing(),
        Ok("sub/b.png".to_owned()),
        missing(),
        missing(),
        Ok(String::new()),
        large,
        missing(),
    ];
    assert_eq!(read(&source).await, expected);
    // Once it exists, it is another version of the image, and the listing changes.
    folder.images(&["gone.png"]);
    let later = folder.open(lines).await.unwrap();
    let ids = |source: &Source| column(source, "pixel_id").into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(ids(&source)[0], ids(&later)[0]);
    assert_ne!(ids(&source)[1], ids(&later)[1]);
    assert_ne!(source.fingerprint(), later.fingerprint());
    // A file that changes after it was listed is an error of the run.
    folder.write("a.png", "another");
    let message = later.read(&[Some("a.png")]).await.unwrap_err().to_string();
    assert!(message.contains("it has changed since the source was listed"), "{message}");
    folder.write("l.txt", "gone/a.png 0\ngone/b.png 0\n");
    let message = folder.message(lines).await;
    assert_eq!(
        message,
        "none of the images of the split train exists; the first is \"gone/a.png\" of `l.txt`:1, below `ROOT`\n\
         hint: is `source.root` the directory that the paths are relative to?"
    );
}

#[tokio::test]
async fn a_file_without_compression_is_read_whatever_becomes_of_it() {
    let folder = Folder::new();
    let gray = image::RgbImage::from_fn(1700, 1700, |x, y| image::Rgb([(x / 7) as u8, (y / 7) as u8, 90]));
    fs::create_dir_all(folder.path("train/a")).unwrap();
    gray.save(folder.path("train/a/0.bmp")).unwrap();
    gray.save(folder.path("train/a/1.tif")).unwrap();
    let source = folder.open("kind = \"imagefolder\"\nsplits.train = \"train\"").await.unwrap();
    assert!(source.mean_bytes().unwrap() > (8 << 20) as f64);
    for image in source.read(&[Some("train/a/0.bmp"), Some("train/a/1.tif")]).await.unwrap() {
        let png = image.unwrap().unwrap();
        assert!(png.len() < 8 << 20 && image::load_from_memory(&png).unwrap().to_rgb8() == gray);
    }
}

#[tokio::test]
async fn lists_report_all_invalid_lines() {
    let folder = Folder::new();
    folder.images(&["a.png", "b.png"]);
    folder.write("l.txt", "a.png 0\n../b.png 0\nb.png x\n").write("t.txt", "b.png 0\n./a.png 1\nb.png 0\n");
    let lines = "kind = \"list\"\nsplits = { train = \"l.txt\", test = \"t.txt\" }";
    assert_eq!(
        folder.message(lines).await,
        "the source has 4 invalid entries:\n  `l.txt`:2: found the path \"../b.png\", allowed are paths relative to \
         `source.root` with `/`, without empty, `.` or `..` parts, drive letters, backslashes and control characters\n  \
         `t.txt`:1: \"b.png\" of test is already in `l.txt`:3, of train; name each image once\n  \
         `t.txt`:2: \"a.png\" of test is already in `l.txt`:1, of train; name each image once\n  \
         `t.txt`:3: \"b.png\" of test is already in `l.txt`:3, of train; name each image once"
    );
    folder.write("l.txt", "\n\n");
    assert_eq!(folder.message(lines).await.lines().next(), Some("the source has an invalid entry:"));
    folder.write("t.txt", "b.png 0\n");
    assert_eq!(folder.message(lines).await, "the split train has no images; `source.splits` reads it from `l.txt`");
    fs::remove_file(folder.path("l.txt")).unwrap();
    assert_eq!(
        folder.message(lines).await,
        "`file://ROOT/l.txt`: this file does not exist; it is one of `source.splits`, below `source.lists` or `source.root`"
    );
    fs::File::create(folder.path("l.txt")).unwrap().set_len((1 << 30) + 1).unwrap();
    assert!(folder.message(lines).await.contains("it has 1073741825 bytes, at most 1073741824 are allowed"));
}

#[tokio::test]
async fn folders_are_classes() {
    let folder = Folder::new();
    folder.images(&[
        "train/b cat/x/deep.JPG",
        "train/b cat/1.png",
        "train/10/2.webp",
        "train/10/notes.txt",
        "train/stray.png",
    ]);
    folder.images(&["val/2/1.jpeg", "val/10/2.webp", "val/2/.hidden", "train/empty/readme.md"]);
    let lines = "kind = \"imagefolder\"\nsplits = { train = \"train\", validation = \"val\" }";
    let source = folder.open(lines).await.unwrap();
    assert_eq!(
        rows(&source),
        [
            "train/10/2.webp 0 10 train",
            "train/b cat/1.png 2 b cat train",
            "train/b cat/x/deep.JPG 2 b cat train",
            "val/10/2.webp 0 10 validation",
            "val/2/1.jpeg 1 2 validation"
        ]
    );
    assert_eq!(read(&source).await[2], Ok("train/b cat/x/deep.JPG".to_owned()));
    let none = folder.message("kind = \"imagefolder\"\nsplits = { train = \"train\", test = \"tset\" }").await;
    assert!(none.starts_with("`file://ROOT/tset`: the split test has no images; expected is a folder for"), "{none}");
    let twice = folder.message("kind = \"imagefolder\"\nsplits = { train = \"train\", test = \"train/b cat\" }").await;
    assert!(
        twice.contains("\"train/b cat/x/deep.JPG\" of test is already in `train/b cat/x/deep.JPG`, of train"),
        "{twice}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_followed() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    elsewhere.images(&["cat/1.png"]);
    folder.images(&["train/dog/1.png"]);
    std::os::unix::fs::symlink(elsewhere.path("cat"), folder.path("train/cat")).unwrap();
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("train/dog/2.png")).unwrap();
    let source = folder.open("kind = \"imagefolder\"\nsplits.train = \"train\"").await.unwrap();
    let expected = ["train/cat/1.png 0 cat train", "train/dog/1.png 1 dog train", "train/dog/2.png 1 dog train"];
    assert_eq!(rows(&source), expected);
    let texts = read(&source).await;
    assert_eq!(texts[0], Ok("cat/1.png".to_owned()));
    assert_eq!(texts[2], Err("it is a symbolic link to a file that does not exist".to_owned()));
    // Next to the class folders, it is a class that would vanish.
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("train/emu")).unwrap();
    let message = folder.message("kind = \"imagefolder\"\nsplits.train = \"train\"").await;
    assert!(message.ends_with("`train/emu`: it is a symbolic link to a file that does not exist"), "{message}");
}

#[tokio::test]
async fn metadata_files_have_the_labels() {
    let folder = Folder::new();
    folder.images(&["train/1.png", "train/sub/2.png", "test/3.png", "test/x/4.png"]);
    folder.write("train/metadata.csv", "file_name,text,species\n1.png,\"a, b\",dog\nsub/2.png,,cat\n");
    folder.write("test/metadata.jsonl", "{\"file_name\": \"3.png\", \"species\": \"cat\"}\n\n");
    let lines = "kind = \"imagefolder\"\nlabel_column = \"species\"\nsplits = { train = \"train\", test = \"test\" }";
    let expected = ["train/1.png 1 dog train", "train/sub/2.png 0 cat train", "test/3.png 0 cat test"];
    assert_eq!(folder.listed(lines).await, expected);
    let message = folder.message(&lines.replace("\"species\"", "\"kind\"")).await;
    assert_eq!(
        message,
        "`train/metadata.csv` has no column `kind` (`source.label_column`); its columns are \"file_name\", \"text\", \"species\""
    );
    folder.write(
        "test/metadata.jsonl",
        "{\"file_name\": \"../train/1.png\", \"species\": 1}\nno\n{}\n{\"file_name\": \"a\"}",
    );
    let message = folder.message(lines).await;
    assert!(message.contains("`test/metadata.jsonl`:1: found the path \"../train/1.png\""), "{message}");
    assert!(message.contains("`test/metadata.jsonl`:2: it is not valid JSON"), "{message}");
    assert!(message.contains("`test/metadata.jsonl`:3: it has no field `file_name`: \"{}\""), "{message}");
    assert!(
        message.contains("`test/metadata.jsonl`:4: it has no field `species`; every image needs a label"),
        "{message}"
    );
    // Without labels, the file has captions.
    let folder = Folder::new();
    folder.images(&["train/cat/1.png", "train/dog/2.png"]);
    folder.write("train/metadata.jsonl", "{\"file_name\": \"cat/1.png\", \"text\": \"a cat\", \"score\": NaN}");
    let lines = "kind = \"imagefolder\"\nsplits.train = \"train\"";
    let source = folder.open(lines).await.unwrap();
    assert_eq!(rows(&source), ["train/cat/1.png 0 cat train", "train/dog/2.png 1 dog train"]);
    let warnings = source.warnings();
    assert!(warnings[0].message.starts_with("`train/metadata.jsonl` has no field `label`, so the"), "{warnings:?}");
    // Files of metadata that are not read are named.
    folder.write("train/metadata.parquet", "").write("train/cat/metadata.csv", "file_name,label\n1.png,x\n");
    let source = folder.open(lines).await.unwrap();
    assert_eq!(source.listing().num_rows(), 2);
    let message = "metadata of the split train is not read: `train/metadata.parquet`, `train/cat/metadata.csv`";
    assert!(source.warnings().iter().any(|warning| warning.message == message), "{:?}", source.warnings());
    folder.write("train/metadata.csv", "");
    assert!(folder.message(lines).await.starts_with("`train` has both `metadata.csv` and `metadata.jsonl`"));
}

/// The first rows of iWildCam 2.0 in WILDS, with only the columns that matter here.
const WILDS: &str = ",split,location_remapped,filename,y\n0,train,3,a.jpg,1\n1,id_val,3,b.jpg,0\n2,test,9,c.jpg,1\n\
                     3,val,8,d.jpg,0\n4,id_test,3,e.jpg,0\n";
const WILDS_LINES: &str = "kind = \"csv\"\ntable = \"metadata.csv\"\npath_column = \"filename\"\npath_prefix = \"train/\"\n\
    label_column = \"y\"\nsplit_column = \"split\"\nclasses = \"ROOT/categories.csv\"\n\
    splits = { train = \"train\", validation = \"id_val\", shifted_test = [\"test\"] }";

#[tokio::test]
async fn one_table_has_all_splits() {
    let folder = Folder::new();
    folder.images(&["train/a.jpg", "train/b.jpg", "train/c.jpg"]).write("metadata.csv", WILDS);
    folder.write("categories.csv", "y,category_id,name\n0,0,empty\n1,2,tayassu pecari\n99999,7,x\n99999,8,y\n");
    let source = folder.open(WILDS_LINES).await.unwrap();
    assert_eq!(
        rows(&source),
        [
            "train/a.jpg 1 tayassu pecari train",
            "train/b.jpg 0 empty validation",
            "train/c.jpg 1 tayassu pecari shifted_test"
        ]
    );
    let message = folder.message(&WILDS_LINES.replace("\"id_val\"", "\"id-val\"")).await;
    assert_eq!(
        message,
        "`metadata.csv`: no row has the split \"id-val\" (`source.splits`); its splits, with their numbers of rows, are \"id_test\" (1), \
         \"id_val\" (1), \"test\" (1), \"train\" (1), \"val\" (1)"
    );
    let message = folder.message(&WILDS_LINES.replace("\"filename\"", "\"path\"")).await;
    assert_eq!(
        message,
        "`metadata.csv` has no column `path` (`source.path_column`); its columns are \"\", \"split\", \"location_remapped\", \
         \"filename\", \"y\""
    );
    let twice = WILDS.replace("filename,y", "y,y");
    folder.write("metadata.csv", twice);
    assert!(
        folder
            .message(&WILDS_LINES.replace("\"filename\"", "\"y\""))
            .await
            .contains("has the column `y` (`source.path_column`) twice")
    );
}

#[tokio::test]
async fn a_table_per_split_has_names_as_classes() {
    let folder = Folder::new();
    folder.images(&["a.jpg", "b.jpg", "c.jpg"]);
    folder.write("train.csv", "\u{feff}path,label\r\n\r\na.jpg,\"zebra, \"\"grey\"\"\"\r\nb.jpg,ape\r\n");
    folder.write("test.csv", "label,path\nape,c.jpg\n");
    let lines = "kind = \"csv\"\nsplits = { train = \"train.csv\", test = \"test.csv\" }";
    let expected = ["a.jpg 1 zebra, \"grey\" train", "b.jpg 0 ape train", "c.jpg 0 ape test"];
    assert_eq!(folder.listed(lines).await, expected);
    let long = "x".repeat(70_000);
    folder.write(
        "test.csv",
        format!("label,path\nape\n,c.jpg\nape,/etc/passwd\n\nape,a.jpg\n{long},c.jpg\n\"ape,c.jpg\n"),
    );
    let message = folder.message(lines).await;
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines[0], "the source has 6 invalid entries:");
    assert_eq!(lines[1], "  `test.csv`:2: it has 1 fields, the header has 2");
    assert_eq!(lines[2], "  `test.csv`:3: it has no label; every image needs one");
    assert!(lines[3].starts_with("  `test.csv`:4: found the path \"/etc/passwd\""), "{message}");
    assert_eq!(lines[4], "  `test.csv`:7: a field has 70000 bytes, 65536 are allowed; is a quote left open?");
    assert_eq!(lines[5], "  `test.csv`:8: it has 1 fields, the header has 2");
    assert!(
        lines[6].ends_with("\"a.jpg\" of test is already in `train.csv`:3, of train; name each image once"),
        "{message}"
    );
}

#[tokio::test]
async fn a_name_that_means_something_else_is_told_what_is_allowed() {
    let folder = Folder::new();
    folder.images(&["a/1.png", "b/2.png"]).write("1.txt", "a/*.png 0\n").write("1.csv", "path,label,s\na/1.png,0,x\n");
    folder.class_label("1.parquet", &[], Arc::new(Int64Array::from(vec![0])));
    let (share, pattern) =
        ("\nhint: a share of the images of train is a number without quotes", "\nhint: only the kinds");
    for (lines, expected) in [
        ("kind = \"list\"\nsplits.train = \"*.txt\"", pattern),
        (
            "kind = \"list\"\nsplits.train = \"1.txt\"",
            "\nhint: each path names one image, without patterns such as `*`",
        ),
        ("kind = \"csv\"\nsplits.train = \"{1..2}.csv\"", pattern),
        ("kind = \"csv\"\nsplits = { train = \"1.csv\", test = \"0.2\" }", share),
        ("kind = \"csv\"\ntable = \"*.csv\"\nsplit_column = \"s\"\nsplits.train = \"x\"", pattern),
        ("kind = \"csv\"\ntable = \"1.csv\"\nsplit_column = \"s\"\nsplits = { train = \"x\", test = \"10%\" }", share),
        ("kind = \"imagefolder\"\nsplits.train = \"[ab]\"", pattern),
        ("kind = \"imagefolder\"\nsplits = { train = \".\", test = \"0.2\" }", share),
        ("kind = \"parquet\"\nsplits = { train = \"1.parquet\", test = \"0.2\" }", share),
        ("kind = \"webdataset\"\nsplits = { train = \"0.2\" }", share),
        (
            "kind = \"parquet\"\nsplits.train = [\"1.p*\", \"?.parquet\"]",
            "`1.parquet` is in the split train twice, as `1.p*` and as `?.parquet` (`source.splits`); name each file once",
        ),
    ] {
        let message = folder.message(lines).await;
        assert!(message.contains(expected), "{lines}: {message}");
    }
    let large: ArrayRef = Arc::new(UInt64Array::from(vec![Some(1), Some(u64::MAX)]));
    let message =
        folder.class_label("1.parquet", &[], large).message("kind = \"parquet\"\nsplits.train = \"1.parquet\"").await;
    let expected = "row 1: found the label 18446744073709551615, allowed are integers from 0 to 9223372036854775807";
    assert!(message.ends_with(expected), "{message}");
}
