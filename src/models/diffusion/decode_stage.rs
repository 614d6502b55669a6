//! The decode stage: threads that decode finished samples while the workers of their device go on.

use std::sync::{
    Arc, Mutex, PoisonError,
    mpsc::{Receiver, Sender, channel},
};

use super::{
    EngineError,
    decoder::{Decoder, Planes},
    latents::Size,
    request::Response,
};
use crate::{
    imaging::{ImageError, check_colors, encode_png, from_chw, spawn},
    models::onnx::{OnnxError, Reply},
};

/// A sample after its last timestep.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) latents: Vec<f32>,
    pub(super) size: Size,
    pub(super) reply: Reply<Response>,
}

/// Work of the thread.
#[derive(Debug)]
pub(super) enum Decoding {
    Image(Finished),
    /// Decodes zeros of this size, to see whether the memory of the device suffices, and replies.
    Trial(Size, Sender<Result<(), OnnxError>>),
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct DecodeStage {
    decoder: Decoder,
    work: Arc<Mutex<Receiver<Decoding>>>,
}

impl DecodeStage {
    /// Returns a stage for each decoder, and where the workers send their samples. How many wait there is bounded by the
    /// engine's queue.
    pub(super) fn of(decoders: Vec<Decoder>) -> (Vec<Self>, Sender<Decoding>) {
        let (sender, work) = channel();
        let work = Arc::new(Mutex::new(work));
        let stage = |decoder| Self { decoder, work: Arc::clone(&work) };
        (decoders.into_iter().map(stage).collect(), sender)
    }

    /// Decodes samples until all workers have ended. Rayon encodes the PNGs.
    ///
    /// # Errors
    /// Returns an error if the VAE fails.
    pub(super) fn run(&mut self) -> Result<(), OnnxError> {
        while let Some(work) = self.next() {
            match work {
                Decoding::Image(Finished { reply, .. }) if !reply.is_wanted() => {}
                Decoding::Image(Finished { latents, size, reply }) => {
                    let planes = self.decoder.decode(&latents, size)?;
                    spawn(move || to_png(&planes), move |png| reply.send(png.map_err(EngineError::Image)));
                }
                // The worker may have ended.
                Decoding::Trial(size, reply) => drop(reply.send(self.decoder.try_size(size))),
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<Decoding> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }
}

fn to_png(planes: &Planes) -> Result<Vec<u8>, ImageError> {
    let image = from_chw(&planes.values, planes.width, planes.height)?;
    check_colors(&image)?;
    encode_png(&image)
}
