//! Measures the models of a directory on a device: `models bench`. Weights and images do not matter for speed, so neither
//! prompts nor images are encoded.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    DiffusionError,
    batch::{Batch, Guidance, Sample},
    decoder::Decoder,
    denoiser::Denoiser,
    encoders::Prompt,
    files::DiffusionFiles,
    latents::Size,
    noise::{NoiseGenerator, Purpose},
    schedulers::Scheduler,
    stats::{Counters, Stats},
};
use crate::models::onnx::{CudaOptions, Loader, OnnxError, Provider, Runtime, device_memory_used, product_tflops};

/// Timesteps of a sample; then it starts anew.
const TIMESTEPS: u32 = 50;
/// Calls that are measured at least, besides the first.
const MIN_CALLS: usize = 3;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    /// Rows of a call of the UNet. Even numbers have classifier-free guidance.
    pub(crate) rows: Vec<usize>,
    /// Widths and heights of images in pixels.
    pub(crate) sizes: Vec<(u32, u32)>,
    /// How long each combination is measured at least.
    pub(crate) time: Duration,
    /// Cores that a model may use on the CPU.
    pub(crate) threads: usize,
}

/// One row of the result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// `product`, `unet` or `vae_decoder`. A product is a multiplication of matrices: what the device can do at best.
    pub(crate) model: &'static str,
    /// The name of the graph's file.
    pub(crate) variant: String,
    pub(crate) rows: usize,
    /// The sides of the images in pixels; of a product, those of its matrices.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The first call, which also plans and allocates.
    pub(crate) first_call_ms: Option<f64>,
    /// The mean of later calls.
    pub(crate) ms_per_call: Option<f64>,
    /// Trillions of floating-point operations per second; `None` if the model does not say what an evaluation costs.
    pub(crate) tflops: Option<f64>,
    /// That as a share of a product's, 0 to 1.
    pub(crate) share_of_peak: Option<f64>,
    /// The most memory of the device so far, in MiB; on the CPU that of the process.
    pub(crate) peak_mib: Option<u64>,
    /// The mean time between two calls in milliseconds.
    pub(crate) host_gap_ms: Option<f64>,
    /// Why it could not be measured.
    pub(crate) error: Option<String>,
}

/// The models that are measured.
struct Models {
    files: DiffusionFiles,
    denoiser: Denoiser,
    decoder: Decoder,
    scheduler: Box<dyn Scheduler>,
    counters: Arc<Counters>,
    provider: Provider,
    peak: Option<f64>,
}

impl Bench {
    /// Loads the UNet and the VAE's decoder on `provider`, and measures all combinations of rows and sizes. Each result is
    /// reported as it comes. A combination that fails is a result with an error.
    ///
    /// # Errors
    /// Returns an error if a graph cannot be loaded.
    pub(crate) fn run(
        &self,
        runtime: &Runtime,
        provider: Provider,
        cuda: CudaOptions,
        files: &DiffusionFiles,
        mut report: impl FnMut(Measured),
    ) -> Result<(), DiffusionError> {
        let counters = Arc::new(Counters::default());
        let loader = Loader { runtime, provider, cuda, threads: self.threads, busy: &counters.busy };
        let product = product_tflops(&loader, files.unet.is_half());
        let peak = product.as_ref().ok().map(|product| product.tflops);
        report(match product {
            Ok(product) => Measured {
                width: product.side,
                height: product.side,
                ms_per_call: Some(product.ms),
                tflops: peak,
                share_of_peak: Some(1.0),
                ..Measured::of("product", "", 1)
            },
            Err(error) => Measured { error: Some(error.to_string()), ..Measured::of("product", "", 1) },
        });
        let denoiser = Denoiser::load(&loader, files, Arc::clone(&counters))?;
        let decoder = Decoder::load(&loader, files, Arc::clone(&counters))?;
        let scheduler = files.scheduler(None, TIMESTEPS)?;
        let mut models = Models { files: files.clone(), denoiser, decoder, scheduler, counters, provider, peak };
        for &(width, height) in &self.sizes {
            for &rows in &self.rows {
                report(models.unet(rows, width, height, self.time));
            }
            report(models.vae_decoder(width, height, self.time));
        }
        Ok(())
    }
}

impl Measured {
    fn of(model: &'static str, variant: &str, rows: usize) -> Self {
        Self {
            model,
            variant: variant.to_owned(),
            rows,
            width: 0,
            height: 0,
            first_call_ms: None,
            ms_per_call: None,
            tflops: None,
            share_of_peak: None,
            peak_mib: None,
            host_gap_ms: None,
            error: None,
        }
    }
}

