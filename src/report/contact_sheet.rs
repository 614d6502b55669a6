//! The contact sheet: one row per hard image and one column per level, the real image first.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array;
use image::{Rgb, RgbImage, imageops};

use crate::{
    error::{Error, Result},
    imaging::{self, Filter, Limits},
    pipeline::Project,
};

/// The name of the file, which is next to the tables.
const NAME: &str = "contact_sheet.png";
/// The range of a cell's side, in pixels.
const CELL: std::ops::RangeInclusive<u32> = 64..=192;
/// Pixels between two cells.
const GAP: u32 = 4;
const GROUND: Rgb<u8> = Rgb([24, 24, 24]);

#[derive(Debug, thiserror::Error)]
#[error("the contact sheet cannot be encoded")]
struct EncodeError(#[from] imaging::ImageError);

/// Writes the contact sheet, unless there are no hard samples.
///
/// # Errors
/// Returns an error if the tables cannot be read or the file cannot be written.
pub(crate) async fn write_contact_sheet(project: &Project) -> Result<()> {
    let cells = cells(project).await?;
    if cells.is_empty() {
        return Ok(());
    }
    let png = imaging::encode_png(&draw(&cells)).map_err(|error| Error::failed(EncodeError(error)))?;
    Ok(project.session.lake().location().put(NAME, png.into()).await?)
}

/// Returns whether the contact sheet exists.
///
/// # Errors
/// Returns an error if the store does not answer.
pub(crate) async fn has_contact_sheet(project: &Project) -> Result<bool> {
    Ok(project.session.lake().location().exists(NAME).await?)
}

/// Returns the images by source and guidance. Leaves out those that cannot be decoded.
async fn cells(project: &Project) -> Result<BTreeMap<String, BTreeMap<i64, RgbImage>>> {
    let mut cells: BTreeMap<String, BTreeMap<i64, RgbImage>> = BTreeMap::new();
    for columns in project.query("report/contact_sheet.sql").await?.columns() {
        let (sources, guidances) = (columns.strings("source_id")?, columns.integers("image_guidance")?);
        let images = columns.images("image")?;
        for row in (0..columns.rows()).filter(|&row| images.is_valid(row)) {
            if let Ok(image) = imaging::decode(images.value(row), &Limits::default()) {
                cells.entry(sources.value(row).to_owned()).or_default().insert(guidances.value(row), image);
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
        // The real image, guidance 100, comes first.
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
