//! What all schedulers share: a table of coefficients over the timesteps, and a sample's position in it.

use std::{fmt::Debug, sync::Arc};

use super::{super::noise::Normals, Denoising, Scheduler, noise_level::NoiseLevel};

/// The step of one scheduler.
pub(super) trait Method: Debug + Send + Sync + Sized + 'static {
    /// What a step needs to know about its timestep.
    type Coefficients: Debug + Send + Sync;
    /// What a sample keeps of its earlier timesteps.
    type History: Debug + Default + Send;

    /// Returns the noise level of a sample before that timestep.
    fn level(coefficients: &Self::Coefficients) -> NoiseLevel;

    /// Returns the factor of samples that start from noise alone.
    fn initial_sigma(&self) -> f32 {
        1.0
    }

    /// Returns the divisor that turns a sample into the UNet's input.
    fn input_divisor(_coefficients: &Self::Coefficients) -> f32 {
        1.0
    }

    /// Moves the latents to the next timestep.
    fn step(
        &self,
        coefficients: &Self::Coefficients,
        latents: &mut [f32],
        prediction: &[f32],
        history: &mut Self::History,
        normals: &mut dyn Normals,
    );
}

/// A schedule with a fixed number of timesteps: a method with its coefficients at each of them.
#[derive(Debug)]
pub(super) struct Discretized<M: Method> {
    method: M,
    /// The number of timesteps. There may be more calls.
    count: usize,
    timesteps: Vec<f32>,
    coefficients: Vec<M::Coefficients>,
}

impl<M: Method> Discretized<M> {
    /// Creates a schedule of `count` timesteps that calls the UNet at `timesteps`.
    pub(super) fn boxed(
        method: M,
        count: u32,
        timesteps: Vec<f32>,
        coefficients: Vec<M::Coefficients>,
    ) -> Box<dyn Scheduler> {
        Box::new(Arc::new(Self { method, count: count as usize, timesteps, coefficients }))
    }
}

impl<M: Method> Scheduler for Arc<Discretized<M>> {
    fn calls(&self, run: usize) -> &[f32] {
        self.timesteps.get(self.count.saturating_sub(run)..).unwrap_or_default()
    }

    fn start(
        &self,
        run: usize,
        latents: Option<&[f32]>,
        noise: &[f32],
        normals: Box<dyn Normals>,
    ) -> Box<dyn Denoising> {
        let index = self.count.saturating_sub(run);
        let latents = match (latents, self.coefficients.get(index)) {
            (Some(latents), Some(coefficients)) => {
                let level = M::level(coefficients);
                latents.iter().zip(noise).map(|(latent, noise)| level.mix(*latent, *noise)).collect()
            }
            (Some(latents), None) => latents.to_vec(),
            (None, _) => noise.iter().map(|noise| noise * self.method.initial_sigma()).collect(),
        };
        Box::new(Sample { schedule: Arc::clone(self), index, latents, history: M::History::default(), normals })
    }
}

/// A sample and its position in the schedule.
#[derive(Debug)]
struct Sample<M: Method> {
    schedule: Arc<Discretized<M>>,
    index: usize,
    latents: Vec<f32>,
    history: M::History,
    normals: Box<dyn Normals>,
}

impl<M: Method> Denoising for Sample<M> {
    fn timestep(&self) -> Option<f32> {
        self.schedule.timesteps.get(self.index).copied()
    }

    fn model_input(&self, row: &mut [f32]) {
        let divisor = self.schedule.coefficients.get(self.index).map_or(1.0, M::input_divisor);
        for (row, latent) in row.iter_mut().zip(&self.latents) {
            *row = latent / divisor;
        }
    }

    fn advance(&mut self, prediction: &[f32]) {
        let Some(coefficients) = self.schedule.coefficients.get(self.index) else { return };
        let method = &self.schedule.method;
        method.step(coefficients, &mut self.latents, prediction, &mut self.history, &mut *self.normals);
        self.index += 1;
    }

    fn latents(&self) -> &[f32] {
        &self.latents
    }
}
