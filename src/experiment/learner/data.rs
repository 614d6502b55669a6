//! Images as numbers, with their labels.

use super::{LearnerError, Shape};

/// Images of one size with their labels. Callers refer to an image by its row.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    shape: Shape,
    /// Ordered by row, channel, y and x.
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Data {
    /// Takes pixels as `[rows, channels, height, width]`, scaled to about 0 to 1, and one label for each row.
    ///
    /// # Errors
    /// Returns an error if a size is 0, if the number of pixel values does not match the labels and the shape, or if a
    /// label is not a class.
    pub(crate) fn new(shape: Shape, pixels: Vec<f32>, labels: Vec<u32>) -> Result<Self, LearnerError> {
        let sizes = [shape.channels, shape.height, shape.width, shape.classes];
        if sizes.contains(&0) {
            return Err(LearnerError::EmptyShape(shape));
        }
        let (rows, expected, found) = (labels.len(), labels.len() * shape.features(), pixels.len());
        if found != expected {
            return Err(LearnerError::PixelCount { rows, expected, found });
        }
        if let Some(&class) = labels.iter().find(|label| **label as usize >= shape.classes) {
            return Err(LearnerError::UnknownClass { class, classes: shape.classes });
        }
        Ok(Self { shape, pixels, labels })
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Returns the label of each row.
    pub(crate) fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Counts these rows by class.
    ///
    /// # Errors
    /// Returns an error if a row does not exist.
    pub(crate) fn class_counts(&self, rows: &[usize]) -> Result<Vec<usize>, LearnerError> {
        let mut counts = vec![0; self.shape.classes];
        for &row in rows {
            counts[self.label(row)? as usize] += 1;
        }
        Ok(counts)
    }

    /// Returns the label of a row.
    ///
    /// # Errors
    /// Returns an error if the row does not exist.
    pub(super) fn label(&self, row: usize) -> Result<u32, LearnerError> {
        self.labels.get(row).copied().ok_or(LearnerError::UnknownRow { row, rows: self.labels.len() })
    }

    /// Returns the pixels and labels of these rows, in the given order.
    ///
    /// # Errors
    /// Returns an error if a row does not exist.
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
        assert_eq!(data.gather(&[3]).unwrap_err().to_string(), "row 3 is out of range; there are 3 rows");
        assert!(data.class_counts(&[3]).is_err());
    }

    #[test]
    fn inconsistent_data_is_an_error() {
        let error = |shape, pixels: usize, labels| Data::new(shape, vec![0.0; pixels], labels).unwrap_err().to_string();
        assert_eq!(error(SHAPE, 3, vec![0, 1]), "2 rows need 4 pixel values, found 3");
        assert_eq!(error(SHAPE, 2, vec![3]), "class 3 is out of range; there are 3 classes");
        let none = Shape { classes: 0, ..SHAPE };
        assert_eq!(error(none, 0, vec![]), "every size of a shape must be at least 1, found 1×1×2 values in 0 classes");
    }
}
