//! Downloads one file of a hub. Redirects are followed, to a mirror or to a store of large files; the client drops the
//! token when a redirect leaves the hub's host.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use hf_hub::api::tokio::{Api, ApiError};

use super::HubError;
use crate::{error, models::model_dir::FileError};

/// A response of 206: what was asked for follows, and not the whole file.
const PARTIAL: u16 = 206;

/// A response to a range that begins behind the end of the file.
const NOT_SATISFIABLE: u16 = 416;

/// Why a download ended before the file was complete.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// The response has another status than success. `from` is the host that sent it, if it is not the hub.
    Status { status: u16, from: Option<String> },
    /// Another attempt may succeed.
    Connection(String),
    /// The cache cannot be written.
    Cache(HubError),
}

/// Downloads `url` into the file `part`, behind what an earlier download has left there. Adds the bytes that arrive to
/// `fetched`, and stops when there are more than `size`, if it is known: then the file is not the stated one.
///
/// # Errors
/// Returns why the file is not complete.
pub(super) async fn download(
    api: &Api,
    url: &str,
    part: &Path,
    size: Option<u64>,
    fetched: &AtomicU64,
) -> Result<(), Interrupted> {
    let cache = |action| move |error: io::Error| Interrupted::Cache(FileError::io(action, part)(error).into());
    let have = fs::metadata(part).map_or(0, |found| found.len());
    let mut request = api.client().get(url);
    if have > 0 {
        request = request.header("range", format!("bytes={have}-"));
    }
    let mut response = request.send().await.map_err(|error| connection(error.into()))?;
    let status = response.status().as_u16();
    if !response.status().is_success() {
        if status == NOT_SATISFIABLE {
            fs::remove_file(part).map_err(cache("remove"))?;
            return Err(Interrupted::Connection("the file is shorter than what has arrived before".to_owned()));
        }
        let host = other_host(url, response.url().as_str());
        return Err(Interrupted::Status { status, from: host });
    }
    // A server may ignore the range and send the file from its beginning.
    let mut options = File::options();
    let goes_on = status == PARTIAL && have > 0;
    let mut file =
        options.create(true).append(goes_on).write(true).truncate(!goes_on).open(part).map_err(cache("write"))?;
    let mut written = if goes_on { have } else { 0 };
    loop {
        match response.chunk().await {
            Ok(Some(_)) if size.is_some_and(|size| written > size) => return Ok(()),
            Ok(Some(bytes)) => {
                file.write_all(&bytes).map_err(cache("write"))?;
                written += bytes.len() as u64;
                fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Ok(None) => return file.sync_all().map_err(cache("write")),
            Err(error) => return Err(connection(error.into())),
        }
    }
}

/// Describes a connection that failed, without its URL, which may be signed. The client does not say which of several
/// hosts it was.
fn connection(error: ApiError) -> Interrupted {
    let ApiError::RequestError(error) = error else { return Interrupted::Connection(error::chain(&error)) };
    let where_to = if error.is_connect() { "it, or the host to which it redirects, cannot be reached: " } else { "" };
    Interrupted::Connection(format!("{where_to}{}", error::chain(&error.without_url())))
}

/// Returns the host and port of `found` if it is not that of `asked`.
pub(super) fn other_host(asked: &str, found: &str) -> Option<String> {
    let host = |url: &str| {
        let rest = url.split_once("://")?.1;
        let authority = rest.split(['/', '?', '#']).next()?;
        Some(authority.rsplit('@').next()?.to_owned())
    };
    host(found).filter(|found| host(asked).as_ref() != Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_of_another_url_is_named() {
        let asked = "http://hub:80/a/b";
        assert_eq!(other_host(asked, "http://hub:80/c?x=y"), None);
        assert_eq!(
            other_host(asked, "https://user:secret@cdn.example:443/c?sig=secret").as_deref(),
            Some("cdn.example:443")
        );
    }
}
