//! Pillow's resampling, byte for byte, and the center crop of CLIP's processor.
//!
//! diffusers and transformers resize with Pillow, and later steps amplify a difference of one level. Pillow convolves
//! rows, then columns, in fixed point, and rounds to bytes in between. (From version 13 on it convolves the columns first
//! for some sizes, which changes a few bytes by a few levels.)

use std::f64::consts::PI;

use image::{Rgb, RgbImage, imageops::crop_imm};

use super::ImageError;

/// Fractional bits of a weight.
const PRECISION: u32 = 22;

/// A resampling filter of Pillow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Triangle; Pillow's `resample` 2.
    Bilinear,
    /// Cubic with a = -0.5; Pillow's `resample` 3.
    Bicubic,
    /// Windowed sinc with three lobes; Pillow's `resample` 1.
    Lanczos,
}

impl Filter {
    /// Returns the radius of the filter, in pixels.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// Returns the weight at a distance from the center.
    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// The pixels that one pixel of the result is computed from: the start of their window, and their weights in fixed point.
#[derive(Debug)]
struct Window {
    first: u32,
    weights: Vec<i32>,
}

/// Returns the windows of all pixels of a side that is resized from `from` to `to` pixels.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as in Pillow, which truncates")]
fn windows(from: u32, to: u32, filter: Filter) -> Vec<Window> {
    let scale = f64::from(from) / f64::from(to);
    // Downscaling widens the filter; upscaling does not.
    let stretch = scale.max(1.0);
    let (reach, shrink) = (filter.support() * stretch, 1.0 / stretch);
    let window = |index: u32| {
        let center = (f64::from(index) + 0.5) * scale;
        let first = (center - reach + 0.5).max(0.0) as u32;
        let end = ((center + reach + 0.5) as u32).min(from);
        let weight = |at: u32| filter.weight((f64::from(at) - center + 0.5) * shrink);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let share = 1.0 / weights.iter().sum::<f64>();
        // Halves round away from zero, as in Pillow, which adds 0.5 and truncates.
        let fixed = |weight: &f64| (weight * share * f64::from(1 << PRECISION)).round() as i32;
        Window { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

/// Sides of buckets are multiples of this, in pixels, as in SDXL's training: UNets take them as they are.
const BUCKET: u32 = 64;

/// The size to which images are resized, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// This width and height.
    Exactly(u32, u32),
    /// The largest size inside this width and height that has the image's aspect ratio.
    Within(u32, u32),
    /// The bucket with the most similar aspect ratio. Sides of buckets are multiples of 64, and their area is this one or
    /// up to an eighth smaller or larger.
    Area(u32),
}

impl Fit {
    /// Returns the sides to which an image of `width` x `height` is resized; each is at least 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the sides of `self`")]
    pub(crate) fn sides(self, width: u32, height: u32) -> (u32, u32) {
        match self {
            Self::Exactly(width, height) => (width, height),
            Self::Within(max_width, max_height) => {
                let (width, height) = (f64::from(width), f64::from(height));
                let scale = (f64::from(max_width) / width).min(f64::from(max_height) / height);
                let side = |length: f64, max: u32| ((length * scale).round() as u32).clamp(1, max);
                (side(width, max_width), side(height, max_height))
            }
            Self::Area(area) => bucket(area, width, height),
        }
    }
}

/// Returns the bucket of an image. Of two that are equally similar, the one whose area is closer.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the area in cells")]
fn bucket(area: u32, width: u32, height: u32) -> (u32, u32) {
    let (area, ratio) = (f64::from(area), f64::from(width) / f64::from(height));
    let cells = area / f64::from(BUCKET * BUCKET);
    let (least, most) = (0.875 * cells, 1.125 * cells);
    let all = (1..=most.max(1.0) as u32).flat_map(|columns| {
        let rows = |cells: f64| cells / f64::from(columns);
        (rows(least).ceil().max(1.0) as u32..=rows(most) as u32).map(move |rows| (columns, rows))
    });
    let difference = |(columns, rows): (u32, u32)| {
        let of_ratio = (f64::from(columns) / f64::from(rows) / ratio).ln().abs();
        (of_ratio, (f64::from(columns * rows) - cells).abs())
    };
    let nearest = all.min_by(|&a, &b| {
        let ((a, further_a), (b, further_b)) = (difference(a), difference(b));
        a.total_cmp(&b).then(further_a.total_cmp(&further_b))
    });
    let side = (cells.sqrt().round() as u32).max(1);
    let (columns, rows) = nearest.unwrap_or((side, side));
    (columns * BUCKET, rows * BUCKET)
}

/// Resizes to `width` x `height` as Pillow's `Image.resize` does, with antialiasing when downscaling.
///
/// # Errors
/// Returns [`ImageError::NoArea`] if a side is 0.
pub(crate) fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage, ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::NoArea { width, height });
    }
    let narrowed = if width == image.width() { image.clone() } else { along_rows(image, width, filter) };
    Ok(if height == narrowed.height() { narrowed } else { along_columns(&narrowed, height, filter) })
}

