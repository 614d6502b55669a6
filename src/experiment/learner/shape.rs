//! The size of images, and the number of classes.

use std::fmt;

/// The size of an image and the number of classes, none of which is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// 1 for grayscale.
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Labels are below this number.
    pub(crate) classes: usize,
}

impl Shape {
    /// Returns how many pixel values an image has.
    pub(crate) fn features(self) -> usize {
        self.channels * self.height * self.width
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, height, width, classes } = self;
        write!(f, "{channels}×{height}×{width} values in {classes} classes")
    }
}
