//! The digits as files, folders, tables and tars give the same data set as their Parquet files.

use std::{fs, path::Path, sync::OnceLock};

use arrow::{array::AsArray, datatypes::Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::support::{Workspace, root, stderr};

/// The classes, in the order of their labels.
pub(crate) const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const SPLITS: [&str; 3] = ["train", "validation", "test"];
/// The columns that do not depend on how an image is stored.
const IMAGES: &str = "SELECT split, label, class_name, width, height, format, digest FROM images \
                      ORDER BY split, label, digest";
const HARD: &str = "SELECT i.digest, h.label, h.class_name, h.reason FROM hard_samples h \
                    JOIN images i ON i.source_id = h.source_id ORDER BY h.label, i.digest";

/// An image of the digits.
pub(crate) struct Image {
    pub split: &'static str,
    pub label: i64,
    pub bytes: Vec<u8>,
}

pub(crate) fn images() -> Vec<Image> {
    let mut found = Vec::new();
    for split in SPLITS {
        let file = fs::File::open(root().join(format!("data/digits_lt/{split}.parquet"))).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let labels = batch.column_by_name("label").unwrap().as_primitive::<Int64Type>();
            let images = batch.column_by_name("image").unwrap().as_struct();
            let bytes = images.column_by_name("bytes").unwrap().as_binary::<i32>();
            let rows = bytes.iter().zip(labels.values());
            found.extend(rows.map(|(bytes, &label)| Image { split, label, bytes: bytes.unwrap().to_vec() }));
        }
    }
    found
}

/// Returns the images and the hard images that the Parquet files give.
fn reference() -> &'static (Vec<Value>, Vec<Value>) {
    static REFERENCE: OnceLock<(Vec<Value>, Vec<Value>)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let workspace = Workspace::small();
        workspace.ok("run", &["--until", "hard_samples"]);
        (workspace.query(IMAGES), workspace.query(HARD))
    })
}

