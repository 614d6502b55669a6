//! The decode stage: a thread that decodes finished samples while the workers of its device go on.

use std::sync::mpsc::{Receiver, Sender, channel};

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

/// The state of the thread.
#[derive(Debug)]
pub(super) struct DecodeStage {
    decoder: Decoder,
    finished: Receiver<Finished>,
}

impl DecodeStage {
    /// Returns the stage, and where its workers send their samples. How many wait there is bounded by the engine's queue.
    pub(super) fn new(decoder: Decoder) -> (Self, Sender<Finished>) {
        let (sender, finished) = channel();
        (Self { decoder, finished }, sender)
    }

    /// Decodes samples until all workers have ended. Rayon encodes the PNGs.
    ///
    /// # Errors
    /// Returns an error if the VAE fails.
    pub(super) fn run(&mut self) -> Result<(), OnnxError> {
        while let Ok(Finished { latents, size, reply }) = self.finished.recv() {
            if reply.is_wanted() {
                let planes = self.decoder.decode(&latents, size)?;
                spawn(move || to_png(&planes), move |png| reply.send(png.map_err(EngineError::Image)));
            }
        }
        Ok(())
    }
}

fn to_png(planes: &Planes) -> Result<Vec<u8>, ImageError> {
    let image = from_chw(&planes.values, planes.width, planes.height)?;
    check_colors(&image)?;
    encode_png(&image)
}
