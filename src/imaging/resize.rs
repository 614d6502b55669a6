//! Pillow's resampling, to the byte, and the centre crop of CLIP's processor.
//!
//! diffusers and transformers resize with Pillow, and what comes after amplifies a difference of one step. Pillow
//! convolves rows, then columns, in fixed point, and rounds to bytes between the two. (From version 13 it takes the
//! columns first for some sizes, which moves a few bytes by a few steps.)

use std::f64::consts::PI;

use image::imageops::crop_imm;
use image::{Rgb, RgbImage};

use super::ImageError;

/// Binary digits of a weight after the point.
const PRECISION: u32 = 22;

/// A resampling filter, as Pillow has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Triangle; `resample` 2 in Pillow.
    Bilinear,
    /// Cubic with a = -0.5; `resample` 3 in Pillow.
    Bicubic,
    /// Windowed sinc of three lobes; `resample` 1 in Pillow.
    Lanczos,
}

impl Filter {
    /// How far from its middle the filter reaches, in pixels.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The weight at a distance from the middle.
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

/// What one pixel of the result is made of: where its window begins, and weights in fixed point.
#[derive(Debug)]
struct Window {
    first: u32,
    weights: Vec<i32>,
}

/// The windows of all pixels of a side that goes from `from` to `to` pixels.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as in Pillow, which truncates")]
fn windows(from: u32, to: u32, filter: Filter) -> Vec<Window> {
    let scale = f64::from(from) / f64::from(to);
    // a smaller image is blurred first, a larger one is not
    let stretch = scale.max(1.0);
    let (reach, shrink) = (filter.support() * stretch, 1.0 / stretch);
    let window = |index: u32| {
        let centre = (f64::from(index) + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as u32;
        let end = ((centre + reach + 0.5) as u32).min(from);
        let weight = |at: u32| filter.weight((f64::from(at) - centre + 0.5) * shrink);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let share = 1.0 / weights.iter().sum::<f64>();
        // away from zero at halves, as adding 0.5 and truncating does
        let fixed = |weight: &f64| (weight * share * f64::from(1 << PRECISION)).round() as i32;
        Window { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

/// The size in pixels that images are brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Takes the largest size inside that has the image's aspect.
    pub(crate) keep_aspect: bool,
}

impl Fit {
    /// The sides of an image of `width` x `height` once it is brought to this size; each at least 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a side is no longer than ours")]
    pub(crate) fn sides(self, width: u32, height: u32) -> (u32, u32) {
        if !self.keep_aspect {
            return (self.width, self.height);
        }
        let (width, height) = (f64::from(width), f64::from(height));
        let scale = (f64::from(self.width) / width).min(f64::from(self.height) / height);
        let side = |length: f64, most: u32| ((length * scale).round() as u32).clamp(1, most);
        (side(width, self.width), side(height, self.height))
    }
}

/// Resizes to `width` x `height`, with antialiasing when it gets smaller: Pillow's `Image.resize`.
///
/// # Errors
/// [`ImageError::NoArea`] for a side of 0.
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

/// A weighted sum of pixels, rounded and cut to bytes.
fn weighted(pixels: impl Iterator<Item = [u8; 3]>, weights: &[i32]) -> Rgb<u8> {
    let mut sums = [1 << (PRECISION - 1); 3];
    for (weight, pixel) in weights.iter().zip(pixels) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += weight * i32::from(value);
        }
    }
    Rgb(sums.map(|sum: i32| (sum >> PRECISION).clamp(0, 255) as u8))
}

/// The middle `width` x `height` pixels. Where the image is smaller the rest is black, and an odd pixel goes as
/// in `center_crop` of transformers' image transforms.
pub(crate) fn centre_crop(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    if image.width() >= width && image.height() >= height {
        let left = (image.width() - width) / 2;
        let top = (image.height() - height) / 2;
        return crop_imm(image, left, top, width, height).to_image();
    }
    // transformers pads to the larger of both sizes, the odd pixel at the left and the top, then crops.
    let (padded_width, padded_height) = (width.max(image.width()), height.max(image.height()));
    let mut padded = RgbImage::new(padded_width, padded_height);
    let left = (padded_width - image.width()).div_ceil(2);
    let top = (padded_height - image.height()).div_ceil(2);
    image::imageops::replace(&mut padded, image, i64::from(left), i64::from(top));
    centre_crop(&padded, width, height)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]
mod tests {
    use super::*;

    #[test]
    fn odd_pixels_of_a_crop_go_right_and_below() {
        let image = RgbImage::from_fn(5, 5, |x, y| image::Rgb([x as u8, y as u8, 0]));
        assert_eq!(centre_crop(&image, 2, 2).get_pixel(0, 0).0, [1, 1, 0]);
        assert_eq!(centre_crop(&image, 3, 1).get_pixel(0, 0).0, [1, 2, 0]);
    }

    #[test]
    fn a_crop_larger_than_the_image_is_padded_with_black() {
        let image = RgbImage::from_pixel(2, 4, image::Rgb([9, 9, 9]));
        let cropped = centre_crop(&image, 4, 2);
        assert_eq!(cropped.dimensions(), (4, 2));
        let row: Vec<u8> = cropped.rows().next().unwrap().map(|pixel| pixel.0[0]).collect();
        assert_eq!(row, [0, 9, 9, 0]);
    }

    #[test]
    fn no_area_is_an_error() {
        let image = RgbImage::new(2, 2);
        assert!(matches!(resize(&image, 0, 2, Filter::Bicubic), Err(ImageError::NoArea { .. })));
    }
}
