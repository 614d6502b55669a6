//! `img2img(image, prompt, image_guidance, seed)`: an image that the pipeline's diffusion model generates from another.
//!
//! `image_guidance` is a percentage: 100 returns the image unchanged, 0 keeps nothing of it. `seed` selects the noise. A
//! row that fails has its reason in `error`. The rows of all queries go to the one engine of the device. DataFusion may
//! evaluate a call twice; a cache prevents an image from being generated twice while the function is registered.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef},
    datatypes::DataType,
};
use async_trait::async_trait;
use datafusion::{error::Result, logical_expr::ScalarUDF};
use futures::future::try_join_all;
use tokio::sync::OnceCell;

use super::{
    function::{Arguments, AsyncKernel, Shape, argument, awaiting, fallible, image_column, integers, strings},
    load_image::load,
};
use crate::{
    identity::Digest,
    models::{
        self, Models,
        diffusion::{EngineError, Request},
    },
    schema,
    source::Source,
};

const NAME: &str = "img2img";

/// An encoded image, or why it cannot be generated.
type Generated = Result<Arc<[u8]>, String>;

struct Img2Img {
    models: Arc<Models>,
    source: Arc<Source>,
    meter: Arc<Meter>,
    cache: Mutex<HashMap<[u8; 32], Arc<OnceCell<Generated>>>>,
}

/// Counts the work of the calls of one registration.
#[derive(Debug, Default)]
pub(crate) struct Meter(AtomicU64);

impl Meter {
    /// Returns the evaluations of the UNet so far, without padding.
    pub(crate) fn unet_evaluations(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn function(models: Arc<Models>, source: Arc<Source>, meter: Arc<Meter>) -> ScalarUDF {
    let shape = shape(models.generator_digest().to_owned());
    awaiting(shape, Img2Img { models, source, meter, cache: Mutex::default() })
}

/// What the planner sees of the function.
pub(super) fn shape(fingerprint: String) -> Shape {
    Shape {
        name: NAME,
        arguments: Arguments::Exactly(4),
        returns: DataType::Struct(fallible(&schema::image_fields())),
        fingerprint,
    }
}

#[async_trait]
impl AsyncKernel for Img2Img {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let images = load(&self.source, NAME, argument(NAME, arguments, 0)?).await?;
        let prompts = strings(NAME, argument(NAME, arguments, 1)?)?;
        let guidances = integers(NAME, argument(NAME, arguments, 2)?)?;
        let seeds = integers(NAME, argument(NAME, arguments, 3)?)?;
        // Rows of one source share their bytes, which the engine recognizes by address and by content.
        let mut sources: HashMap<&[u8], Arc<[u8]>> = HashMap::new();
        let mut requests = Vec::with_capacity(rows);
        for row in 0..rows {
            let image = match images.row(row) {
                Ok(image) => image,
                Err(reason) => {
                    requests.push(Err(reason));
                    continue;
                }
            };
            let null = [prompts.is_null(row), guidances.is_null(row), seeds.is_null(row)];
            let Some(image) = image.filter(|_| !null.contains(&true)) else {
                requests.push(Err("an argument is NULL".to_owned()));
                continue;
            };
            requests.push(match u8::try_from(guidances.value(row)) {
                Ok(image_guidance) if image_guidance <= 100 => Ok(Request {
                    image: Arc::clone(sources.entry(image).or_insert_with(|| Arc::from(image))),
                    prompt: Arc::from(prompts.value(row)),
                    image_guidance,
                    seed: seeds.value(row),
                }),
                _ => Err(format!("image_guidance is {}; allowed are 0 to 100", guidances.value(row))),
            });
        }
        image_column(try_join_all(requests.into_iter().map(|request| self.generate(request))).await?)
    }
}

impl Img2Img {
    async fn generate(&self, request: Result<Request, String>) -> Result<Result<Option<Arc<[u8]>>, String>> {
        let request = match request {
            Ok(request) => request,
            Err(reason) => return Ok(Err(reason)),
        };
        let cell = self.cell(&request);
        let generated = cell
            .get_or_try_init(|| async {
                match self.models.diffusion().await?.img2img(request).await {
                    Ok(generated) => {
                        self.meter.0.fetch_add(generated.unet_evaluations, Ordering::Relaxed);
                        Ok(Ok(Arc::from(generated.png)))
                    }
                    Err(EngineError::Image(reason)) => Ok(Err(reason)),
                    Err(error) => Err(models::failed(error)),
                }
            })
            .await?;
        Ok(generated.clone().map(Some))
    }

    fn cell(&self, request: &Request) -> Arc<OnceCell<Generated>> {
        let key = Digest::new("job")
            .part(&request.image)
            .text(&request.prompt)
            .part(&[request.image_guidance])
            .part(&request.seed.to_le_bytes())
            .bytes();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cache.entry(key).or_default())
    }
}