impl Models {
    /// Returns the sides that the models take for requested ones.
    fn taken(&self, width: u32, height: u32) -> (u32, u32) {
        (self.files.sides().of(width), self.files.sides().of(height))
    }

    fn unet(&mut self, rows: usize, width: u32, height: u32, time: Duration) -> Measured {
        let (width, height) = self.taken(width, height);
        let measured = Measured { width, height, ..Measured::of("unet", &self.denoiser.graph_name(), rows) };
        match self.denoise(rows, self.files.latents_of(width, height), time) {
            Err(error) => Measured { error: Some(error.to_string()), ..measured },
            Ok((first, stats)) => {
                let tflops = stats.tflops();
                Measured {
                    first_call_ms: Some(milliseconds(first)),
                    ms_per_call: Some(milliseconds(stats.calling) / stats.unet_calls as f64),
                    tflops,
                    share_of_peak: tflops.zip(self.peak).map(|(tflops, peak)| tflops / peak),
                    peak_mib: device_memory_used(self.provider).map(|bytes| bytes >> 20),
                    host_gap_ms: stats.gap().map(|(gap, _)| gap),
                    ..measured
                }
            }
        }
    }

    /// Moves a full batch forward for a while. Returns the time of the first call, and what was done after it.
    fn denoise(&mut self, rows: usize, size: Size, time: Duration) -> Result<(Duration, Stats), OnnxError> {
        let is_guided = rows.is_multiple_of(2);
        let slots = if is_guided { rows / 2 } else { rows };
        let prompt = self.prompt();
        let guidance = is_guided.then(|| Guidance { scale: 7.5, negative: prompt.clone() });
        let mut batch = Batch::new(&self.denoiser, size, slots, guidance.as_ref())?;
        self.denoiser.rest();
        for slot in 0..slots {
            batch.admit(self.sample(slot, size, &prompt));
        }
        let began = Instant::now();
        batch.step(&mut self.denoiser)?;
        let (first, before, began) = (began.elapsed(), self.counters.snapshot(), Instant::now());
        let mut calls = 0;
        while calls < MIN_CALLS || began.elapsed() < time {
            for sample in batch.step(&mut self.denoiser)? {
                batch.admit(self.sample(sample.ticket, size, &prompt));
            }
            calls += 1;
        }
        Ok((first, self.counters.snapshot().since(&before)))
    }

    fn vae_decoder(&mut self, width: u32, height: u32, time: Duration) -> Measured {
        let (width, height) = self.taken(width, height);
        let measured = Measured { width, height, ..Measured::of("vae_decoder", &self.decoder.graph_name(), 1) };
        match self.decode(self.files.latents_of(width, height), time) {
            Err(error) => Measured { error: Some(error.to_string()), ..measured },
            Ok((first, each)) => Measured {
                first_call_ms: Some(milliseconds(first)),
                ms_per_call: Some(milliseconds(each)),
                peak_mib: device_memory_used(self.provider).map(|bytes| bytes >> 20),
                ..measured
            },
        }
    }

    /// Returns the time of the first call, and the mean of later ones.
    fn decode(&mut self, size: Size, time: Duration) -> Result<(Duration, Duration), OnnxError> {
        let latents = vec![0.1; self.files.latent_channels * size.area()];
        let began = Instant::now();
        self.decoder.decode(&latents, size)?;
        let (first, began, mut calls) = (began.elapsed(), Instant::now(), 0);
        while calls < MIN_CALLS as u32 || began.elapsed() < time {
            self.decoder.decode(&latents, size)?;
            calls += 1;
        }
        Ok((first, began.elapsed() / calls))
    }

    fn prompt(&self) -> Prompt {
        let text = &self.files.text;
        let values = |count: usize| vec![0.1; count].into();
        Prompt { hidden: values(text.length * text.width()), pooled: values(text.pooled.unwrap_or_default()) }
    }

    fn sample(&self, slot: usize, size: Size, prompt: &Prompt) -> Sample<usize> {
        let mut normals = NoiseGenerator::Counter.start(slot as i64);
        let noise = normals.draw(Purpose::Noise, self.files.latent_channels * size.area());
        let denoising = self.scheduler.start(TIMESTEPS as usize, None, &noise, normals);
        Sample { denoising, prompt: prompt.clone(), ticket: slot }
    }
}

fn milliseconds(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}
