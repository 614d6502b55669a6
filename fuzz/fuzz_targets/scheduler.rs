//! `scheduler_config.json`, and the schedules that it produces.
//!
//! No text may cause a panic or take long. Every accepted schedule has finite timesteps, and a sample runs along it to its
//! end.
//!
//! The first byte of the input selects the scheduler that replaces the file's, and the number of timesteps.
#![no_main]
#![allow(dead_code, unused_imports, missing_docs)]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/limited_read/mod.rs"]
mod limited_read;

#[path = "../../src/models"]
mod models {
    /// A stand-in: schedulers do not cause this error.
    pub(crate) mod onnx {
        #[derive(Debug, thiserror::Error)]
        #[error("never")]
        pub(crate) struct OnnxError;
    }

    /// A stand-in: schedulers do not cause this error.
    pub(crate) mod tokenizer {
        #[derive(Debug, thiserror::Error)]
        #[error("never")]
        pub(crate) struct TokenizerError;
    }

    pub(crate) mod model_dir {
        mod error;
        mod read;

        pub(crate) use error::FileError;
        pub(crate) use read::{read, read_config};
    }

    pub(crate) mod diffusion {
        mod error;
        mod noise;
        mod schedulers;
        mod torch;

        pub(crate) use error::DiffusionError;
        pub(crate) use noise::NoiseGenerator;
        pub(crate) use schedulers::{SchedulerConfig, SchedulerName};

        /// Runs a sample of four values along the last timesteps of a schedule.
        pub(crate) fn run(scheduler: &dyn schedulers::Scheduler, run: usize, from_image: bool) {
            let noise = [0.5, -0.5, 1.0, -1.0];
            let image = [1.0, 0.0, -1.0, 0.5];
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
            assert_eq!(calls, scheduler.calls(run).len());
            assert_eq!(sample.latents().len(), 4);
        }
    }
}

use models::diffusion;

const NAMES: [&str; 7] = ["ddim", "pndm", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "lcm"];
const TIMESTEPS: [u32; 6] = [1, 2, 6, 50, 61, 1000];

fuzz_target!(|input: &[u8]| {
    let Some((choice, text)) = input.split_first() else { return };
    let instead = NAMES.get(usize::from(choice % 8)).map(|name| name.parse().expect("a valid name"));
    let timesteps = TIMESTEPS[usize::from(choice / 8) % TIMESTEPS.len()];
    let path = Path::new("scheduler_config.json");
    let Ok(config) = diffusion::SchedulerConfig::parse(text, path, instead, &[]) else { return };
    let Ok(scheduler) = config.build(timesteps) else { return };
    for (run, from_image) in [(timesteps as usize, false), (timesteps as usize, true), (1, true)] {
        diffusion::run(&*scheduler, run, from_image);
    }
});
