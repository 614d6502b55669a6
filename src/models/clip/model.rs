//! The CLIP model. Texts and images each run with a fixed batch shape.

use super::{
    ClipError,
    files::{ClipFiles, Tower},
};
use crate::models::{
    onnx::{Element, Loader, Model, OnnxError, Tensor},
    tokenizer::Tokenizer,
};

/// Rows of one call. Short batches are padded, since a runtime may round a row differently in a batch of another size.
pub(super) const ROWS: usize = 8;

/// A loaded CLIP model. Embeddings are batch-invariant, and unit vectors unless the model fails.
#[derive(Debug)]
pub(crate) struct Clip {
    text: Model,
    /// The image tower, if it is a separate graph.
    vision: Option<Model>,
    tokenizer: Tokenizer,
    files: ClipFiles,
}

impl Clip {
    /// Loads the graphs with their weights.
    ///
    /// # Errors
    /// Returns an error if the runtime rejects a graph or the tokenizer cannot be read.
    pub(crate) fn load(loader: &Loader<'_>, files: &ClipFiles) -> Result<Self, ClipError> {
        let vision = (files.vision.graph != files.text.graph).then(|| loader.open(&files.vision.graph));
        Ok(Self {
            text: loader.open(&files.text.graph)?,
            vision: vision.transpose()?,
            tokenizer: files.tokenizer()?,
            files: files.clone(),
        })
    }

    /// Embeds texts, in order.
    ///
    /// # Errors
    /// Returns an error if the graph fails or the tokenizer rejects a text.
    pub(crate) fn embed_texts(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ClipError> {
        let mut embeddings = Vec::with_capacity(texts.len());
        for texts in texts.chunks(ROWS) {
            let mut ids = Vec::with_capacity(ROWS * self.tokenizer.length());
            let mut mask = ids.clone();
            for text in texts.iter().copied().chain(std::iter::repeat("")).take(ROWS) {
                let tokens = self.tokenizer.encode(text)?;
                ids.extend(tokens.ids);
                mask.extend(tokens.attention_mask);
            }
            let images = if self.files.text.paired { ROWS } else { 1 };
            let pixels = Tensor::zeros(Element::F32, self.pixel_shape(images));
            let inputs = self.inputs(ids, mask, pixels);
            let rows = run(&mut self.text, &self.files.text, inputs)?;
            embeddings.extend(rows.into_iter().take(texts.len()));
        }
        Ok(embeddings)
    }

    /// Embeds preprocessed images, in order.
    ///
    /// # Errors
    /// Returns the errors of [`Model::run`].
    pub(super) fn embed_tensors<T: AsRef<[f32]>>(&mut self, tensors: &[T]) -> Result<Vec<Vec<f32>>, OnnxError> {
        let mut embeddings = Vec::with_capacity(tensors.len());
        for tensors in tensors.chunks(ROWS) {
            let shape = self.pixel_shape(ROWS);
            let mut pixels = Vec::with_capacity(shape.iter().product());
            for tensor in tensors {
                pixels.extend_from_slice(tensor.as_ref());
            }
            pixels.resize(shape.iter().product(), 0.0);
            let texts = if self.files.vision.paired { ROWS } else { 1 };
            let ids = vec![0; texts * self.tokenizer.length()];
            let mask = vec![1; ids.len()];
            let inputs = self.inputs(ids, mask, Tensor::f32(shape, pixels));
            let rows = run(self.vision.as_mut().unwrap_or(&mut self.text), &self.files.vision, inputs)?;
            embeddings.extend(rows.into_iter().take(tensors.len()));
        }
        Ok(embeddings)
    }

    fn pixel_shape(&self, images: usize) -> [usize; 4] {
        let (width, height) = self.files.image;
        [images, 3, height as usize, width as usize]
    }

    /// Returns every input that a graph may have.
    fn inputs(&self, ids: Vec<i64>, mask: Vec<i64>, pixels: Tensor) -> Vec<(&'static str, Tensor)> {
        let shape = [ids.len() / self.tokenizer.length().max(1), self.tokenizer.length()];
        vec![
            ("input_ids", Tensor::i64(shape, ids)),
            ("attention_mask", Tensor::i64(shape, mask)),
            ("pixel_values", pixels),
        ]
    }
}

/// Runs a tower on [`ROWS`] rows, with those of the inputs that its graph has.
fn run(model: &mut Model, tower: &Tower, mut inputs: Vec<(&str, Tensor)>) -> Result<Vec<Vec<f32>>, OnnxError> {
    inputs.retain(|(name, _)| tower.inputs.contains(name));
    let taken = model.run(inputs, &[&tower.output])?.take(&tower.output);
    let widths = taken.and_then(|(shape, values)| match shape.as_slice() {
        [rows, width] if *rows == ROWS && *width > 0 => Some((*width, values)),
        _ => None,
    });
    let (width, values) = widths.ok_or_else(|| OnnxError::Run {
        path: tower.graph.clone(),
        reason: format!("output `{}` does not have {ROWS} rows of floats", tower.output),
    })?;
    Ok(values.chunks_exact(width).map(normalize).collect())
}

/// Scales a vector to length 1. Exports normalize too; this makes the length exact to f32 for every export.
#[expect(clippy::cast_possible_truncation, reason = "rounded to f32 after a division in f64")]
fn normalize(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|value| (f64::from(*value) / length) as f32).collect()
}
