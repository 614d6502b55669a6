//! A check of schedulers for the fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use std::path::Path;

use super::{NoiseGenerator, Scheduler, schedulers::SchedulerConfig};
use crate::limited_read::damaged::without_own_panic;

const NAMES: [&str; 7] = ["ddim", "pndm", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "lcm"];
const TIMESTEPS: [u32; 6] = [1, 2, 6, 50, 61, 1000];

/// A scheduler is an error, or has finite timesteps along which a sample runs to its end. The first byte selects the
/// scheduler that replaces the file's, and the number of timesteps.
pub(crate) fn scheduler(input: &[u8]) {
    let Some((choice, text)) = input.split_first() else { return };
    let instead = NAMES.get(usize::from(choice % 8)).map(|name| name.parse().unwrap());
    let timesteps = TIMESTEPS[usize::from(choice / 8) % TIMESTEPS.len()];
    without_own_panic(|| {
        let path = Path::new("scheduler_config.json");
        let Ok(config) = SchedulerConfig::parse(text, path, instead, &[]) else { return };
        let Ok(scheduler) = config.build(timesteps) else { return };
        for (run, from_image) in [(timesteps as usize, false), (timesteps as usize, true), (1, true)] {
            follow(&*scheduler, run, from_image);
        }
    });
}

/// Runs a sample of four values along the last timesteps of a schedule.
fn follow(scheduler: &dyn Scheduler, run: usize, from_image: bool) {
    let (noise, image) = ([0.5, -0.5, 1.0, -1.0], [1.0, 0.0, -1.0, 0.5]);
    let normals = NoiseGenerator::Counter.start(7);
    let mut sample = scheduler.start(run, from_image.then_some(&image[..]), &noise, normals);
    let mut calls = 0;
    while let Some(timestep) = sample.timestep() {
        assert!(timestep.is_finite(), "timestep {timestep}");
        sample.model_input(&mut [0.0; 4]);
        sample.advance(&[0.1, -0.1, 0.2, 0.0]);
        calls += 1;
        assert!(calls <= run + 1, "the sample does not end");
    }
    assert_eq!((calls, sample.latents().len()), (scheduler.calls(run).len(), 4));
}
