//! Collects the problems of a model directory, so that all of them are reported at once.

/// The problems found so far.
#[derive(Debug)]
pub(crate) struct Problems<E>(Vec<E>);

impl<E> Default for Problems<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E> Problems<E> {
    /// Returns the value, or records the error.
    pub(crate) fn keep<T>(&mut self, result: Result<T, impl Into<E>>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// Returns the value, or records every error.
    pub(crate) fn keep_all<T>(&mut self, result: Result<T, Vec<E>>) -> Option<T> {
        result.map_err(|errors| self.0.extend(errors)).ok()
    }

    /// Records one problem.
    pub(crate) fn add(&mut self, problem: impl Into<E>) {
        self.0.push(problem.into());
    }

    /// Whether nothing was recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the problems in the order in which they were found.
    pub(crate) fn into_vec(self) -> Vec<E> {
        self.0
    }
}
