//! The CLIP model. Texts and images each run with a fixed batch shape.

use super::{ClipError, files::ClipFiles};
use crate::models::{
    onnx::{Element, Loader, Model, OnnxError, Tensor},
    tokenizer::Tokenizer,
};

/// Rows of one call. Short batches are padded, since a runtime may round a row differently in a batch of another size.
pub(super) const ROWS: usize = 8;

/// A loaded CLIP model. Embeddings are unit vectors and batch-invariant.
#[derive(Debug)]
pub(crate) struct Clip {
    model: Model,
    tokenizer: Tokenizer,
    files: ClipFiles,
}

impl Clip {
    /// Loads the graph with its weights.
    ///
    /// # Errors
    /// Returns an error if the runtime rejects the graph or the tokenizer cannot be read.
    pub(crate) fn load(loader: &Loader<'_>, files: &ClipFiles) -> Result<Self, ClipError> {
        Ok(Self {
            model: loader.open(&files.graph())?,
            tokenizer: Tokenizer::from_dir(files.dir())?,
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
            let images = if self.files.paired { ROWS } else { 1 };
            let pixels = Tensor::zeros(Element::F32, self.pixel_shape(images));
            let rows = self.run(ids, mask, ROWS, pixels, "text_embeds")?;
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
            let texts = if self.files.paired { ROWS } else { 1 };
            let ids = vec![0; texts * self.tokenizer.length()];
            let mask = vec![1; ids.len()];
            let rows = self.run(ids, mask, texts, Tensor::f32(shape, pixels), "image_embeds")?;
            embeddings.extend(rows.into_iter().take(tensors.len()));
        }
        Ok(embeddings)
    }

    fn pixel_shape(&self, images: usize) -> [usize; 4] {
        let (width, height) = self.files.image;
        [images, 3, height as usize, width as usize]
    }

    fn run(
        &mut self,
        ids: Vec<i64>,
        mask: Vec<i64>,
        texts: usize,
        pixels: Tensor,
        output: &str,
    ) -> Result<Vec<Vec<f32>>, OnnxError> {
        let shape = [texts, self.tokenizer.length()];
        let mut inputs = vec![("input_ids", Tensor::i64(shape, ids)), ("pixel_values", pixels)];
        if self.files.masked {
            inputs.push(("attention_mask", Tensor::i64(shape, mask)));
        }
        let taken = self.model.run(inputs)?.take(output);
        let widths = taken.and_then(|(shape, values)| match shape.as_slice() {
            [rows, width] if *rows == ROWS && *width > 0 => Some((*width, values)),
            _ => None,
        });
        let (width, values) = widths.ok_or_else(|| OnnxError::Run {
            path: self.files.graph(),
            reason: format!("output `{output}` does not have {ROWS} rows of floats"),
        })?;
        Ok(values.chunks_exact(width).map(normalize).collect())
    }
}

/// Scales a vector to length 1. Exports normalize too; this makes the length exact to f32 for every export.
#[expect(clippy::cast_possible_truncation, reason = "rounded to f32 after a division in f64")]
fn normalize(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|value| (f64::from(*value) / length) as f32).collect()
}
