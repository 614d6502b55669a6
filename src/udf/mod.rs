//! SQL functions, one file each.
//!
//! | function | gives |
//! |---|---|
//! | `classify(name, image)` | the probability of each class under a classifier of the user's |
//! | `clip_image(image)` | the image's CLIP embedding, L2-normalised |
//! | `clip_text(prompt)` | the text's CLIP embedding, L2-normalised |
//! | `cosine_similarity(a, b)` | the cosine of two embeddings, −1..=1 |
//! | `digest(…)` | an id of what it is given |
//! | `draw(n, …)` | a uniform integer in `0..n`, a pure function of the rest |
//! | `image_info(image)` | width, height, format and digest of an image |
//! | `img2img(image, prompt, image_guidance, seed)` | an image by the pipeline's diffusion model |
//! | `load_image(image)` | an image with its bytes, from the source where it only has its path |
//! | `pixel_difference(a, b)` | the largest difference of two images' values |
//! | `read_image(path)` | an image of the source |

mod classify;
mod clip_image;
mod clip_text;
mod cosine_similarity;
mod digest;
mod draw;
mod function;
mod image_info;
mod img2img;
mod load_image;
mod pixel_difference;
mod read_image;

use std::sync::Arc;

pub use img2img::Meter;

use datafusion::{execution::FunctionRegistry, logical_expr::ScalarUDF};

use crate::{
    error::{Error, Result},
    models::Models,
    source::Source,
};

/// What the functions work with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The models of the pipeline.
    pub models: Arc<Models>,
    /// Where the real images are.
    pub source: Arc<Source>,
}

/// Registers every function. The memo of `img2img` lives as long as the registration: within it, no
/// image is made twice, however often the optimizer has a call evaluated.
///
/// # Errors
/// Where the registry refuses a function.
pub fn register_all(registry: &mut dyn FunctionRegistry, context: &Context, meter: &Arc<Meter>) -> Result<()> {
    let functions: [ScalarUDF; 11] = [
        classify::function(Arc::clone(&context.models), Arc::clone(&context.source)),
        clip_image::function(Arc::clone(&context.models), Arc::clone(&context.source)),
        clip_text::function(Arc::clone(&context.models)),
        cosine_similarity::function(),
        digest::function(),
        draw::function(),
        image_info::function(),
        img2img::function(Arc::clone(&context.models), Arc::clone(&context.source), Arc::clone(meter)),
        load_image::function(Arc::clone(&context.source)),
        pixel_difference::function(),
        read_image::function(Arc::clone(&context.source)),
    ];
    for function in functions {
        let name = function.name().to_owned();
        registry.register_udf(Arc::new(function)).map_err(|error| Error::query(name, error))?;
    }
    Ok(())
}
