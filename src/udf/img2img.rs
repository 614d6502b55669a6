//! `img2img(image, prompt, image_guidance, seed)`: the image-guided image of the pipeline's diffusion
//! model. `image_guidance` is a percentage: 100 gives the image itself, 0 keeps nothing of it; `seed` is
//! the stream of its noise. A row that fails carries its reason in `error`.
//!
//! All rows go to the one engine of the device, whoever asks. DataFusion may evaluate a call twice;
//! here what was asked for once is not made again as long as the function is registered.

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
    function::{Arguments, AsyncKernel, Shape, argument, awaiting, fallible, image_column, integers, texts},
    load_image::load,
};
use crate::{
    identity::Digest,
    models::diffusion::{EngineError, Request},
    models::{self, Models},
    schema,
    source::Source,
};

const NAME: &str = "img2img";

/// An image, or why there is none.
type Made = Result<Arc<[u8]>, String>;

struct Img2Img {
    models: Arc<Models>,
    source: Arc<Source>,
    meter: Arc<Meter>,
    memo: Mutex<HashMap<[u8; 32], Arc<OnceCell<Made>>>>,
}

/// What the calls of one registration cost.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    /// Evaluations of the UNet that were made, padding not counted.
    pub fn unet_evaluations(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn function(models: Arc<Models>, source: Arc<Source>, meter: Arc<Meter>) -> ScalarUDF {
    let shape = Shape {
        name: NAME,
        arguments: Arguments::Exactly(4),
        returns: DataType::Struct(fallible(&schema::image_fields())),
        fingerprint: models.generator_digest().to_owned(),
    };
    awaiting(shape, Img2Img { models, source, meter, memo: Mutex::default() })
}

#[async_trait]
impl AsyncKernel for Img2Img {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let images = load(&self.source, NAME, argument(NAME, arguments, 0)?).await?;
        let prompts = texts(NAME, argument(NAME, arguments, 1)?)?;
        let guidances = integers(NAME, argument(NAME, arguments, 2)?)?;
        let seeds = integers(NAME, argument(NAME, arguments, 3)?)?;
        // rows of one source share their bytes: the engine knows them by their address and by content
        let mut sources: HashMap<&[u8], Arc<[u8]>> = HashMap::new();
        let mut jobs = Vec::with_capacity(rows);
        for row in 0..rows {
            let image = match images.row(row) {
                Ok(image) => image,
                Err(reason) => {
                    jobs.push(Err(reason));
                    continue;
                }
            };
            let null = [prompts.is_null(row), guidances.is_null(row), seeds.is_null(row)];
            let Some(image) = image.filter(|_| !null.contains(&true)) else {
                jobs.push(Err("an argument is NULL".to_owned()));
                continue;
            };
            jobs.push(match u8::try_from(guidances.value(row)) {
                Ok(image_guidance) if image_guidance <= 100 => Ok(Request {
                    image: Arc::clone(sources.entry(image).or_insert_with(|| Arc::from(image))),
                    prompt: Arc::from(prompts.value(row)),
                    image_guidance,
                    seed: seeds.value(row),
                }),
                _ => Err(format!("image_guidance {}, allowed are 0 to 100", guidances.value(row))),
            });
        }
        image_column(try_join_all(jobs.into_iter().map(|job| self.make(job))).await?)
    }
}

impl Img2Img {
    async fn make(&self, job: Result<Request, String>) -> Result<Result<Option<Arc<[u8]>>, String>> {
        let job = match job {
            Ok(job) => job,
            Err(reason) => return Ok(Err(reason)),
        };
        let cell = self.cell(&job);
        let made = cell
            .get_or_try_init(|| async {
                match self.models.diffusion().await?.img2img(job).await {
                    Ok(made) => {
                        self.meter.0.fetch_add(made.unet_evaluations, Ordering::Relaxed);
                        Ok(Ok(Arc::from(made.png)))
                    }
                    Err(EngineError::Image(reason)) => Ok(Err(reason)),
                    Err(error) => Err(models::failed(error)),
                }
            })
            .await?;
        Ok(made.clone().map(Some))
    }

    fn cell(&self, job: &Request) -> Arc<OnceCell<Made>> {
        let key = Digest::new("job")
            .part(&job.image)
            .text(&job.prompt)
            .part(&[job.image_guidance])
            .part(&job.seed.to_le_bytes())
            .bytes();
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(memo.entry(key).or_default())
    }
}
