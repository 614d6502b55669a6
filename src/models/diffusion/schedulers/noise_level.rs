//! Levels of noise, and what a prediction says about a sample at one.

use serde::Deserialize;

/// What the UNet predicts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise.
    #[serde(rename = "epsilon")]
    Epsilon,
    /// The velocity of Salimans and Ho 2022 (arXiv 2202.00512), appendix D.
    #[serde(rename = "v_prediction")]
    Velocity,
}

impl Prediction {
    /// diffusers' word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
        }
    }
}

/// How much of the image and how much of the noise makes a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    /// The factor of the image.
    pub(super) signal: f32,
    /// The factor of the noise.
    pub(super) spread: f32,
}

impl Level {
    /// The level of a cumulative alpha, where samples keep their variance.
    pub(super) fn of_alpha(alpha: f32) -> Self {
        Self { signal: alpha.sqrt(), spread: (1.0 - alpha).sqrt() }
    }

    /// The same level by its ratio of noise to image.
    pub(super) fn of_sigma(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { signal, spread: sigma * signal }
    }

    /// The sample that is made of an image and noise.
    pub(super) fn mix(self, original: f32, noise: f32) -> f32 {
        self.signal * original + self.spread * noise
    }

    /// The image and the noise that a prediction sees in a sample whose variance is kept.
    pub(super) fn split(self, prediction: Prediction, sample: f32, predicted: f32) -> (f32, f32) {
        match prediction {
            Prediction::Epsilon => ((sample - self.spread * predicted) / self.signal, predicted),
            Prediction::Velocity => {
                (self.signal * sample - self.spread * predicted, self.signal * predicted + self.spread * sample)
            }
        }
    }
}
