//! Draws the rows of an epoch into batches.

use super::{
    Data, LearnerError,
    names::named,
    random::{Purpose, below, keyed},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// Rows in the order of the manifest. The end wraps around to the start, also within a batch.
    Plain,
    /// With replacement: a class, uniform among the classes of the rows, then one of its rows, also uniform.
    ClassBalanced,
}

named!(Sampling, "sampling", Plain => "plain", ClassBalanced => "class_balanced");

/// The position of a batch in the training, which keys its draws.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub(super) seed: u64,
    pub(super) epoch: usize,
    /// Counted from 0 in each epoch.
    pub(super) iteration: usize,
}

/// The rows of an epoch, ready to draw from.
#[derive(Debug)]
pub(super) enum Batches<'a> {
    Plain(&'a [usize]),
    /// Rows by class, without empty classes.
    ClassBalanced(Vec<Vec<usize>>),
}

impl<'a> Batches<'a> {
    /// Prepares the rows of an epoch.
    ///
    /// # Errors
    /// Returns an error if there are no rows, or if one does not exist.
    pub(super) fn new(sampling: Sampling, data: &Data, rows: &'a [usize]) -> Result<Self, LearnerError> {
        if rows.is_empty() {
            return Err(LearnerError::NoRows);
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

    /// Draws the batch of `size` rows at a position.
    pub(super) fn draw(&self, size: usize, position: Position) -> Vec<usize> {
        match self {
            Self::Plain(rows) => {
                let start = position.iteration * size % rows.len();
                rows[start..].iter().chain(rows.iter().cycle()).take(size).copied().collect()
            }
            Self::ClassBalanced(classes) => {
                let key = [position.seed, position.epoch as u64, position.iteration as u64];
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

    const POSITION: Position = Position { seed: 5, epoch: 0, iteration: 0 };

    /// Ninety rows of class 0, nine of class 1, one of class 2, none of class 3.
    fn long_tail() -> Data {
        let shape = Shape { channels: 1, height: 1, width: 1, classes: 4 };
        let labels = [vec![0; 90], vec![1; 9], vec![2]].concat();
        Data::new(shape, vec![0.0; 100], labels).unwrap()
    }

    #[test]
    fn plain_batches_cycle_through_the_rows_in_order() {
        let data = long_tail();
        let batches = Batches::new(Sampling::Plain, &data, &[7, 3, 9]).unwrap();
        let draw = |iteration| batches.draw(2, Position { iteration, ..POSITION });
        assert_eq!([draw(0), draw(1), draw(2), draw(3)], [[7, 3], [9, 7], [3, 9], [7, 3]]);
        assert_eq!(batches.draw(7, POSITION), [7, 3, 9, 7, 3, 9, 7], "a batch may be larger than the epoch");
    }

    #[test]
    fn balanced_batches_draw_classes_and_their_rows_uniformly() {
        let data = long_tail();
        let rows: Vec<usize> = (0..100).collect();
        let batches = Batches::new(Sampling::ClassBalanced, &data, &rows).unwrap();
        let drawn: Vec<usize> =
            (0..300).flat_map(|iteration| batches.draw(100, Position { iteration, ..POSITION })).collect();
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
    fn a_balanced_batch_depends_on_its_position_alone() {
        let data = long_tail();
        let rows: Vec<usize> = (0..100).collect();
        let batches = Batches::new(Sampling::ClassBalanced, &data, &rows).unwrap();
        let drawn = batches.draw(64, POSITION);
        assert_eq!(drawn, batches.draw(64, POSITION));
        for other in
            [Position { seed: 6, ..POSITION }, Position { epoch: 1, ..POSITION }, Position { iteration: 1, ..POSITION }]
        {
            assert_ne!(drawn, batches.draw(64, other), "{other:?}");
        }
    }

    #[test]
    fn an_epoch_without_rows_is_an_error() {
        let error = Batches::new(Sampling::Plain, &long_tail(), &[]).unwrap_err();
        assert_eq!(error.to_string(), "training needs at least one row");
    }
}
