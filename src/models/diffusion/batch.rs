//! The running batch: a fixed number of slots for samples of one size.
//!
//! Samples enter and leave at any call, each at its own position in the schedule. With classifier-free guidance a call
//! has the rows [negative prompt ..., prompt ...], slot by slot, in diffusers' order.

use super::{
    denoiser::{Denoiser, Row},
    encoders::Prompt,
    img2img::guide,
    latents::Size,
    schedulers::Denoising,
};
use crate::models::onnx::OnnxError;

/// A sample in a slot. The ticket identifies it to its owner.
#[derive(Debug)]
pub(super) struct Sample<T> {
    pub(super) denoising: Box<dyn Denoising>,
    pub(super) prompt: Prompt,
    pub(super) ticket: T,
}

/// Classifier-free guidance, which all samples of an engine share.
#[derive(Debug, Clone)]
pub(super) struct Guidance {
    /// The factor, above 1.
    pub(super) scale: f32,
    /// The encoded negative prompt.
    pub(super) negative: Prompt,
}

/// A batch for samples of one size.
#[derive(Debug)]
pub(super) struct Batch<T> {
    size: Size,
    slots: Vec<Option<Sample<T>>>,
}

impl<T> Batch<T> {
    /// Creates a batch of empty slots.
    pub(super) fn new(size: Size, slots: usize) -> Self {
        Self { size, slots: (0..slots.max(1)).map(|_| None).collect() }
    }

    /// Returns the number of empty slots.
    pub(super) fn free(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_none()).count()
    }

    /// Whether no slot holds a sample.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Puts a sample into the first empty slot, or returns it if the batch is full.
    pub(super) fn admit(&mut self, sample: Sample<T>) -> Result<(), Sample<T>> {
        match self.slots.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => {
                *slot = Some(sample);
                Ok(())
            }
            None => Err(sample),
        }
    }

    /// Returns the latents in a slot.
    #[cfg(test)]
    pub(super) fn latents(&self, slot: usize) -> Option<&[f32]> {
        self.slots.get(slot)?.as_ref().map(|sample| sample.denoising.latents())
    }

    /// Empties the slots of samples that are no longer wanted.
    pub(super) fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|sample| !wanted(&sample.ticket)) {
                *slot = None;
            }
        }
    }

    /// Moves every sample forward by one timestep, in one UNet call. Removes and returns those that are finished.
    ///
    /// # Errors
    /// Returns an error if the UNet fails.
    pub(super) fn step(
        &mut self,
        denoiser: &mut Denoiser,
        guidance: Option<&Guidance>,
    ) -> Result<Vec<Sample<T>>, OnnxError> {
        let values = denoiser.files.latent_channels * self.size.area();
        let mut latents = vec![0.0; self.slots.len() * values];
        for (slot, row) in self.slots.iter().zip(latents.chunks_exact_mut(values)) {
            if let Some(sample) = slot {
                sample.denoising.model_input(row);
            }
        }
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let predictions = self.predict(denoiser, guidance, latents)?;
        let mut done = Vec::new();
        for (slot, prediction) in self.slots.iter_mut().zip(predictions) {
            let Some(sample) = slot else { continue };
            sample.denoising.advance(&prediction);
            if sample.denoising.timestep().is_none() {
                done.extend(slot.take());
            }
        }
        Ok(done)
    }

    /// Returns one prediction for each slot.
    fn predict(
        &self,
        denoiser: &mut Denoiser,
        guidance: Option<&Guidance>,
        mut latents: Vec<f32>,
    ) -> Result<Vec<Vec<f32>>, OnnxError> {
        let values = latents.len() / self.slots.len();
        let conditional = self.slots.iter().map(|slot| row(slot.as_ref(), None));
        let Some(guidance) = guidance else {
            let rows: Vec<_> = conditional.collect();
            let predicted = denoiser.predict(self.size, latents, &rows)?;
            return Ok(predicted.chunks_exact(values).map(<[f32]>::to_vec).collect());
        };
        let unconditional = self.slots.iter().map(|slot| row(slot.as_ref(), Some(&guidance.negative)));
        let rows: Vec<_> = unconditional.chain(conditional).collect();
        latents.extend_from_within(..);
        let predicted = denoiser.predict(self.size, latents, &rows)?;
        let (without, with) = predicted.split_at(predicted.len() / 2);
        let pairs = without.chunks_exact(values).zip(with.chunks_exact(values));
        Ok(pairs.map(|(without, with)| guide(guidance.scale, without, with)).collect())
    }
}

/// Returns the UNet's row for a slot, with the sample's prompt or the negative one.
fn row<'a, T>(slot: Option<&'a Sample<T>>, negative: Option<&'a Prompt>) -> Option<Row<'a>> {
    let sample = slot?;
    let timestep = sample.denoising.timestep()?;
    Some(Row { timestep, prompt: negative.unwrap_or(&sample.prompt), conditional: negative.is_none() })
}
