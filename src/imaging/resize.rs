//! Pillow's resampling, and the centre crop of CLIP's processor.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use image::imageops::crop_imm;

use super::ImageError;

/// A resampling filter, with the support that Pillow gives it.
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
    fn kernel(self) -> FilterType {
        match self {
            Self::Bilinear => FilterType::Bilinear,
            Self::Bicubic => FilterType::CatmullRom,
            Self::Lanczos => FilterType::Lanczos3,
        }
    }
}

/// Resizes to `width` x `height`, with antialiasing when it gets smaller; within 1/255 of Pillow's `Image.resize`.
///
/// # Errors
/// [`ImageError::NoArea`] for a side of 0, [`ImageError::Resize`] where the resampler refuses.
pub(crate) fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage, ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::NoArea { width, height });
    }
    if (width, height) == image.dimensions() {
        return Ok(image.clone());
    }
    // Pillow goes over the rows first and rounds to bytes between the passes; the crate alone would choose by cost.
    let narrowed = pass(image, width, image.height(), filter)?;
    pass(&narrowed, width, height, filter)
}

/// Resizes along one side.
fn pass(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage, ImageError> {
    let refused = |source| ImageError::Resize { width, height, source };
    let source = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x3)
        .map_err(|error| refused(error.into()))?;
    let mut target = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter.kernel())).use_alpha(false);
    Resizer::new().resize(&source, &mut target, &options).map_err(|error| refused(error.into()))?;
    RgbImage::from_raw(width, height, target.into_vec()).ok_or_else(|| refused("the buffer is too short".into()))
}

/// The middle `width` x `height` pixels. Where the picture is smaller the rest is black, and an odd pixel goes as
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
    fn a_crop_larger_than_the_picture_is_padded_with_black() {
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
