//! Why class descriptions cannot be requested or stored. No message has a secret.

use std::{io, path::PathBuf};

use crate::error::Error;

#[derive(Debug, thiserror::Error)]
pub(super) enum PromptsError {
    #[error(
        "`OPENAI_BASE_URL` is not the URL of an endpoint; expected an http or https URL such as \
         `http://localhost:8000/v1`"
    )]
    BaseUrl,
    #[error("`OPENAI_API_KEY` has characters that no key has; set it to the key alone, without spaces or quotes")]
    ApiKey,
    #[error(
        "`OPENAI_BASE_URL` has a user name and `OPENAI_API_KEY` is set; an endpoint takes one of them, unset the other"
    )]
    TwoCredentials,
    #[error(
        "class `{0}` is only a number, which no model can describe; name the class in `source.classes`, or what prompts \
         call it in `prompts.common_names`"
    )]
    NumberedClass(String),
    #[error("cannot create an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("{0}")]
    Refused(String),
    #[error(
        "no usable response for {classes} classes in a row: {last}\nhint: the file has all earlier responses; run the same \
         command again to continue"
    )]
    NoResponse { classes: usize, last: String },
    #[error("`{}`", .path.display())]
    File {
        path: PathBuf,
        #[source]
        problem: FileProblem,
    },
}

/// What is wrong with the file of descriptions.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileProblem {
    #[error("its name must end in `.jsonl`, by which `prompts.descriptions` recognizes such a file")]
    Name,
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("cannot be written")]
    Write(#[source] io::Error),
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    #[error("is not UTF-8")]
    Encoding(#[source] std::str::Utf8Error),
    #[error("{0}")]
    Line(String),
    #[error("another `discl-pipe prompts` is writing it; wait until that one has ended")]
    Locked,
}

impl From<PromptsError> for Error {
    fn from(error: PromptsError) -> Self {
        use FileProblem as P;
        match &error {
            PromptsError::BaseUrl
            | PromptsError::ApiKey
            | PromptsError::TwoCredentials
            | PromptsError::NumberedClass(_)
            | PromptsError::File { problem: P::Name | P::TooLarge(_) | P::Encoding(_) | P::Line(_), .. } => {
                Self::input(error)
            }
            PromptsError::Client(_)
            | PromptsError::Refused(_)
            | PromptsError::NoResponse { .. }
            | PromptsError::File { problem: P::Read(_) | P::Write(_) | P::Locked, .. } => Self::failed(error),
        }
    }
}
