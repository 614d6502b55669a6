//! The size and the scale of latents.

/// The sides of latents, in latent pixels. Samples of one size share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Size {
    /// Returns the number of values in one channel.
    pub(super) fn area(self) -> usize {
        self.width as usize * self.height as usize
    }
}

/// Converts the VAE's latents to the UNet's: subtracts a mean, then multiplies by a factor, per channel.
#[derive(Debug, Clone)]
pub(super) struct Scaling(Vec<(f32, f32)>);

impl Scaling {
    /// Takes the mean and the factor of each channel.
    pub(super) fn new(channels: Vec<(f32, f32)>) -> Self {
        Self(channels)
    }

    /// Converts latents [channels, ...] of the VAE to the UNet's scale.
    pub(super) fn apply(&self, latents: &mut [f32]) {
        self.by_channel(latents, |latent, mean, factor| (latent - mean) * factor);
    }

    /// Converts latents of the UNet back to the VAE's scale.
    pub(super) fn undo(&self, latents: &mut [f32]) {
        self.by_channel(latents, |latent, mean, factor| latent / factor + mean);
    }

    fn by_channel(&self, latents: &mut [f32], change: impl Fn(f32, f32, f32) -> f32) {
        let values = latents.len() / self.0.len().max(1);
        for (channel, &(mean, factor)) in latents.chunks_exact_mut(values.max(1)).zip(&self.0) {
            for latent in channel {
                *latent = change(*latent, mean, factor);
            }
        }
    }
}
