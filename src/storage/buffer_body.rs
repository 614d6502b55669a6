//! Buffers list and error bodies. `object_store` streams them and does not retry if the connection drops mid-body, so a
//! truncated 404 body would surface as a generic error.

use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};

/// Whether `request` lists objects: `list-type` on S3 and Google Cloud Storage, `comp=list` on Azure.
pub(super) fn is_list(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|part| part.starts_with("list-type=") || part == "comp=list")
}

/// Reads the body of a list or error response to its end. A connection that drops is then an error that `object_store`
/// retries. The body of an object passes through unread: it may be large, and `object_store` resumes it by itself.
pub(super) async fn buffered(response: HttpResponse, is_list: bool) -> Result<HttpResponse, HttpError> {
    if response.status().is_success() && !is_list {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = body.bytes().await.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
    Ok(HttpResponse::from_parts(parts, body.into()))
}
