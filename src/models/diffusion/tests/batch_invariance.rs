//! An image is bit-identical whatever else is in its batch, whichever slot it has, and whenever it arrives.

use std::time::Duration;

use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::*;

const BATCH: usize = 4;

fn start(change: impl FnOnce(&mut Settings)) -> Engine {
    let mut settings = Settings {
        timesteps: NonZeroU32::new(10).unwrap(),
        guidance_scale: 4.0,
        batch_size: Some(BATCH),
        threads: 2,
        ..Settings::default()
    };
    change(&mut settings);
    on_cpu(&bundle(), settings)
}

/// Returns an image with its own pattern.
fn source(number: u32, width: u32, height: u32) -> Arc<[u8]> {
    let value = |x: u32, y: u32, scale: u32| ((x * scale + y * (number + 1) * 3) % 256) as u8;
    let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([value(x, y, 3), value(x, y, 5), value(x, y, 7)]));
    encode_png(&image).unwrap().into()
}

fn request(number: u32) -> Request {
    Request {
        image: source(number % 5, 32, 32),
        prompt: ["a photo of five", "a photo of nine", ""][number as usize % 3].into(),
        image_guidance: [0, 10, 30, 50, 70, 90][number as usize % 6],
        seed: i64::from(number) * 77 - 100,
    }
}

async fn generate_all(engine: &Engine, requests: Vec<Request>) -> Vec<Result<Generated, EngineError>> {
    let tasks: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.img2img(request).await })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
#[tokio::test]
async fn an_image_does_not_depend_on_its_batch() {
    let requests: Vec<Request> = (0..24).map(request).collect();
    let engine = start(|_| ());
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(engine.img2img(request.clone()).await.unwrap());
    }
    let together = generate_all(&start(|_| ()), requests.clone()).await;
    let small_queue = start(|settings| settings.queue = Some(3));
    let reversed = generate_all(&small_queue, requests.iter().rev().cloned().collect()).await;
    let one_thread = generate_all(&start(|settings| settings.threads = 1), requests.clone()).await;
    for (number, alone) in alone.iter().enumerate() {
        assert_eq!(together[number].as_ref().unwrap(), alone, "request {number} with others");
        assert_eq!(reversed[requests.len() - 1 - number].as_ref().unwrap(), alone, "request {number} in reverse");
        assert_eq!(one_thread[number].as_ref().unwrap(), alone, "request {number} on one thread");
    }
}

#[test]
fn an_image_does_not_depend_on_its_slot() {
    let newer = by_opset_23("digits", &root().join("models/digits"));
    for files in [bundle(), DiffusionFiles::inspect(newer.path()).unwrap()] {
        for threads in [1, 2] {
            assert_slots_are_equal(&files, threads);
        }
    }
}

#[track_caller]
fn assert_slots_are_equal(files: &DiffusionFiles, threads: usize) {
    let (mut encoders, mut denoiser, _) = load_on(files, threads);
    let prompt = encoders.encode_prompt("a photo of five").unwrap();
    let guidance = Guidance { scale: 4.0, negative: encoders.encode_prompt("").unwrap() };
    let scheduler = files.scheduler(None, 10).unwrap();
    let size = Size { width: 8, height: 8 };
    for slots in [1, 3, 8, 16] {
        let mut of_slot = Vec::new();
        for slot in 0..slots {
            let mut batch = Batch::new(&denoiser, size, slots, Some(&guidance)).unwrap();
            for number in 0..slots {
                let seed = if number == slot { 42 } else { number as i64 };
                let mut normals = NoiseGenerator::Counter.start(seed);
                let draws = [Purpose::Posterior, Purpose::Noise].map(|purpose| normals.draw(purpose, 256));
                let run = if number == slot { 3 } else { 4 + number % 6 };
                let denoising = scheduler.start(run, Some(&draws[0]), &draws[1], normals);
                batch.admit(Sample { denoising, prompt: prompt.clone(), ticket: number });
            }
            for _ in 0..2 {
                assert!(batch.step(&mut denoiser).unwrap().is_empty());
            }
            let done = batch.step(&mut denoiser).unwrap();
            assert_eq!(done[0].ticket, slot);
            of_slot.push(done[0].denoising.latents().to_vec());
        }
        assert!(of_slot.iter().all(|latents| *latents == of_slot[0]), "{slots} slots, {threads} threads");
    }
}

