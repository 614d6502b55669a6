//! The running batch: a fixed number of slots for samples of one size.
//!
//! Samples enter and leave at any call, each at its own position in the schedule.

use std::collections::VecDeque;

use super::{
    denoiser::{Call, Denoiser},
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
    pub(super) size: Size,
    slots: Vec<Option<Sample<T>>>,
    /// Samples without a slot: the batch was made smaller while they were in it.
    waiting: VecDeque<Sample<T>>,
    call: Call,
    scale: Option<f32>,
}

impl<T> Batch<T> {
    /// Creates a batch of empty slots.
    ///
    /// # Errors
    /// Returns the errors of [`Denoiser::prepare`].
    pub(super) fn new(
        denoiser: &Denoiser,
        size: Size,
        slots: usize,
        guidance: Option<&Guidance>,
    ) -> Result<Self, OnnxError> {
        let slots = slots.max(1);
        Ok(Self {
            size,
            slots: (0..slots).map(|_| None).collect(),
            waiting: VecDeque::new(),
            call: denoiser.prepare(size, slots, guidance.map(|guidance| &guidance.negative))?,
            scale: guidance.map(|guidance| guidance.scale),
        })
    }

    /// Returns the number of slots.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Returns the number of slots that no sample needs.
    pub(super) fn free(&self) -> usize {
        let empty = self.slots.iter().filter(|slot| slot.is_none()).count();
        empty.saturating_sub(self.waiting.len())
    }

    /// Whether it holds no sample.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none) && self.waiting.is_empty()
    }

    /// Puts a sample into the first empty slot, or lets it wait for one.
    pub(super) fn admit(&mut self, sample: Sample<T>) {
        match self.slots.iter_mut().enumerate().find(|(_, slot)| slot.is_none()) {
            Some((number, slot)) => {
                self.call.set_prompt(number, &sample.prompt);
                *slot = Some(sample);
            }
            None => self.waiting.push_back(sample),
        }
    }

    /// Puts the samples of another batch into this one, in their order.
    pub(super) fn take_over(&mut self, other: Self) {
        for sample in other.slots.into_iter().flatten().chain(other.waiting) {
            self.admit(sample);
        }
    }

    /// Returns the latents in a slot.
    #[cfg(test)]
    pub(super) fn latents(&self, slot: usize) -> Option<&[f32]> {
        self.slots.get(slot)?.as_ref().map(|sample| sample.denoising.latents())
    }

    /// Drops samples that are not wanted any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|sample| !wanted(&sample.ticket)) {
                *slot = None;
            }
        }
        self.waiting.retain(|sample| wanted(&sample.ticket));
    }

    /// Moves every sample forward by one timestep, and returns those that are finished; their slots are empty then.
    ///
    /// # Errors
    /// Returns an error if the UNet fails. No sample has moved then.
    pub(super) fn step(&mut self, denoiser: &mut Denoiser) -> Result<Vec<Sample<T>>, OnnxError> {
        while self.slots.iter().any(Option::is_none)
            && let Some(sample) = self.waiting.pop_front()
        {
            self.admit(sample);
        }
        let (mut samples, mut latents) = (0, vec![0.0; self.call.values()]);
        for (number, slot) in self.slots.iter().enumerate() {
            if let Some(sample) = slot
                && let Some(timestep) = sample.denoising.timestep()
            {
                sample.denoising.model_input(&mut latents);
                self.call.set_latents(number, timestep, &latents);
                samples += 1;
            }
        }
        if samples == 0 {
            return Ok(Vec::new());
        }
        let predicted = denoiser.predict(&mut self.call, samples)?;
        let mut done = Vec::new();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(sample) = slot else { continue };
            match (self.call.predictions(&predicted, number), self.scale) {
                ((with, Some(without)), Some(scale)) => sample.denoising.advance(&guide(scale, without, with)),
                ((with, _), _) => sample.denoising.advance(with),
            }
            if sample.denoising.timestep().is_none() {
                done.extend(slot.take());
            }
        }
        Ok(done)
    }
}
