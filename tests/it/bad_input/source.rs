//! Bad data sets: missing files, wrong columns, and images that do not decode.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray},
    buffer::NullBuffer,
    datatypes::{DataType, Field, Schema},
};
use insta::assert_snapshot;
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{at, check, said, shipped, small};
use crate::support::{Workspace, root};

#[test]
fn sources_that_are_missing() {
    let (mut workspace, _guard) = shipped();
    assert_snapshot!(check(&mut workspace, &["source.splits.train=nothing.parquet"]), @r"
    exit code 2
    error: `file://[root]/data/digits_lt/nothing.parquet`: this file does not exist; it is one of `source.splits`, below `source.root`
    1 problem; nothing was run
    ");
    let (mut workspace, _guard) = shipped();
    let nowhere = at(&workspace, "source.root", "nowhere");
    assert_snapshot!(check(&mut workspace, &[&nowhere]), @r"
    exit code 2
    error: `source.root` is `[dir]/nowhere`, and there is no directory `[dir]/nowhere/`
    hint: relative paths of a pipeline file start at the directory where the command runs
    1 problem; nothing was run
    ");
}

/// Makes `train.parquet` of the workspace the only file of the source.
fn own_source(workspace: &mut Workspace) -> std::path::PathBuf {
    workspace.edit(&at(workspace, "source.root", ""));
    workspace.edit("source.splits={train=\"train.parquet\"}");
    workspace.path("train.parquet")
}

#[test]
fn sources_that_are_no_parquet() {
    let (mut workspace, _guard) = shipped();
    let path = own_source(&mut workspace);
    let whole = std::fs::read(root().join("data/digits_lt/train.parquet")).unwrap();
    let said = [b"image,label\n" as &[u8], b"", &whole[..whole.len() / 2]].map(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        check(&mut workspace, &[])
    });
    assert_snapshot!(said.join("\n"), @r"
    exit code 2
    error: `file://[dir]/train.parquet`: it is not a Parquet file: Parquet error: Invalid Parquet file. Corrupt footer
    1 problem; nothing was run

    exit code 2
    error: `file://[dir]/train.parquet`: it is an empty file
    hint: download or copy the file again
    1 problem; nothing was run

    exit code 2
    error: `file://[dir]/train.parquet`: it is not a Parquet file: Parquet error: Invalid Parquet file. Corrupt footer
    1 problem; nothing was run
    ");
}

#[test]
fn columns_that_are_missing_or_of_another_type() {
    let edits = ["image_column=photo", "label_column=class", "image_column=label", "label_column=image"];
    let (workspace, _guard) = shipped();
    let said = edits.map(|edit| said(&mut workspace.command("check", &["--set", &format!("source.{edit}")])));
    assert_snapshot!(said.join("\n"), @r#"
    exit code 2
    error: `train.parquet` has no column `photo` (`source.image_column`); its columns are `image`, `label`, `scan`
    1 problem; nothing was run

    exit code 2
    error: `train.parquet` has no column `class` (`source.label_column`); its columns are `image`, `label`, `scan`
    1 problem; nothing was run

    exit code 2
    error: `train.parquet`: column `label` (`source.image_column`) holds Int64, expected images (their bytes, or a struct with `bytes`)
    1 problem; nothing was run

    exit code 2
    error: `train.parquet`: column `image` (`source.label_column`) holds Struct("bytes": Binary, "path": Utf8), expected integers or strings
    1 problem; nothing was run
    "#);
}

/// Writes a Parquet file with an image and a label column. `None` is written as NULL.
fn write_source(path: &Path, rows: &[(Option<Vec<u8>>, Option<i64>)]) {
    let bytes: BinaryArray = rows.iter().map(|row| row.0.as_deref()).collect();
    let paths: StringArray = rows.iter().map(|_| Some("a.png")).collect();
    let fields = vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)];
    let images: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(paths)];
    let images = StructArray::try_new(fields.into(), images, None::<NullBuffer>).unwrap();
    let labels: Int64Array = rows.iter().map(|row| row.1).collect();
    let schema = Schema::new(vec![
        Field::new("image", images.data_type().clone(), true),
        Field::new("label", DataType::Int64, true),
    ]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(images), Arc::new(labels)]).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Returns the first images of the shipped data set.
fn images(count: usize) -> Vec<Vec<u8>> {
    let file = std::fs::File::open(root().join("data/digits_lt/train.parquet")).unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(count).build().unwrap();
    let batch = reader.next().unwrap().unwrap();
    let images = batch.column_by_name("image").unwrap().as_struct();
    let bytes = images.column_by_name("bytes").unwrap().as_binary::<i32>();
    bytes.iter().map(|bytes| bytes.unwrap().to_vec()).collect()
}

