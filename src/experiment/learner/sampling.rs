//! How the rows of an epoch are drawn into batches.

use super::names::named;
use super::random::{Purpose, below, keyed};
use super::{Data, LearnerError};

/// A way to draw rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// In the manifest's order, and from its start again at its end, also within a batch.
    Plain,
    /// With replacement: a class, uniform among those that the rows have, then one of its rows, uniform.
    ClassBalanced,
}

named!(Sampling, "sampling", Plain => "plain", ClassBalanced => "class_balanced");

/// A batch's place in training, on which its draws are keyed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The learner's seed.
    pub(super) seed: u64,
    /// The epoch.
    pub(super) epoch: usize,
    /// The batch in the epoch, from 0.
    pub(super) iteration: usize,
}

/// The rows of an epoch, ready to be drawn.
#[derive(Debug)]
pub(super) enum Batches<'a> {
    /// In their order.
    Plain(&'a [usize]),
    /// By class, without the classes that have none.
    ClassBalanced(Vec<Vec<usize>>),
}

impl<'a> Batches<'a> {
    /// Prepares the rows of an epoch.
    ///
    /// # Errors
    /// No rows, or a row that does not exist.
    pub(super) fn new(sampling: Sampling, data: &Data, rows: &'a [usize]) -> Result<Self, LearnerError> {
        if rows.is_empty() {
            return Err(LearnerError::value("rows", "empty", "training needs at least one"));
        }
        match sampling {
            Sampling::Plain => Ok(Self::Plain(rows)),
            Sampling::ClassBalanced => {
                let mut classes = vec![Vec::new(); data.shape().classes];
                for &row in rows {
                    classes[data.label(row)? as usize].push(row);
                }
                classes.retain(|rows| !rows.is_empty());
                Ok(Self::ClassBalanced(classes))
            }
        }
    }

    /// The rows of the batch of `size` at a place.
    pub(super) fn draw(&self, size: usize, place: Place) -> Vec<usize> {
        match self {
            Self::Plain(rows) => {
                let start = place.iteration * size % rows.len();
                rows[start..].iter().chain(rows.iter().cycle()).take(size).copied().collect()
            }
            Self::ClassBalanced(classes) => {
                let key = [place.seed, place.epoch as u64, place.iteration as u64];
                let mut generator = keyed(Purpose::Batch, &key);
                let draw = |_| {
                    let rows = &classes[below(&mut generator, classes.len())];
                    rows[below(&mut generator, rows.len())]
                };
                (0..size).map(draw).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::learner::Shape;

    const PLACE: Place = Place { seed: 5, epoch: 0, iteration: 0 };

    /// Ninety rows of class 0, nine of class 1, one of class 2, none of class 3.
    fn long_tail() -> Data {
        let shape = Shape { channels: 1, height: 1, width: 1, classes: 4 };
        let labels = [vec![0; 90], vec![1; 9], vec![2]].concat();
        Data::new(shape, vec![0.0; 100], labels).unwrap()
    }

    #[test]
    fn plain_batches_go_round_in_the_order_of_the_rows() {
        let data = long_tail();
        let batches = Batches::new(Sampling::Plain, &data, &[7, 3, 9]).unwrap();
        let draw = |iteration| batches.draw(2, Place { iteration, ..PLACE });
        assert_eq!([draw(0), draw(1), draw(2), draw(3)], [[7, 3], [9, 7], [3, 9], [7, 3]]);
        assert_eq!(batches.draw(7, PLACE), [7, 3, 9, 7, 3, 9, 7], "more than there are");
    }

    #[test]
    fn balanced_batches_draw_classes_alike_and_their_rows_alike() {
        let data = long_tail();
        let rows: Vec<usize> = (0..100).collect();
        let batches = Batches::new(Sampling::ClassBalanced, &data, &rows).unwrap();
        let drawn: Vec<usize> =
            (0..300).flat_map(|iteration| batches.draw(100, Place { iteration, ..PLACE })).collect();
        let counts = data.class_counts(&drawn).unwrap();
        // 10,000 each, with a standard deviation of 82.
        assert!(counts[..3].iter().all(|count| (9_590..10_410).contains(count)), "{counts:?}");
        assert_eq!(counts[3], 0);
        // 1,111 each, with a standard deviation of 33.
        for row in 90..99 {
            let count = drawn.iter().filter(|drawn| **drawn == row).count();
            assert!((946..1_276).contains(&count), "row {row} was drawn {count} times");
        }
    }

    #[test]
    fn a_balanced_batch_depends_on_its_place_alone() {
        let data = long_tail();
        let rows: Vec<usize> = (0..100).collect();
        let batches = Batches::new(Sampling::ClassBalanced, &data, &rows).unwrap();
        let drawn = batches.draw(64, PLACE);
        assert_eq!(drawn, batches.draw(64, PLACE));
        for other in [Place { seed: 6, ..PLACE }, Place { epoch: 1, ..PLACE }, Place { iteration: 1, ..PLACE }] {
            assert_ne!(drawn, batches.draw(64, other), "{other:?}");
        }
    }

    #[test]
    fn no_rows_are_refused() {
        let error = Batches::new(Sampling::Plain, &long_tail(), &[]).unwrap_err();
        assert_eq!(error.to_string(), "`rows` is empty; training needs at least one");
    }
}