fn along_rows(image: &RgbImage, width: u32, filter: Filter) -> RgbImage {
    let windows = windows(image.width(), width, filter);
    let mut out = RgbImage::new(width, image.height());
    for (from, to) in image.rows().zip(out.rows_mut()) {
        let from: Vec<[u8; 3]> = from.map(|pixel| pixel.0).collect();
        for (pixel, Window { first, weights }) in to.zip(&windows) {
            *pixel = weighted(from.iter().skip(*first as usize).copied(), weights);
        }
    }
    out
}

fn along_columns(image: &RgbImage, height: u32, filter: Filter) -> RgbImage {
    let windows = windows(image.height(), height, filter);
    let mut out = RgbImage::new(image.width(), height);
    for (to, Window { first, weights }) in out.rows_mut().zip(&windows) {
        for (x, pixel) in (0..image.width()).zip(to) {
            *pixel = weighted((*first..).map(|y| image.get_pixel(x, y).0), weights);
        }
    }
    out
}

/// Returns a weighted sum of pixels, rounded and clamped to bytes.
fn weighted(pixels: impl Iterator<Item = [u8; 3]>, weights: &[i32]) -> Rgb<u8> {
    let mut sums = [1 << (PRECISION - 1); 3];
    for (weight, pixel) in weights.iter().zip(pixels) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += weight * i32::from(value);
        }
    }
    Rgb(sums.map(|sum: i32| (sum >> PRECISION).clamp(0, 255) as u8))
}

/// Returns the center `width` x `height` pixels. Pads a smaller image with black. Odd pixels are placed as in
/// `center_crop` of transformers' image transforms.
pub(crate) fn center_crop(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    if image.width() >= width && image.height() >= height {
        let left = (image.width() - width) / 2;
        let top = (image.height() - height) / 2;
        return crop_imm(image, left, top, width, height).to_image();
    }
    // transformers pads to the larger of both sizes, with the odd pixel at the left and the top, and then crops.
    let (padded_width, padded_height) = (width.max(image.width()), height.max(image.height()));
    let mut padded = RgbImage::new(padded_width, padded_height);
    let left = (padded_width - image.width()).div_ceil(2);
    let top = (padded_height - image.height()).div_ceil(2);
    image::imageops::replace(&mut padded, image, i64::from(left), i64::from(top));
    center_crop(&padded, width, height)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]
mod tests {
    use super::*;

    #[test]
    fn odd_pixels_of_a_crop_are_cut_at_the_right_and_below() {
        let image = RgbImage::from_fn(5, 5, |x, y| image::Rgb([x as u8, y as u8, 0]));
        assert_eq!(center_crop(&image, 2, 2).get_pixel(0, 0).0, [1, 1, 0]);
        assert_eq!(center_crop(&image, 3, 1).get_pixel(0, 0).0, [1, 2, 0]);
    }

    #[test]
    fn a_crop_larger_than_the_image_is_padded_with_black() {
        let image = RgbImage::from_pixel(2, 4, image::Rgb([9, 9, 9]));
        let cropped = center_crop(&image, 4, 2);
        assert_eq!(cropped.dimensions(), (4, 2));
        let row: Vec<u8> = cropped.rows().next().unwrap().map(|pixel| pixel.0[0]).collect();
        assert_eq!(row, [0, 9, 9, 0]);
    }

    #[test]
    fn buckets_have_about_one_area_and_the_aspect_ratio_of_the_image() {
        let area = 512 * 512;
        let of = |width, height| Fit::Area(area).sides(width, height);
        assert_eq!([of(300, 300), of(512, 512), of(4000, 3900)], [(512, 512); 3]);
        assert_eq!([of(640, 480), of(480, 640)], [(576, 448), (448, 576)]);
        assert_eq!([of(1920, 1080), of(3000, 1000)], [(704, 384), (896, 320)]);
        let mut sizes = std::collections::BTreeSet::new();
        for width in (100..1000).step_by(7) {
            let (wide, high) = of(width, 400);
            let (before, after) = (f64::from(width) / 400.0, f64::from(wide) / f64::from(high));
            assert!((before / after).max(after / before) < 1.125, "{width} x 400 becomes {wide} x {high}");
            assert!((7 * area / 8..=9 * area / 8).contains(&(wide * high)), "{wide} x {high}");
            sizes.insert((wide, high));
        }
        assert!(sizes.len() < 25, "{sizes:?}");
        assert_eq!(Fit::Area(64 * 64).sides(5000, 10), (64, 64), "the smallest area has one bucket");
    }

    #[test]
    fn a_side_of_0_is_an_error() {
        let image = RgbImage::new(2, 2);
        assert!(matches!(resize(&image, 0, 2, Filter::Bicubic), Err(ImageError::NoArea { .. })));
    }
}
