//! Noise levels, and what a prediction implies about a sample at one of them.

use serde::Deserialize;

/// What the UNet predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Prediction {
    /// The noise.
    #[serde(rename = "epsilon")]
    Epsilon,
    /// The velocity of Salimans and Ho 2022 (arXiv 2202.00512), appendix D.
    #[serde(rename = "v_prediction")]
    Velocity,
}

impl Prediction {
    /// Returns diffusers' name.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
        }
    }
}

/// The mixture of image and noise in a sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoiseLevel {
    /// The factor of the image.
    pub(super) signal: f32,
    /// The factor of the noise.
    pub(super) noise: f32,
}

impl NoiseLevel {
    /// Returns the level of a cumulative alpha, at which samples keep their variance.
    pub(super) fn of_alpha(alpha: f32) -> Self {
        Self { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() }
    }

    /// Returns the level with this ratio of noise to image.
    pub(super) fn of_sigma(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { signal, noise: sigma * signal }
    }

    /// Mixes an image and noise.
    pub(super) fn mix(self, original: f32, noise: f32) -> f32 {
        self.signal * original + self.noise * noise
    }

    /// Splits a sample whose variance is kept into the image and the noise that a prediction implies.
    pub(super) fn split(self, prediction: Prediction, sample: f32, predicted: f32) -> (f32, f32) {
        match prediction {
            Prediction::Epsilon => ((sample - self.noise * predicted) / self.signal, predicted),
            Prediction::Velocity => {
                (self.signal * sample - self.noise * predicted, self.signal * predicted + self.noise * sample)
            }
        }
    }
}
