//! `timesteps_run(timesteps, image_guidance)`: how many timesteps of a schedule of `timesteps` a level of image
//! guidance runs, rounded down. `image_guidance` is a percentage; NULL if an argument is NULL or out of range.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array},
    datatypes::DataType,
};
use datafusion::{error::Result, logical_expr::ScalarUDF};

use super::function::{Arguments, Kernel, Shape, argument, integers, plain};
use crate::config::timesteps_run;

const NAME: &str = "timesteps_run";

struct TimestepsRun;

pub(super) fn function() -> ScalarUDF {
    let (arguments, returns) = (Arguments::Exactly(2), DataType::Int64);
    plain(Shape { name: NAME, arguments, returns, fingerprint: String::new() }, TimestepsRun)
}

impl Kernel for TimestepsRun {
    fn call(&self, arguments: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let timesteps = integers(NAME, argument(NAME, arguments, 0)?)?;
        let levels = integers(NAME, argument(NAME, arguments, 1)?)?;
        let run: Int64Array = timesteps.iter().zip(&levels).map(|(timesteps, level)| run(timesteps?, level?)).collect();
        Ok(Arc::new(run))
    }
}

fn run(timesteps: i64, image_guidance: i64) -> Option<i64> {
    let level = u8::try_from(image_guidance).ok().filter(|level| *level <= 100)?;
    Some(timesteps_run(u32::try_from(timesteps).ok()?, level).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_runs_its_share_and_arguments_out_of_range_give_null() {
        assert_eq!((run(50, 90), run(50, 0), run(50, 100), run(25, 70)), (Some(5), Some(50), Some(0), Some(7)));
        assert_eq!((run(-1, 50), run(50, -1), run(50, 101)), (None, None, None));
    }
}
