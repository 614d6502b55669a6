//! The arithmetic around the models, for one sample.

use image::RgbImage;

use super::{
    latents::{Scaling, Size},
    noise::{Normals, Purpose},
    sides::Sides,
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

/// Resizes an image to sides that the models take with Lanczos, as diffusers' `VaeImageProcessor` does, and scales it to
/// -1..1.
///
/// # Errors
/// Returns the errors of [`resize`].
pub(super) fn prepare(image: &RgbImage, sides: Sides) -> Result<Pixels, ImageError> {
    let (width, height) = (sides.of(image.width()), sides.of(image.height()));
    let size = Size { width: width / sides.pixels_per_latent, height: height / sides.pixels_per_latent };
    let resized = resize(image, width, height, Filter::Lanczos)?;
    Ok(Pixels { planes: to_chw(&resized, [0.5; 3], [0.5; 3]), size })
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
        let pixels = prepare(&RgbImage::new(33, 47), Sides { pixels_per_latent: 8, multiple: 8 }).unwrap();
        assert_eq!(pixels.size, Size { width: 4, height: 5 });
        assert_eq!(pixels.planes.len(), 3 * 32 * 40);
    }

    #[test]
    fn guidance_extrapolates_past_the_condition() {
        assert_eq!(guide(4.0, &[1.0, 0.0], &[2.0, -0.5]), [5.0, -2.0]);
        assert_eq!(guide(1.0, &[1.0], &[2.0]), [2.0]);
    }
}
