//! Converts pixels to tensors and back. Tensors are planar: channel, row, column.

use image::RgbImage;

use super::ImageError;

/// Converts an image to [3, height, width]. Each value is (v / 255 - mean) / std of its channel; with mean and std 0.5
/// this is diffusers' range -1..1.
pub(crate) fn to_chw(image: &RgbImage, mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let mut planes = Vec::with_capacity(image.as_raw().len());
    for (channel, (mean, std)) in mean.into_iter().zip(std).enumerate() {
        let values = image.as_raw().iter().skip(channel).step_by(3);
        planes.extend(values.map(|&value| (f32::from(value) / 255.0 - mean) / std));
    }
    planes
}

/// Converts [3, height, width] in -1..1 to an image, as diffusers' `VaeImageProcessor` does: (x / 2 + 0.5) clamped to
/// 0..1, times 255, rounded half to even.
///
/// # Errors
/// Returns [`ImageError::WrongLength`] if the length is not that of the image, and [`ImageError::NotFinite`] if there is
/// a NaN or an infinity.
pub(crate) fn from_chw(planes: &[f32], width: u32, height: u32) -> Result<RgbImage, ImageError> {
    let area = width as usize * height as usize;
    if area == 0 || planes.len() != 3 * area {
        return Err(ImageError::WrongLength { values: planes.len(), width, height });
    }
    if planes.iter().any(|value| !value.is_finite()) {
        return Err(ImageError::NotFinite);
    }
    let mut pixels = vec![0; planes.len()];
    for (channel, plane) in planes.chunks_exact(area).enumerate() {
        for (pixel, &value) in pixels.iter_mut().skip(channel).step_by(3).zip(plane) {
            *pixel = to_byte(value);
        }
    }
    RgbImage::from_raw(width, height, pixels).ok_or(ImageError::WrongLength { values: planes.len(), width, height })
}

/// Checks that an image which a model generated has more than one color.
///
/// # Errors
/// Returns [`ImageError::OneColor`] if all pixels are equal.
pub(crate) fn check_colors(image: &RgbImage) -> Result<(), ImageError> {
    let mut pixels = image.pixels();
    match pixels.next() {
        Some(first) if pixels.all(|pixel| pixel == first) => {
            let [red, green, blue] = first.0;
            Err(ImageError::OneColor { color: format!("#{red:02x}{green:02x}{blue:02x}") })
        }
        _ => Ok(()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255 and rounded")]
fn to_byte(value: f32) -> u8 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_gives_the_same_image() {
        let image = RgbImage::from_fn(16, 16, |x, y| image::Rgb([(16 * y + x) as u8, x as u8, y as u8]));
        let planes = to_chw(&image, [0.5; 3], [0.5; 3]);
        assert_eq!(planes[0], -1.0);
        assert_eq!(from_chw(&planes, 16, 16).unwrap(), image);
    }

    #[test]
    fn channels_have_their_own_mean_and_std() {
        let image = RgbImage::from_pixel(1, 1, image::Rgb([255, 0, 51]));
        let planes = to_chw(&image, [0.0, 0.5, 0.2], [1.0, 0.25, 1.0]);
        assert_eq!(planes, [1.0, -2.0, 0.0]);
    }

    #[test]
    fn an_image_of_one_color_is_found() {
        let mut image = RgbImage::from_pixel(3, 2, image::Rgb([0, 128, 255]));
        let error = check_colors(&image).unwrap_err().to_string();
        assert!(error.contains("has one color, #0080ff, everywhere"), "{error}");
        image.put_pixel(2, 1, image::Rgb([0, 128, 254]));
        check_colors(&image).unwrap();
    }

    #[test]
    fn invalid_tensors_are_errors() {
        assert!(matches!(from_chw(&[0.0; 11], 2, 2), Err(ImageError::WrongLength { values: 11, .. })));
        assert!(matches!(from_chw(&[f32::NAN, 0.0, 0.0], 1, 1), Err(ImageError::NotFinite)));
    }
}
