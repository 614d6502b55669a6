//! Work on images that may panic: a bug of a decoder or of ours on one image concerns only that image. A panic on a thread
//! of rayon would end the process, so no other module starts work there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ImageError;

/// Runs `work` on an image.
///
/// # Errors
/// Returns the errors of `work`, and [`ImageError::Panicked`] if it panics.
pub(crate) fn contained<T>(work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(ImageError::Panicked))
}

/// Runs `work` on a thread of rayon and gives its result, as text if it is an error, to `done` there. `done` must not
/// panic.
pub(crate) fn spawn<T>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    done: impl FnOnce(Result<T, String>) + Send + 'static,
) {
    rayon::spawn(move || done(contained(work).map_err(|error| error.chain())));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_panic_is_an_error_of_the_image() {
        let ended = |work: fn() -> Result<u8, ImageError>| {
            let (sender, receiver) = channel();
            spawn(work, move |result| sender.send(result).unwrap());
            receiver.recv().unwrap()
        };
        assert_eq!(ended(|| Ok(7)), Ok(7));
        assert_eq!(ended(|| Err(ImageError::Empty)), Err("the file is empty".to_owned()));
        assert_eq!(ended(|| panic!("a bug")), Err(ImageError::Panicked.to_string()));
    }
}
