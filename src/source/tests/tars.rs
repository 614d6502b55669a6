//! Opens tar files that a test writes.

use std::fs;

use super::{Folder, read, rows};

#[tokio::test]
async fn tars_hold_samples() {
    let folder = Folder::new();
    let long = format!("{}/000002.png", "deep".repeat(40));
    folder.tar("t-00.tar", &[("000.cls", b"1"), ("000.jpg", b"one"), ("./001.PNG", b"two"), ("./001.cls", b" 0\n")]);
    folder.tar(
        "t-01.tar",
        &[("a.b/000.x.txt", b"no"), (&long, b"three"), (&long.replace("png", "cls"), b"1"), ("__meta.json", b"{}")],
    );
    folder.tar("v/0.tar", &[("000.cls", b"0"), ("000.json", b"{}"), ("000.webp", &[b'w'; 100_000]), ("001.cls", b"1")]);
    let lines = "kind = \"webdataset\"\nsplits = { train = \"t-{00..01}.tar\", test = \"v/0.tar\" }";
    let source = folder.open(lines).await.unwrap();
    let three = format!("t-01.tar#{long} 1 1 train");
    let expected = [
        "t-00.tar#000.jpg 1 1 train",
        "t-00.tar#001.PNG 0 0 train",
        &three,
        "v/0.tar#000.webp 0 0 test",
        "v/0.tar#001 1 1 test",
    ];
    assert_eq!(rows(&source), expected);
    let texts = read(&source).await;
    assert_eq!(texts[..3], ["one", "two", "three"].map(|text| Ok(text.to_owned())));
    assert_eq!(texts[3].as_ref().unwrap().len(), 100_000);
    assert_eq!(texts[4], Err("the sample has no image; its members are `.cls`".to_owned()));
    folder.tar("t-00.tar", &[]);
    let message = source.read(&[Some("t-00.tar#000.jpg")]).await.unwrap_err().to_string();
    assert!(message.contains("t-00.tar`: it has changed since the source was listed"), "{message}");
}

#[tokio::test]
async fn tars_have_labels_in_json_too() {
    let folder = Folder::new();
    folder.tar(
        "t.tar",
        &[("a.jpg", b"1"), ("a.json", br#"{"kind": "cat/dog"}"#), ("b.json", br#"{"kind": "ant"}"#), ("b.jpg", b"2")],
    );
    let lines = "kind = \"webdataset\"\nlabel_column = \"json:kind\"\nsplits.train = \"t.tar\"";
    assert_eq!(folder.listed(lines).await, ["t.tar#a.jpg 1 cat/dog train", "t.tar#b.jpg 0 ant train"]);
    let message = folder.message(&lines.replace("json:kind", "json:label")).await;
    assert!(message.contains("`t.tar`: \"a.json\": it has no field `label`; every image needs a label"), "{message}");
    folder.tar(
        "t.tar",
        &[("a.jpg", b"1"), ("b.cls", b"cat"), ("b.jpg", b"2"), ("../c.cls", b"1"), ("d.jpg", b"1"), ("d.png", b"1")],
    );
    let message = folder.message("kind = \"webdataset\"\nsplits = { train = \"t.tar\", test = \"{0..1}.tar\" }").await;
    for what in [
        "the sample \"a\" has no member `.cls`, but `.jpg`; the name of a sample ends at the first dot",
        "found the path \"../c.cls\"",
        "the sample \"d\" has several images; `source.image_member` chooses one of `jpg`, `png`",
    ] {
        assert!(message.contains(&format!("`t.tar`: {what}")), "{message}");
    }
    assert!(
        message.contains("`0.tar`: this file does not exist") && message.contains("`1.tar`: this file does not exist"),
        "{message}"
    );
}

#[tokio::test]
async fn truncated_and_foreign_tars_are_rejected() {
    let folder = Folder::new();
    folder.tar("t.tar", &[("a.cls", b"1"), ("a.jpg", &[b'p'; 3000])]);
    let whole = fs::read(folder.path("t.tar")).unwrap();
    let lines = "kind = \"webdataset\"\nsplits.train = \"t.tar\"";
    folder.write("t.tar", &whole[..3000]);
    let message = folder.message(lines).await;
    assert_eq!(
        message,
        "`file://ROOT/t.tar`: it is not a readable tar file; compressed ones are not supported: it is truncated in its member \"a.jpg\""
    );
    folder.write("t.tar", b"\x1f\x8b".repeat(600));
    assert!(folder.message(lines).await.contains("it is not a readable tar file; compressed ones are not supported"));
    folder.write("t.tar", "");
    assert_eq!(folder.message(lines).await, "the split train has no images; `source.splits` reads it from `t.tar`");
    folder.tar("t.tar", &[("a.cls", b"1")]);
    assert!(folder.message(lines).await.ends_with("the sample has no image; its members are `.cls`"));
    // A member name that claims to have half a terabyte.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_path("././@LongLink").unwrap();
    header.set_size(1 << 39);
    header.set_cksum();
    let file = fs::File::create(folder.path("t.tar")).unwrap();
    std::io::Write::write_all(&mut &file, header.as_bytes()).unwrap();
    file.set_len(1 << 39).unwrap();
    assert!(folder.message(lines).await.ends_with("the descriptions of its members are impossibly long"));
}

#[tokio::test]
async fn members_that_are_not_there_are_named() {
    let folder = Folder::new();
    let rgb = [("0.rgb.png", &b"1"[..]), ("0.mask.png", b"2"), ("0.json", b"{\"k\": 1.5}"), ("0.cls", b"0")];
    folder.tar(
        "t.tar",
        &[&rgb[..], &[("1.mask.png", b"3"), ("1.cls", b"0"), ("a\tb.rgb.png", b"4"), ("a\tb.cls", b"0")]].concat(),
    );
    let lines = "kind = \"webdataset\"\nsplits.train = \"t.tar\"\nimage_member = ";
    assert_eq!(
        folder.message(&format!("{lines}\"rgb.jpg\"")).await,
        "no image of the split train can be read; the first is \"t.tar#0\": the sample has no image `rgb.jpg` \
         (`source.image_member`), but `rgb.png`, `mask.png`"
    );
    let source = folder.open(&format!("{lines}\"rgb.png\"")).await.unwrap();
    let read = read(&source).await;
    assert_eq!(read[0], Ok("1".to_owned()));
    assert_eq!(read[1], Err("the sample has no image `rgb.png` (`source.image_member`), but `mask.png`".to_owned()));
    assert!(read[2].as_ref().unwrap_err().contains("control characters"), "{read:?}");
    assert_eq!((source.census().splits[0].images, source.census().splits[0].rejects), (1, 2));
    // A label that is wrong is one problem.
    folder.tar("t.tar", &rgb);
    let message = folder.message(&format!("{lines}\"rgb.png\"\nlabel_column = \"json:k\"")).await;
    assert_eq!(
        message,
        "the source has an invalid entry:\n  `t.tar`: \"0.json\": found the label 1.5, allowed are integers from 0 and strings"
    );
}
