//! The sides of images that a model takes.

/// Of which lengths sides must be multiples, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sides {
    /// Those of a whole latent, for the VAE.
    pub(crate) pixels_per_latent: u32,
    /// Those that the UNet takes: a whole latent, or one that halves evenly from level to level.
    pub(crate) multiple: u32,
}

impl Sides {
    /// Returns the length to which a side is resized: whole latents, as diffusers does, if the UNet takes them, otherwise
    /// the nearest length that it takes, of two the shorter.
    pub(crate) fn of(self, side: u32) -> u32 {
        let whole_latents = side - side % self.pixels_per_latent;
        if whole_latents > 0 && whole_latents.is_multiple_of(self.multiple) {
            return whole_latents;
        }
        side.saturating_add((self.multiple - 1) / 2).div_euclid(self.multiple).max(1).saturating_mul(self.multiple)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_latents_are_kept_if_the_unet_takes_them() {
        let any = Sides { pixels_per_latent: 8, multiple: 8 };
        assert_eq!([512, 517, 519, 600, 7, 1].map(|side| any.of(side)), [512, 512, 512, 600, 8, 8]);
        let even = Sides { pixels_per_latent: 8, multiple: 64 };
        assert_eq!([512, 517, 519, 64, 70].map(|side| even.of(side)), [512, 512, 512, 64, 64]);
    }

    #[test]
    fn other_sides_become_the_nearest_that_it_takes() {
        let even = Sides { pixels_per_latent: 8, multiple: 64 };
        assert_eq!([1, 63, 480, 608, 609, 1000, 3024].map(|side| even.of(side)), [64, 64, 448, 576, 640, 1024, 3008]);
        let digits = Sides { pixels_per_latent: 4, multiple: 8 };
        assert_eq!([36, 37, 44, 3].map(|side| digits.of(side)), [32, 40, 40, 8]);
        assert!(even.of(u32::MAX) > 0);
    }
}
