//! How many timesteps a level of image guidance runs, in exact decimal arithmetic.
//!
//! diffusers computes int(n * strength) with strength = 1 - guidance in binary floats, which loses a timestep at
//! guidance 0.9 of 50. Percentages are integers here, so nothing is lost.

/// Returns how many timesteps of a schedule run: the last `timesteps` * (100 - `image_guidance`) / 100, rounded down.
/// 0 means that the source passes through unchanged and no model runs. Guidance above 100 counts as 100.
pub fn timesteps_run(timesteps: u32, image_guidance: u8) -> u32 {
    let percent = u64::from(100_u8.saturating_sub(image_guidance));
    // At most `timesteps`, since the percentage is at most 100.
    u32::try_from(u64::from(timesteps) * percent / 100).unwrap_or(timesteps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strengths_lose_no_timestep() {
        assert_eq!(timesteps_run(50, 90), 5, "4 in binary floats");
        assert_eq!(timesteps_run(10, 90), 1, "0 in binary floats");
        assert_eq!(timesteps_run(30, 80), 6);
        assert_eq!(timesteps_run(25, 70), 7, "7.5 rounded down");
        assert_eq!(timesteps_run(u32::MAX, 0), u32::MAX);
    }

    #[test]
    fn the_real_image_costs_nothing() {
        assert_eq!(timesteps_run(1000, 100), 0);
        assert_eq!(timesteps_run(1000, 255), 0);
        assert_eq!(timesteps_run(50, 99), 0, "half a timestep rounds down to none");
    }
}