#[test]
fn a_row_without_a_label() {
    let (mut workspace, _guard) = shipped();
    let path = own_source(&mut workspace);
    let mut rows: Vec<_> = images(3).into_iter().map(|image| (Some(image), Some(1))).collect();
    rows[1].1 = None;
    write_source(&path, &rows);
    assert_snapshot!(check(&mut workspace, &[]), @r"
    exit code 2
    error: `train.parquet`: row 1 has no `label`; every image needs one
    1 problem; nothing was run
    ");
}

/// Returns a PNG whose header claims 30,000 × 30,000 pixels.
fn huge_png() -> Vec<u8> {
    fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
        let body = [kind, data].concat();
        let crc = !body.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        png.extend(body);
        png.extend(crc.to_be_bytes());
    }
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let side = 30_000_u32.to_be_bytes();
    chunk(&mut png, b"IHDR", &[&side[..], &side, &[8, 2, 0, 0, 0]].concat());
    chunk(&mut png, b"IDAT", b"\x78\x9c\x03\x00\x00\x00\x00\x01");
    chunk(&mut png, b"IEND", b"");
    png
}

/// Returns every kind of image that cannot be used.
fn bad_images() -> Vec<Option<Vec<u8>>> {
    let png = images(1).remove(0);
    let jpeg = std::fs::read(root().join("tests/fixtures/imaging/progressive.jpg")).unwrap();
    vec![
        Some(jpeg[..jpeg.len() / 2].to_vec()),
        Some(png[..png.len() / 2].to_vec()),
        Some(b"I am called .png, and I am a text.".to_vec()),
        Some(Vec::new()),
        None,
        Some(huge_png()),
        Some(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic".to_vec()),
    ]
}

#[test]
fn bad_images_are_rejects_up_to_a_ceiling() {
    const GOOD: usize = 20;
    let (mut workspace, _guard) = small();
    let path = own_source(&mut workspace);
    let mut rows: Vec<_> = images(GOOD).into_iter().map(|image| (Some(image), Some(1))).collect();
    let bad = bad_images();
    for (index, image) in bad.iter().enumerate() {
        rows.insert(2 * index, (image.clone(), Some(2)));
    }
    write_source(&path, &rows);
    // Without hard classes no model is needed.
    workspace.edit("hard_samples.max_class_count=1");
    workspace.edit("curriculum.strategy=real_only");
    assert_snapshot!(said(&mut workspace.command("run", &["--device", "cpu"])), @r#"
    exit code 1
    split  images  classes  smallest class  largest class  skipped
    train      27        2  2 (7)           1 (20)               0
    device: cpu (requested by name), 8 images of 32 x 32 per batch
    error: step `pixels`: 7 of 27 rows failed, 1 are allowed (`rejects.max_fraction`)
      "train.parquet#0": the `jpeg` image is truncated or corrupt: its end is missing
      "train.parquet#10": the image is 30000 x 30000 pixels; a side may have at most 16384
      "train.parquet#12": the image format `heic` is not supported; supported are `png`, `jpeg`, `webp`, `gif`, `bmp` and `tiff`
    hint: `SELECT path, reason FROM rejects` in `discl-pipe sql` shows all
    "#);
    workspace.edit("rejects.max_fraction=1.0");
    workspace.run();
    let rejects = workspace.query("SELECT step, reason FROM rejects ORDER BY reason");
    let reasons: Vec<_> = rejects.iter().map(|row| row["reason"].as_str().unwrap()).collect();
    assert_snapshot!(reasons.join("\n"), @r#"
    not an image: it looks like `text`
    the `jpeg` image is truncated or corrupt: its end is missing
    the `png` image is truncated or corrupt: its end is missing
    the file is empty
    the image format `heic` is not supported; supported are `png`, `jpeg`, `webp`, `gif`, `bmp` and `tiff`
    the image is 30000 x 30000 pixels; a side may have at most 16384
    the source has no bytes for it, only the path "a.png"; write the bytes too: `dataset.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)`, then `to_parquet`
    "#);
    let distinct = workspace.number("SELECT count(DISTINCT source_id) FROM rejects");
    assert_eq!((rejects.len(), distinct), (bad.len(), bad.len() as f64));
    assert_eq!(workspace.number("SELECT count(*) FROM images WHERE label = 1"), GOOD as f64);
    assert_eq!(workspace.number("SELECT count(*) FROM images"), GOOD as f64);
    workspace.ok("verify", &[]);
}
