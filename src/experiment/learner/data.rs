//! Images as numbers, with their classes.

use super::LearnerError;

/// The sizes of a classification problem; none is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Channels of an image: 1 for grey.
    pub(crate) channels: usize,
    /// Rows of pixels.
    pub(crate) height: usize,
    /// Pixels of a row.
    pub(crate) width: usize,
    /// Classes; labels are below it.
    pub(crate) classes: usize,
}

impl Shape {
    /// Numbers of one image.
    pub(crate) fn features(self) -> usize {
        self.channels * self.height * self.width
    }
}

/// Images of one size and their labels. A row is an image's place in them.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    shape: Shape,
    /// Row by row, and in a row channel by channel from the top left.
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Data {
    /// Takes pixels as `[rows, channels, height, width]`, scaled to about 0 to 1, and a label for each row.
    ///
    /// # Errors
    /// A size of 0, pixels that are not as many as the labels and the shape say, or a label that is no class.
    pub(crate) fn new(shape: Shape, pixels: Vec<f32>, labels: Vec<u32>) -> Result<Self, LearnerError> {
        let sizes = [shape.channels, shape.height, shape.width, shape.classes];
        if sizes.contains(&0) {
            return Err(LearnerError::value("shape", format!("{sizes:?}"), "every size is at least 1"));
        }
        let expected = labels.len() * shape.features();
        if pixels.len() != expected {
            let allowed = format!("{} rows of this shape have {expected}", labels.len());
            return Err(LearnerError::value("pixels", format!("{} numbers", pixels.len()), allowed));
        }
        if let Some(label) = labels.iter().find(|label| **label as usize >= shape.classes) {
            return Err(LearnerError::value("labels", label, format!("valid are 0 to {}", shape.classes - 1)));
        }
        Ok(Self { shape, pixels, labels })
    }

    /// The sizes.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The class of each row.
    pub(crate) fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// How many of these rows each class has.
    ///
    /// # Errors
    /// A row that does not exist.
    pub(crate) fn class_counts(&self, rows: &[usize]) -> Result<Vec<usize>, LearnerError> {
        let mut counts = vec![0; self.shape.classes];
        for &row in rows {
            counts[self.label(row)? as usize] += 1;
        }
        Ok(counts)
    }

    /// The class of a row.
    ///
    /// # Errors
    /// A row that does not exist.
    pub(super) fn label(&self, row: usize) -> Result<u32, LearnerError> {
        let label = self.labels.get(row).copied();
        label.ok_or_else(|| LearnerError::value("rows", row, format!("there are {} rows", self.labels.len())))
    }

    /// The pixels and labels of these rows, in their order.
    ///
    /// # Errors
    /// A row that does not exist.
    pub(super) fn gather(&self, rows: &[usize]) -> Result<(Vec<f32>, Vec<u32>), LearnerError> {
        let features = self.shape.features();
        let mut pixels = Vec::with_capacity(rows.len() * features);
        let mut labels = Vec::with_capacity(rows.len());
        for &row in rows {
            labels.push(self.label(row)?);
            pixels.extend_from_slice(&self.pixels[row * features..][..features]);
        }
        Ok((pixels, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { channels: 1, height: 1, width: 2, classes: 3 };

    #[test]
    fn rows_are_gathered_and_counted() {
        let data = Data::new(SHAPE, vec![0.0, 0.1, 1.0, 1.1, 2.0, 2.1], vec![2, 0, 2]).unwrap();
        assert_eq!(data.gather(&[2, 0, 2]).unwrap(), (vec![2.0, 2.1, 0.0, 0.1, 2.0, 2.1], vec![2, 2, 2]));
        assert_eq!(data.class_counts(&[0, 1, 2, 2]).unwrap(), [1, 0, 3]);
        assert_eq!(data.gather(&[3]).unwrap_err().to_string(), "`rows` is 3; there are 3 rows");
        assert!(data.class_counts(&[3]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |shape, pixels: usize, labels| Data::new(shape, vec![0.0; pixels], labels).unwrap_err().to_string();
        assert_eq!(error(SHAPE, 3, vec![0, 1]), "`pixels` is 3 numbers; 2 rows of this shape have 4");
        assert_eq!(error(SHAPE, 2, vec![3]), "`labels` is 3; valid are 0 to 2");
        let none = Shape { classes: 0, ..SHAPE };
        assert_eq!(error(none, 0, vec![]), "`shape` is [1, 1, 2, 0]; every size is at least 1");
    }
}
