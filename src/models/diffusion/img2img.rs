//! The arithmetic around the models, for one sample.

use image::RgbImage;

use super::{
    latents::{Scaling, Size},
    noise::{Normals, Purpose},
};
use crate::imaging::{Filter, ImageError, resize, to_chw};

/// A source image as the VAE expects it: [3, height, width] in -1..1.
#[derive(Debug)]
pub(super) struct Pixels {
    pub(super) planes: Vec<f32>,
    /// The size of the latents that it is encoded to.
    pub(super) size: Size,
}

/// The VAE's encoding of a source image: the posterior of its latents, [channels, height, width] each. Without a
/// variance the latents are the mean.
#[derive(Debug)]
pub(super) struct Posterior {
    pub(super) mean: Vec<f32>,
    pub(super) log_variance: Option<Vec<f32>>,
    pub(super) size: Size,
}

/// Resizes an image down to whole latents with Lanczos, as diffusers' `VaeImageProcessor` does, and scales it to -1..1.
/// Returns `None` if the image is smaller than one latent.
///
/// # Errors
/// Returns the errors of [`resize`].
pub(super) fn prepare(image: &RgbImage, pixels_per_latent: u32) -> Result<Option<Pixels>, ImageError> {
    let size = Size { width: image.width() / pixels_per_latent, height: image.height() / pixels_per_latent };
    if size.area() == 0 {
        return Ok(None);
    }
    let resized = resize(image, size.width * pixels_per_latent, size.height * pixels_per_latent, Filter::Lanczos)?;
    Ok(Some(Pixels { planes: to_chw(&resized, [0.5; 3], [0.5; 3]), size }))
}

/// Draws latents from the posterior and scales them for the UNet, as diffusers' `DiagonalGaussianDistribution.sample`
/// and its VAE scaling do.
pub(super) fn latents(scaling: &Scaling, posterior: &Posterior, normals: &mut dyn Normals) -> Vec<f32> {
    let mut latents = posterior.mean.clone();
    if let Some(log_variance) = &posterior.log_variance {
        let draws = normals.draw(Purpose::Posterior, latents.len());
        for ((latent, log_variance), draw) in latents.iter_mut().zip(log_variance).zip(draws) {
            *latent += (0.5 * log_variance.clamp(-30.0, 20.0)).exp() * draw;
        }
    }
    scaling.apply(&mut latents);
    latents
}

/// Applies classifier-free guidance: unconditional + scale * (conditional - unconditional).
pub(super) fn guide(scale: f32, unconditional: &[f32], conditional: &[f32]) -> Vec<f32> {
    let pairs = unconditional.iter().zip(conditional);
    pairs.map(|(without, with)| without + scale * (with - without)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_shrink_to_whole_latents() {
        let pixels = prepare(&RgbImage::new(33, 47), 8).unwrap().unwrap();
        assert_eq!(pixels.size, Size { width: 4, height: 5 });
        assert_eq!(pixels.planes.len(), 3 * 32 * 40);
        assert!(prepare(&RgbImage::new(7, 100), 8).unwrap().is_none());
    }

    #[test]
    fn guidance_extrapolates_past_the_condition() {
        assert_eq!(guide(4.0, &[1.0, 0.0], &[2.0, -0.5]), [5.0, -2.0]);
        assert_eq!(guide(1.0, &[1.0], &[2.0]), [2.0]);
    }
}