#[tokio::test]
async fn evaluations_are_counted_without_padding() {
    let engine = start(|_| ());
    let requests: Vec<Request> = (0..12).map(request).collect();
    let rows = |request: &Request| timesteps_run(10, request.image_guidance) * rows_per_sample(4.0);
    let planned: u32 = requests.iter().map(rows).sum();
    let generated = generate_all(&engine, requests).await;
    let counted: u64 = generated.iter().map(|image| image.as_ref().unwrap().unet_evaluations).sum();
    assert_eq!(counted, u64::from(planned));
    let stats = engine.stats();
    assert_eq!((stats.unet_evaluations, stats.images), (u64::from(planned), 12));
    assert_eq!(stats.batch_rows_offered, stats.unet_calls * 2 * BATCH as u64);
    assert!(stats.batch_rows_offered > stats.unet_evaluations && stats.busy > Duration::ZERO);
}

/// Random mixes of levels, sizes, schedulers and guidance, from a fixed seed.
#[tokio::test]
async fn every_mix_costs_its_planned_evaluations() {
    let mut draws = ChaCha8Rng::seed_from_u64(7);
    let mut below = |end: u32| draws.next_u32() % end;
    for mix in 0..12 {
        let scheduler = ["ddim", "euler", "euler_ancestral", "dpmpp_2m", "lcm"][below(5) as usize];
        let (timesteps, guidance_scale) = (3 + below(8), if below(2) == 0 { 1.0 } else { 4.0 });
        let engine = start(|settings| {
            settings.scheduler = Some(scheduler.parse().unwrap());
            settings.timesteps = NonZeroU32::new(timesteps).unwrap();
            settings.guidance_scale = guidance_scale;
            settings.batch_size = Some(1 + below(5) as usize);
        });
        let requests: Vec<Request> = (0..1 + below(14))
            .map(|number| {
                let image = source(number % 3, 16 + 8 * below(2), 16);
                Request { image, image_guidance: below(101) as u8, ..request(number) }
            })
            .collect();
        let rows = rows_per_sample(guidance_scale);
        let planned = requests.iter().map(|request| timesteps_run(timesteps, request.image_guidance) * rows);
        let planned: u32 = planned.sum();
        let generated = generate_all(&engine, requests).await;
        let counted: u64 = generated.iter().map(|image| image.as_ref().unwrap().unet_evaluations).sum();
        let what = format!("mix {mix}: {scheduler}, {timesteps} timesteps, guidance {guidance_scale}");
        assert_eq!((counted, engine.stats().unet_evaluations), (u64::from(planned), u64::from(planned)), "{what}");
    }
}

