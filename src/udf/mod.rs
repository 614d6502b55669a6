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
//! | `timesteps_run(timesteps, image_guidance)` | the timesteps that a level of image guidance runs |

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
mod timesteps_run;

use std::sync::Arc;

pub use img2img::Meter;

use datafusion::execution::FunctionRegistry;

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

/// Registers every function. The cache of `img2img` lives as long as the registration: within it no image is generated
/// twice, however often the optimizer has a call evaluated. Without a `context`, functions that need a model or the source
/// can be planned, and fail when they are called.
///
/// # Errors
/// Returns an error if the registry refuses a function.
pub(crate) fn register_all(
    registry: &mut dyn FunctionRegistry,
    context: Option<&Context>,
    meter: &Arc<Meter>,
) -> Result<()> {
    let independent = [
        cosine_similarity::function(),
        digest::function(),
        draw::function(),
        image_info::function(),
        pixel_difference::function(),
        timesteps_run::function(),
    ];
    let dependent = match context {
        Some(Context { models, source }) => [
            classify::function(Arc::clone(models), Arc::clone(source)),
            clip_image::function(Arc::clone(models), Arc::clone(source)),
            clip_text::function(Arc::clone(models)),
            img2img::function(Arc::clone(models), Arc::clone(source), Arc::clone(meter)),
            load_image::function(Arc::clone(source)),
            read_image::function(Arc::clone(source)),
        ],
        None => {
            [classify::shape, clip_image::shape, clip_text::shape, img2img::shape, load_image::shape, read_image::shape]
                .map(|shape| function::unavailable(shape(String::new())))
        }
    };
    for function in independent.into_iter().chain(dependent) {
        let name = function.name().to_owned();
        registry.register_udf(Arc::new(function)).map_err(|error| Error::query(name, error))?;
    }
    Ok(())
}