/// The small pipeline with these keys of `[source]`, in which `DIR` is the workspace.
pub(crate) fn workspace(source: &str) -> Workspace {
    let mut workspace = Workspace::small();
    workspace.set_source(&format!("[source]\n{source}"));
    fs::write(workspace.path("classes.json"), serde_json::to_string(&DIGITS).unwrap()).unwrap();
    fs::write(workspace.path("classes.txt"), DIGITS.join("\n")).unwrap();
    let table: String = DIGITS.iter().enumerate().map(|(y, name)| format!("{y},{},{name}\n", 100 + y)).collect();
    fs::write(workspace.path("categories.csv"), format!("y,category_id,name\n{table}")).unwrap();
    workspace
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Runs up to the hard images and compares the tables.
fn assert_same(workspace: &Workspace) {
    workspace.ok("run", &["--until", "hard_samples"]);
    let (images, hard) = reference();
    assert_eq!(&workspace.query(IMAGES), images);
    assert_eq!(&workspace.query(HARD), hard);
}

#[test]
fn a_list_is_the_same_data_set() {
    let keys = SPLITS.map(|split| format!("{split} = \"{split}.txt\"")).join(", ");
    let workspace = workspace(&format!(
        "kind = \"list\"\nroot = \"DIR/data\"\nlists = \"DIR/lists\"\nclasses = \"DIR/classes.txt\"\nsplits = {{ {keys} }}"
    ));
    let mut lists = SPLITS.map(|split| (split, String::new()));
    for (number, image) in images().iter().enumerate() {
        let name = format!("{}/{number}, a digit #{}.PNG", image.split, image.label);
        write(&workspace.path("data").join(&name), &image.bytes);
        let (_, list) = lists.iter_mut().find(|(split, _)| *split == image.split).unwrap();
        *list += &format!("{name} {}\n", image.label);
    }
    lists.iter().for_each(|(split, list)| write(&workspace.path(&format!("lists/{split}.txt")), list.as_bytes()));
    assert_same(&workspace);
    // A deleted image becomes a reject, and no other image is read again.
    let gone = workspace.query("SELECT path FROM images WHERE split = 'test' ORDER BY path LIMIT 1");
    fs::remove_file(workspace.path("data").join(gone[0]["path"].as_str().unwrap())).unwrap();
    workspace.ok("run", &["--until", "images", "--set", "rejects.max_fraction=1"]);
    let rejects = workspace.query("SELECT step, reason FROM rejects");
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(rejects[0]["reason"], "no such file");
    assert_eq!(workspace.number("SELECT count(*) FROM images") as usize, reference().0.len() - 1);
    assert_eq!(workspace.number("SELECT count(*) FROM pixels") as usize, reference().0.len());
}

#[test]
fn folders_are_the_same_data_set() {
    let keys = SPLITS.map(|split| format!("{split} = \"{split}\"")).join(", ");
    let workspace = workspace(&format!(
        "kind = \"imagefolder\"\nroot = \"DIR/data\"\nclasses = \"DIR/classes.json\"\nsplits = {{ {keys} }}"
    ));
    for (number, image) in images().iter().enumerate() {
        let class = DIGITS[usize::try_from(image.label).unwrap()];
        write(&workspace.path(&format!("data/{}/{class}/{number}.png", image.split)), &image.bytes);
        write(&workspace.path(&format!("data/{}/{class}/thumbs.db", image.split)), b"no image");
    }
    assert_same(&workspace);
}

#[test]
fn a_table_is_the_same_data_set() {
    let workspace = workspace(
        "kind = \"csv\"\nroot = \"DIR/data\"\nclasses = \"DIR/categories.csv\"\ntable = \"metadata.csv\"\n\
         path_column = \"filename\"\npath_prefix = \"train/\"\nlabel_column = \"y\"\nsplit_column = \"split\"\n\
         splits = { train = \"train\", validation = \"id_val\", test = [\"id_test\"] }",
    );
    let mut table = String::from(",split,datetime,filename,y\n");
    for (number, image) in images().iter().enumerate() {
        write(&workspace.path(&format!("data/train/{number}.png")), &image.bytes);
        let split = match image.split {
            "train" => "train",
            "validation" => "id_val",
            _ => "id_test",
        };
        table += &format!("{number},{split},2013-06-05 05:44:19,{number}.png,{}\n", image.label);
    }
    table += "9999,test,2013-06-05 05:44:19,of_no_split.png,3\n";
    write(&workspace.path("data/metadata.csv"), table.as_bytes());
    assert_same(&workspace);
}

#[test]
fn tars_are_the_same_data_set_and_run_to_the_end() {
    let keys = SPLITS.map(|split| format!("{split} = \"{split}-{{0..2}}.tar\"")).join(", ");
    let workspace = workspace(&format!(
        "kind = \"webdataset\"\nroot = \"DIR/data\"\nclasses = \"DIR/classes.json\"\nsplits = {{ {keys} }}"
    ));
    let images = images();
    for split in SPLITS {
        let mut shards = [0, 1, 2].map(|_| tar::Builder::new(Vec::new()));
        for (number, image) in images.iter().enumerate().filter(|(_, image)| image.split == split) {
            for (ending, bytes) in [("png", image.bytes.as_slice()), ("cls", image.label.to_string().as_bytes())] {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                shards[number % 3].append_data(&mut header, format!("{number:06}.{ending}"), bytes).unwrap();
            }
        }
        for (number, shard) in shards.into_iter().enumerate() {
            write(&workspace.path(&format!("data/{split}-{number}.tar")), &shard.into_inner().unwrap());
        }
    }
    assert_same(&workspace);
    workspace.run();
    assert!(workspace.number("SELECT count(*) FROM kept") > 0.0);
    workspace.ok("verify", &[]);
}

#[test]
fn keys_of_another_kind_are_named() {
    let workspace = workspace(
        "kind = \"list\"\nroot = \"DIR\"\nimage_column = \"image\"\nlabel_colum = \"y\"\nsplits = { train = \"train.txt\" }",
    );
    let output = workspace.command("check", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(
        said.contains("`source.image_column` is not a key of kind `list`; expected one of `kind`, `lists`, `root`, `splits`, `sql`, `classes`, `label_kind` or `background`"),
        "{said}"
    );
}
