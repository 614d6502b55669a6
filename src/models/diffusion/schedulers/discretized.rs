//! What all schedulers share: a table over the timesteps, and a sample's way through it.

use std::fmt::Debug;
use std::sync::Arc;

use super::super::noise::Normals;
use super::noise_level::Level;
use super::{Denoising, Scheduler};

/// What one scheduler does at a timestep.
pub(super) trait Method: Debug + Send + Sync + Sized + 'static {
    /// What is known about a timestep before there is a sample.
    type Point: Debug + Send + Sync;
    /// What a sample remembers of its earlier timesteps.
    type Memory: Debug + Default + Send;

    /// What an image and noise are mixed to before that timestep.
    fn level(point: &Self::Point) -> Level;

    /// What noise alone is multiplied with before the first timestep.
    fn initial_sigma(&self) -> f32 {
        1.0
    }

    /// What a sample is divided by to be the UNet's input.
    fn input_divisor(_point: &Self::Point) -> f32 {
        1.0
    }

    /// Takes the latents to the next timestep.
    fn step(
        &self,
        point: &Self::Point,
        latents: &mut [f32],
        prediction: &[f32],
        memory: &mut Self::Memory,
        normals: &mut dyn Normals,
    );
}

/// A schedule: a method, and its timesteps first to last.
#[derive(Debug)]
pub(super) struct Plan<M: Method> {
    method: M,
    /// Into how many timesteps the schedule is cut. There may be more calls.
    count: usize,
    timesteps: Vec<f32>,
    points: Vec<M::Point>,
}

impl<M: Method> Plan<M> {
    /// A schedule that is cut into `count` timesteps and calls the UNet at `timesteps`, each with its point.
    pub(super) fn boxed(method: M, count: u32, timesteps: Vec<f32>, points: Vec<M::Point>) -> Box<dyn Scheduler> {
        Box::new(Arc::new(Self { method, count: count as usize, timesteps, points }))
    }
}

impl<M: Method> Scheduler for Arc<Plan<M>> {
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
        let latents = match (latents, self.points.get(index)) {
            (Some(latents), Some(point)) => {
                let level = M::level(point);
                latents.iter().zip(noise).map(|(latent, noise)| level.mix(*latent, *noise)).collect()
            }
            (Some(latents), None) => latents.to_vec(),
            (None, _) => noise.iter().map(|noise| noise * self.method.initial_sigma()).collect(),
        };
        Box::new(Sample { plan: Arc::clone(self), index, latents, memory: M::Memory::default(), normals })
    }
}

/// A sample on its way through a plan.
#[derive(Debug)]
struct Sample<M: Method> {
    plan: Arc<Plan<M>>,
    index: usize,
    latents: Vec<f32>,
    memory: M::Memory,
    normals: Box<dyn Normals>,
}

impl<M: Method> Denoising for Sample<M> {
    fn timestep(&self) -> Option<f32> {
        self.plan.timesteps.get(self.index).copied()
    }

    fn model_input(&self, row: &mut [f32]) {
        let divisor = self.plan.points.get(self.index).map_or(1.0, M::input_divisor);
        for (row, latent) in row.iter_mut().zip(&self.latents) {
            *row = latent / divisor;
        }
    }

    fn advance(&mut self, prediction: &[f32]) {
        let Some(point) = self.plan.points.get(self.index) else { return };
        self.plan.method.step(point, &mut self.latents, prediction, &mut self.memory, &mut *self.normals);
        self.index += 1;
    }

    fn latents(&self) -> &[f32] {
        &self.latents
    }
}
