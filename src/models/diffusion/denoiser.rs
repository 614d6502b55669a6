//! The UNet, and the inputs of its calls.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{DiffusionError, encoders::Prompt, files::DiffusionFiles, latents::Size, stats::Counters};
use crate::models::onnx::{HeldInputs, Loader, Model, OnnxError, Provider, Share};

const SAMPLE: &str = "sample";
const TIMESTEP: &str = "timestep";
const HIDDEN: &str = "encoder_hidden_states";
const POOLED: &str = "text_embeds";
const TIME_IDS: &str = "time_ids";

/// The UNet of one thread. Several may run in parallel, each on its own batch.
#[derive(Debug)]
pub(super) struct Denoiser {
    pub(super) files: DiffusionFiles,
    unet: Model,
    counters: Arc<Counters>,
    /// When the last call ended, if a sample has been waiting for the next one since.
    idle_since: Option<Instant>,
    /// The size of the last call.
    last_size: Option<Size>,
}

/// The inputs of a call with a fixed number of slots. With classifier-free guidance it has the rows [negative prompt ...,
/// prompt ...], slot by slot, in diffusers' order; otherwise one row for each slot.
///
/// A slot that holds no sample is computed as padding, with what its last sample left.
#[derive(Debug)]
pub(super) struct Call {
    inputs: HeldInputs,
    size: Size,
    slots: usize,
    is_guided: bool,
    /// Values of one row of latents.
    values: usize,
}

impl Denoiser {
    /// Loads the graph with its weights.
    ///
    /// # Errors
    /// Returns an error if the runtime rejects the graph.
    pub(super) fn load(
        loader: &Loader<'_>,
        files: &DiffusionFiles,
        counters: Arc<Counters>,
    ) -> Result<Self, DiffusionError> {
        let is_fast = loader.cuda.fast && loader.provider != Provider::Cpu;
        let graph = if is_fast { files.fast_unet()? } else { files.graph("unet") };
        let unet = loader.sharing(Share::Unet).open_batched(&graph, TIMESTEP)?;
        Ok(Self { unet, files: files.clone(), counters, idle_since: None, last_size: None })
    }

    /// Returns the name of the graph's file.
    pub(super) fn graph_name(&self) -> String {
        self.unet.file_name()
    }

    /// Prepares calls of `slots` samples. With a `negative` prompt they have classifier-free guidance.
    ///
    /// # Errors
    /// Returns an error if the device has no memory for the inputs.
    pub(super) fn prepare(&self, size: Size, slots: usize, negative: Option<&Prompt>) -> Result<Call, OnnxError> {
        let (text, channels) = (&self.files.text, self.files.latent_channels);
        let (height, width) = (size.height as usize, size.width as usize);
        let rows = if negative.is_some() { 2 * slots } else { slots };
        let mut shapes = vec![
            (SAMPLE, vec![channels, height, width]),
            (TIMESTEP, Vec::new()),
            (HIDDEN, vec![text.length, text.width()]),
        ];
        if let Some(width) = text.pooled {
            shapes.extend([(POOLED, vec![width]), (TIME_IDS, vec![self.files.time_ids.count()])]);
        }
        let values = channels * size.area();
        let inputs = self.unet.hold(rows, &shapes, "out_sample", rows * values)?;
        let mut call = Call { inputs, size, slots, is_guided: negative.is_some(), values };
        for slot in 0..slots {
            for (row, is_conditional) in call.rows(slot) {
                let ids = self.files.time_ids.of(size, self.files.sides.pixels_per_latent, is_conditional);
                call.inputs.write(TIME_IDS, row, &ids.into_iter().collect::<Vec<f32>>());
            }
            if let Some(negative) = negative {
                call.write_prompt(slot, negative);
            }
        }
        Ok(call)
    }

    /// Runs the UNet for `samples` samples. Returns a prediction for each row.
    ///
    /// # Errors
    /// Returns the errors of [`Model::run_held`]. The call can be repeated.
    pub(super) fn predict(&mut self, call: &mut Call, samples: usize) -> Result<Vec<f32>, OnnxError> {
        let began = Instant::now();
        if let Some(idle_since) = self.idle_since.take() {
            self.counters.add_gap(began - idle_since);
        }
        let predicted = self.counters.denoising.during(|| self.unet.run_held(&mut call.inputs))?;
        let ended = Instant::now();
        let per_slot = if call.is_guided { 2 } else { 1 };
        let flop = self.files.unet.flop(call.size).unwrap_or(0.0);
        self.counters.add_call(ended - began, call.slots * per_slot, samples * per_slot, flop);
        if self.last_size.replace(call.size).is_some_and(|last| last != call.size) {
            self.counters.size_changes.fetch_add(1, Ordering::Relaxed);
        }
        self.idle_since = Some(ended);
        Ok(predicted)
    }

    /// Notes that no sample waits for the next call.
    pub(super) fn rest(&mut self) {
        self.idle_since = None;
    }

    /// Runs one call on zeros. It is not counted, since it generates no image.
    ///
    /// # Errors
    /// Returns the errors of [`Model::run_held`].
    pub(super) fn try_call(&mut self, call: &mut Call) -> Result<(), OnnxError> {
        self.unet.run_held(&mut call.inputs).map(drop)
    }
}

impl Call {
    /// Writes the prompt of a slot.
    pub(super) fn set_prompt(&mut self, slot: usize, prompt: &Prompt) {
        let row = if self.is_guided { self.slots + slot } else { slot };
        self.write_prompt(row, prompt);
    }

    /// Writes the latents of a slot, and the timestep at which they are.
    pub(super) fn set_latents(&mut self, slot: usize, timestep: f32, latents: &[f32]) {
        for (row, _) in self.rows(slot) {
            self.inputs.write(SAMPLE, row, latents);
            self.inputs.write(TIMESTEP, row, &[timestep]);
        }
    }

    /// Returns the predictions of a slot: with the prompt and, with classifier-free guidance, without it.
    pub(super) fn predictions<'a>(&self, all: &'a [f32], slot: usize) -> (&'a [f32], Option<&'a [f32]>) {
        let of = |row: usize| all.get(row * self.values..(row + 1) * self.values).unwrap_or_default();
        if self.is_guided { (of(self.slots + slot), Some(of(slot))) } else { (of(slot), None) }
    }

    /// Returns the number of values in a row of latents.
    pub(super) fn values(&self) -> usize {
        self.values
    }

    fn write_prompt(&mut self, row: usize, prompt: &Prompt) {
        self.inputs.write(HIDDEN, row, &prompt.hidden);
        self.inputs.write(POOLED, row, &prompt.pooled);
    }

    /// Returns the rows of a slot, each with whether it has the sample's own prompt.
    fn rows(&self, slot: usize) -> impl Iterator<Item = (usize, bool)> + use<> {
        let conditional = if self.is_guided { self.slots + slot } else { slot };
        self.is_guided.then_some((slot, false)).into_iter().chain([(conditional, true)])
    }
}
