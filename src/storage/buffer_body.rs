//! Answers that `object_store` takes as they come, and does not ask for again where they break off: pages of listings,
//! and what a store says of an error. The latter hides the error itself: an object that is not there becomes a failure.

use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};

/// Whether `request` lists objects, as S3 and Google (`list-type`) or Azure (`comp`) have it.
pub(super) fn lists(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|part| part.starts_with("list-type=") || part == "comp=list")
}

/// The same answer with its whole body. An answer that breaks off is an error that `object_store` repeats the request
/// for, where it may be repeated. What an object holds is not read here: it may be large, and is read on where it broke.
pub(super) async fn whole(answer: HttpResponse, lists: bool) -> Result<HttpResponse, HttpError> {
    if answer.status().is_success() && !lists {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let body = body.bytes().await.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
    Ok(HttpResponse::from_parts(parts, body.into()))
}
