//! How noise grows over the training timesteps: betas, and what diffusers' schedulers derive from them.

use serde::Deserialize;

/// The growth of betas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BetaSchedule {
    Linear,
    ScaledLinear,
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
}

/// The noise schedule that a model was trained with.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NoiseSchedule {
    /// The number of timesteps.
    pub(super) num_train_timesteps: u32,
    beta_start: f64,
    beta_end: f64,
    beta_schedule: BetaSchedule,
    /// One beta for each timestep; replaces the computed ones.
    pub(super) trained_betas: Option<Vec<f32>>,
    /// Whether nothing of the image is left at the last timestep (Lin et al. 2023, arXiv 2305.08891, algorithm 1).
    #[serde(default)]
    rescale_betas_zero_snr: bool,
}

impl NoiseSchedule {
    /// Whether the betas are those of Nichol and Dhariwal 2021 (arXiv 2102.09672), equation 17.
    pub(super) fn is_squared_cosine(&self) -> bool {
        self.beta_schedule == BetaSchedule::SquaredCosine
    }

    /// Returns the cumulative products of 1 - beta, one for each training timestep.
    pub(super) fn alphas_cumprod(&self) -> Vec<f32> {
        let alphas: Vec<f32> = self.betas().into_iter().map(|beta| 1.0 - beta).collect();
        let cumulative = products(&alphas);
        if self.rescale_betas_zero_snr { products(&to_zero_snr(&cumulative)) } else { cumulative }
    }

    /// Returns the ratios of noise to image, one for each training timestep.
    pub(super) fn sigmas(&self) -> Vec<f32> {
        let mut alphas = self.alphas_cumprod();
        if let (true, Some(last)) = (self.rescale_betas_zero_snr, alphas.last_mut()) {
            // diffusers uses this instead of 0, whose sigma would be infinite.
            *last = (-24_f32).exp2();
        }
        alphas.into_iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
    }

    fn betas(&self) -> Vec<f32> {
        if let Some(betas) = &self.trained_betas {
            return betas.clone();
        }
        let (start, end, count) = (self.beta_start, self.beta_end, self.num_train_timesteps);
        match self.beta_schedule {
            BetaSchedule::Linear => linspace(to_f32(start), to_f32(end), count),
            BetaSchedule::ScaledLinear => {
                let roots = linspace(to_f32(start.sqrt()), to_f32(end.sqrt()), count);
                roots.into_iter().map(|root| root * root).collect()
            }
            BetaSchedule::SquaredCosine => {
                let bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let at = |step: u32| f64::from(step) / f64::from(count);
                (0..count).map(|step| to_f32((1.0 - bar(at(step + 1)) / bar(at(step))).min(0.999))).collect()
            }
        }
    }
}

/// Rescales alphas so that their products end at 0.
fn to_zero_snr(cumulative: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative.iter().map(|alpha| alpha.sqrt()).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let scale = first / (first - last);
    let rescaled = roots.iter().map(|root| ((root - last) * scale).powi(2));
    let before = [1.0].into_iter().chain(rescaled.clone());
    // Computed from betas, with diffusers' rounding.
    rescaled.zip(before).map(|(alpha, before)| 1.0 - (1.0 - alpha / before)).collect()
}

/// Returns cumulative products. torch accumulates products of float32 in float64.
fn products(factors: &[f32]) -> Vec<f32> {
    let multiply = |product: &mut f64, factor: &f32| {
        *product *= f64::from(*factor);
        Some(to_f32(*product))
    };
    factors.iter().scan(1.0, multiply).collect()
}

/// Returns torch's `linspace`, which counts from both ends towards the middle.
#[expect(clippy::cast_precision_loss, reason = "a few thousand timesteps")]
fn linspace(start: f32, end: f32, count: u32) -> Vec<f32> {
    let step = (end - start) / (count - 1) as f32;
    let value = |index: u32| {
        if index < count / 2 { start + step * index as f32 } else { end - step * (count - 1 - index) as f32 }
    };
    (0..count).map(value).collect()
}

/// Rounds to the nearest f32, as torch does.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
pub(super) fn to_f32(value: f64) -> f32 {
    value as f32
}
