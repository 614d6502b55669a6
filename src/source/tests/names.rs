//! Files of class names, and the names that the metadata of Parquet files has.

use std::sync::Arc;

use arrow::array::Int64Array;

use super::{Folder, rows};

#[tokio::test]
async fn names_in_the_metadata_of_parquet_files_are_lines_of_text() {
    let folder = Folder::new();
    folder.class_label("a.parquet", &["cat", "a\tdog"], Arc::new(Int64Array::from(vec![0])));
    assert_eq!(
        folder.message("kind = \"parquet\"\nsplits.train = \"a.parquet\"").await,
        "the metadata of the Parquet files: class 1 has the name \"a\\tdog\", allowed are names that are not blank, \
         without control characters, of up to 65536 bytes\n\
         hint: set other names with `source.classes`"
    );
    folder.write("names.txt", "cat\ndog\n");
    let lines = "kind = \"parquet\"\nsplits.train = \"a.parquet\"\nclasses = \"ROOT/names.txt\"";
    assert_eq!(folder.listed(lines).await, ["a.parquet#0 0 cat train"]);
}

#[tokio::test]
async fn names_of_a_class_label_are_matched_by_name() {
    let folder = Folder::new();
    folder.class_label("a.parquet", &["emu", "cat", "dog"], Arc::new(Int64Array::from(vec![0, 1, 2])));
    let lines = |file: &str| format!("kind = \"parquet\"\nsplits.train = \"a.parquet\"\nclasses = \"ROOT/{file}\"");
    for (file, text, expected) in [
        // The same names, and more: their order decides the numbers.
        ("c.txt", "cat\ndog\nemu\n", "2 emu, 0 cat, 1 dog"),
        ("c.json", r#"["ant", "cat", "dog", "eel", "emu"]"#, "4 emu, 1 cat, 2 dog"),
        ("c.csv", "y,name\n9,emu\n1,dog\n7,cat\n", "9 emu, 7 cat, 1 dog"),
        ("c.json", r#"{"2": "cat", "7": "emu", "4": "dog"}"#, "7 emu, 2 cat, 4 dog"),
        // Other names, by name or by number.
        (
            "c.json",
            r#"{"cat": "Felis", "dog": "Canis", "emu": "Dromaius", "ant": "x"}"#,
            "0 Dromaius, 1 Felis, 2 Canis",
        ),
        ("c.txt", "Dromaius\nFelis\nCanis\n", "0 Dromaius, 1 Felis, 2 Canis"),
        ("c.txt", "emu\nkitten\ndog\n", "0 emu, 1 kitten, 2 dog"),
    ] {
        folder.write(file, text);
        for kind in ["", "label_kind = \"name\"\n"] {
            let rows = folder.listed(&format!("{kind}{}", lines(file))).await;
            let found: Vec<String> = rows.iter().map(|row| row[12..].replace(" train", "")).collect();
            assert_eq!(found.join(", "), expected, "{text}");
        }
    }
    for (file, text, problem) in [
        (
            "c.txt",
            "cat\ndog\nkitten\n",
            "1 is \"cat\" in the metadata and \"dog\" in the file, 2 is \"dog\" in the metadata and \"kitten\" in the file, and the file does not have \"emu\";",
        ),
        (
            "c.json",
            r#"{"cat": "Felis", "dog": "Canis"}"#,
            "it has no name for \"emu\"; allowed are these names in any order",
        ),
        (
            "c.txt",
            "a\nb\n",
            "`a.parquet#2` has the label 2, and `ROOT/c.txt` (`source.classes`) has names for the labels 0 to 1 only",
        ),
        ("c.txt", " \n", "`ROOT/c.txt` (`source.classes`): it is empty; expected is a name for each class"),
        ("c.json", "{}", "it is empty; expected is a name for each class"),
        ("c.json", "[]", "it is empty; expected is a name for each class"),
        ("c.csv", "label,name\n", "it is empty; expected is a name for each class"),
    ] {
        folder.write(file, text);
        let message = folder.message(&lines(file)).await;
        assert!(message.contains(problem), "{message}");
    }
}

#[tokio::test]
async fn a_file_of_names_can_leave_numbers_out_and_have_more_names() {
    let folder = Folder::new();
    folder.images(&["2/a.png", "7/b.png"]);
    let lines = "kind = \"imagefolder\"\nsplits.train = \".\"\nclasses = \"ROOT/";
    for (file, text) in
        [("c.json", r#"{"7": "emu", "2": "cat", "9": "x"}"#), ("c.csv", "label,name\n2,cat\n9,x\n7,emu\n")]
    {
        folder.write(file, text);
        let source = folder.open(&format!("{lines}{file}\"")).await.unwrap();
        assert_eq!(rows(&source), ["2/a.png 2 cat train", "7/b.png 7 emu train"], "{file}");
        assert_eq!(source.census().unused_names, ["x"], "{file}");
    }
    // Folders whose names are numbers, if the user says that they are names.
    let named = format!("label_kind = \"name\"\n{lines}c.json\"");
    assert_eq!(folder.listed(&named).await, ["2/a.png 0 cat train", "7/b.png 1 emu train"]);
    let folder = Folder::new();
    folder.images(&["dog/a.png", "cat/b.png"]).write("c.txt", "emu\ndog\ncat\nape\n");
    folder.write("c.json", r#"{"cat": "Felis", "dog": "Canis", "ape": "Pan"}"#);
    for (file, expected, unused) in [
        ("c.txt", ["cat/b.png 2 cat train", "dog/a.png 1 dog train"], &["emu", "ape"][..]),
        ("c.json", ["cat/b.png 0 Felis train", "dog/a.png 1 Canis train"], &["ape"]),
    ] {
        let source = folder.open(&format!("{lines}{file}\"")).await.unwrap();
        assert_eq!(rows(&source), expected);
        assert_eq!(source.census().unused_names, unused);
    }
}