#[tokio::test]
async fn another_batch_size_changes_only_the_rounding() {
    let requests: Vec<Request> = (0..6).map(request).collect();
    let of = async |batch_size| {
        generate_all(&start(|settings| settings.batch_size = Some(batch_size)), requests.clone()).await
    };
    let (one, eight) = (of(1).await, of(8).await);
    for (one, eight) in one.iter().zip(&eight) {
        let [one, eight] = [one, eight].map(|image| decode(&image.as_ref().unwrap().png, &Limits::default()).unwrap());
        let worst = one.as_raw().iter().zip(eight.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{worst:?}");
    }
}

#[tokio::test]
async fn guidance_0_may_start_from_noise_alone() {
    let level = |image_guidance, number| Request { image: source(number, 32, 32), image_guidance, ..request(0) };
    let of_noise = start(|settings| settings.pure_noise_at_zero = true);
    let [five, nine] = [of_noise.img2img(level(0, 1)).await.unwrap(), of_noise.img2img(level(0, 2)).await.unwrap()];
    assert_eq!(five, nine, "nothing is left of the source");
    let leaking = start(|_| ());
    assert_ne!(leaking.img2img(level(0, 1)).await.unwrap().png, leaking.img2img(level(0, 2)).await.unwrap().png);
    assert_eq!(of_noise.img2img(level(10, 1)).await.unwrap(), leaking.img2img(level(10, 1)).await.unwrap());
}

#[tokio::test]
async fn the_real_image_passes_through_without_a_model() {
    let engine = start(|_| ());
    let image = source(1, 50, 33);
    let passed = Request { image: Arc::clone(&image), image_guidance: 100, ..request(0) };
    let generated = engine.img2img(passed).await.unwrap();
    assert_eq!((generated.timesteps, generated.unet_evaluations), (0, 0));
    let limits = Limits::default();
    assert_eq!(decode(&generated.png, &limits).unwrap(), decode(&image, &limits).unwrap());
    assert_eq!(engine.stats(), Stats::default().with_busy(engine.stats().busy));
}

impl Stats {
    fn with_busy(self, busy: Duration) -> Self {
        Self { busy, ..self }
    }
}

#[tokio::test]
async fn sizes_share_an_engine_and_bad_images_affect_no_others() {
    let engine = start(|_| ());
    let of = |image: Arc<[u8]>| Request { image, ..request(4) };
    let truncated: Arc<[u8]> = source(2, 32, 32)[..60].into();
    let requests = vec![
        of(source(0, 32, 32)),
        of(source(0, 48, 24)),
        of(source(0, 35, 33)),
        of(source(0, 3, 40)),
        of(truncated),
        of(b"hello".as_slice().into()),
    ];
    let results = generate_all(&engine, requests).await;
    let sides = |index: usize| decode(&results[index].as_ref().unwrap().png, &Limits::default()).unwrap().dimensions();
    assert_eq!([sides(0), sides(1), sides(2), sides(3)], [(32, 32), (48, 24), (32, 32), (8, 40)]);
    let reason = |index: usize| results[index].as_ref().unwrap_err().clone();
    assert!(matches!(reason(4), EngineError::Image(reason) if reason.starts_with("the `png` image is truncated")));
    assert_eq!(reason(5), EngineError::Image("not an image: it looks like `text`".to_owned()));
    assert_eq!(engine.img2img(of(source(0, 32, 32))).await, results[0].clone());
}

/// On a GPU a change of size costs as much as several calls.
#[tokio::test]
async fn sizes_that_alternate_are_generated_one_after_the_other() {
    let engine = start(|settings| settings.batch_size = None);
    let requests: Vec<Request> = (0..120)
        .map(|number| {
            let (width, height) = [(32, 32), (48, 24)][number as usize % 2];
            Request { image: source(number % 5, width, height), image_guidance: 70, ..request(number) }
        })
        .collect();
    let results = generate_all(&engine, requests.clone()).await;
    let stats = engine.stats();
    assert_eq!(stats.images, 120);
    assert!(stats.size_changes * 10 < stats.images, "{} changes", stats.size_changes);
    assert_eq!(engine.img2img(requests[7].clone()).await, results[7].clone());
}

#[tokio::test]
async fn dropped_futures_cancel_their_requests() {
    let engine = start(|settings| settings.queue = Some(8));
    for _ in 0..3 {
        let dropped = generate_numbers(&engine, 0..8);
        assert!(tokio::time::timeout(Duration::from_millis(1), dropped).await.is_err());
    }
    let generated = engine.img2img(request(3)).await.unwrap();
    assert_eq!(generated, start(|_| ()).img2img(request(3)).await.unwrap());
    assert!(engine.stats().images < 24, "{:?}", engine.stats());
}

async fn generate_numbers(engine: &Engine, numbers: std::ops::Range<u32>) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in numbers {
        let engine = engine.clone();
        tasks.spawn(async move { engine.img2img(request(number)).await });
    }
    while tasks.join_next().await.is_some() {}
}
