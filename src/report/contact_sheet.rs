//! The contact sheet: a row per hard image, a column per guidance level, the real image first. What the
//! spectrum looks like, at one glance.

use std::collections::{BTreeMap, BTreeSet};

use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use image::{Rgb, RgbImage, imageops};

use crate::{
    error::{Error, Result},
    imaging::{self, Filter, Limits},
    pipeline::Pipeline,
    schema,
};

/// The file, beside the tables.
const NAME: &str = "contact_sheet.png";
/// Sides of a cell in pixels: at least, and at most.
const CELL: std::ops::RangeInclusive<u32> = 64..=192;
/// Pixels between two cells.
const GAP: u32 = 4;
const GROUND: Rgb<u8> = Rgb([24, 24, 24]);

/// Writes the sheet of `pipeline`; nothing where it has no hard samples.
///
/// # Errors
/// Where the tables cannot be read or the file cannot be written.
pub async fn write_contact_sheet(pipeline: &Pipeline) -> Result<()> {
    let cells = cells(pipeline).await?;
    if cells.is_empty() {
        return Ok(());
    }
    let sheet = draw(&cells);
    let png = imaging::encode_png(&sheet).map_err(|error| Error::Data(format!("the contact sheet: {error}")))?;
    Ok(pipeline.session.lake().location().put(NAME, png.into()).await?)
}

/// Whether the sheet is there.
///
/// # Errors
/// Where the lake cannot say.
pub async fn has_contact_sheet(pipeline: &Pipeline) -> Result<bool> {
    Ok(pipeline.session.lake().location().exists(NAME).await?)
}

/// Images by source and guidance.
async fn cells(pipeline: &Pipeline) -> Result<BTreeMap<String, BTreeMap<i64, RgbImage>>> {
    let mut cells: BTreeMap<String, BTreeMap<i64, RgbImage>> = BTreeMap::new();
    for batch in super::rows(pipeline, "report/contact_sheet.sql").await? {
        let column = |name: &str, ty: &DataType| batch.column_by_name(name).and_then(|c| cast(c, ty).ok());
        let (Some(sources), Some(guidances), Some(images)) = (
            column("source_id", &DataType::Utf8),
            column("image_guidance", &DataType::Int64),
            batch.column_by_name("image").and_then(schema::image_bytes),
        ) else {
            continue;
        };
        for row in (0..batch.num_rows()).filter(|&row| images.is_valid(row)) {
            let source = sources.as_string::<i32>().value(row);
            if let Ok(image) = imaging::decode(images.value(row), &Limits::default()) {
                let guidance = guidances.as_primitive::<Int64Type>().value(row);
                cells.entry(source.to_owned()).or_default().insert(guidance, image);
            }
        }
    }
    Ok(cells)
}

fn draw(cells: &BTreeMap<String, BTreeMap<i64, RgbImage>>) -> RgbImage {
    let guidances: BTreeSet<i64> = cells.values().flat_map(BTreeMap::keys).copied().collect();
    let longest = cells.values().flat_map(BTreeMap::values).map(|i| i.width().max(i.height())).max().unwrap_or(1);
    let side = longest.clamp(*CELL.start(), *CELL.end());
    let (columns, rows) = (guidances.len() as u32, cells.len() as u32);
    let mut sheet = RgbImage::from_pixel(GAP + columns * (side + GAP), GAP + rows * (side + GAP), GROUND);
    for (row, row_of_images) in (0u32..).zip(cells.values()) {
        // the real image, guidance 100, comes first
        for (column, guidance) in (0u32..).zip(guidances.iter().rev()) {
            let Some(image) = row_of_images.get(guidance) else {
                continue;
            };
            let scale = f64::from(side) / f64::from(image.width().max(image.height()));
            let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).clamp(1, side);
            let (width, height) = (scaled(image.width()), scaled(image.height()));
            if let Ok(fitted) = imaging::resize(image, width, height, Filter::Bicubic) {
                let (x, y) = (GAP + column * (side + GAP), GAP + row * (side + GAP));
                imageops::replace(&mut sheet, &fitted, i64::from(x), i64::from(y));
            }
        }
    }
    sheet
}
