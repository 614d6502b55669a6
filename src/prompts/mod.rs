//! Class descriptions from an endpoint of OpenAI's protocol: a request for each class, and a line of a file for each
//! response.
//!
//! The file is what `prompts.descriptions` reads. A class whose line there is a response to the same request by the same
//! model is not requested again, so the same command continues after any interruption.

mod description_file;
mod endpoint;
mod error;
mod request;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use futures::{StreamExt, stream};
use serde::Serialize;

pub(crate) use self::endpoint::Access;

use self::{
    description_file::DescriptionFile,
    endpoint::{Endpoint, Failure, Message},
    error::PromptsError,
    request::{Gathered, Request},
};
use crate::{
    clock,
    config::Config,
    error::{Error, Result},
    source::{self, CommonNames, Line, Source},
};

/// How often a model is asked for the descriptions of a class while its responses have too few.
const MAX_RESPONSES: usize = 3;
/// Classes in a row without a response after which the rest is not requested.
const MAX_WITHOUT_RESPONSE: usize = 3;
/// Characters of an earlier response that a further request repeats.
const MAX_REPEATED_CHARS: usize = 16_000;

/// What is requested, and how.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The endpoint's name of the model.
    pub(crate) model: String,
    /// Descriptions per class.
    pub(crate) count: usize,
    /// The minimum number of words of a description.
    pub(crate) min_words: usize,
    /// Requests in flight at once.
    pub(crate) in_flight: usize,
    /// How long a response may take.
    pub(crate) timeout: Duration,
}

/// The result, in numbers of classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// Classes of the source that are not excluded.
    pub(crate) classes: usize,
    /// Those that were in the file already.
    #[serde(rename = "there")]
    pub(crate) present: usize,
    /// Those that were added.
    #[serde(rename = "answered")]
    pub(crate) added: usize,
    /// Those that got no line.
    pub(crate) failed: Vec<Failed>,
    /// Descriptions of all classes in the file.
    #[serde(rename = "texts")]
    pub(crate) descriptions: usize,
}

/// A class without descriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failed {
    pub(crate) class_name: String,
    pub(crate) reason: String,
}

/// Follows the progress.
pub(crate) trait Listener: Send + Sync {
    /// `classes` of the `total` that are requested are done.
    fn advanced(&self, classes: usize, total: usize);
    /// Something worth a line has happened.
    fn note(&self, line: &str);
}

/// Requests the descriptions of every class that `file` lacks, of the source of the pipeline at `pipeline` with the edits
/// `set`, and appends a line to `file` for each response. Classes that fail are in the outcome; the others go on.
///
/// # Errors
/// Returns an error if the pipeline, its source, the address of the endpoint or `file` is invalid: all problems at once,
/// before any request. Returns an error if the endpoint refuses or stops responding; `file` has the responses until then.
pub(crate) async fn prompts(
    pipeline: &Path,
    set: &[String],
    file: &Path,
    access: Result<Access>,
    options: &Options,
    listener: &dyn Listener,
) -> Result<Outcome> {
    let config = Config::load(pipeline, set)?;
    let source = Source::open(&config.source, "").await;
    let names = source::common_names(config.prompts.common_names.as_deref());
    let (mut problems, checked) = (Vec::new(), DescriptionFile::check(file).map_err(Error::from));
    let (source, names, access) = match (source, names, access, checked) {
        (Ok(source), Ok(names), Ok(access), Ok(())) => (source, names, access),
        (source, names, access, checked) => {
            problems.extend([source.err(), names.err(), access.err(), checked.err()].into_iter().flatten());
            return Err(Error::Multiple(problems));
        }
    };
    let excluded = &config.hard_samples.exclude_classes;
    problems.extend(names.check(&source).err());
    problems.extend(source::check_excluded(&source, excluded).err());
    let classes: Vec<&str> =
        source.class_names().into_iter().filter(|name| !excluded.iter().any(|class| class == name)).collect();
    let requests = requests(&classes, &names, options);
    problems.extend(check_subjects(&requests).err().map(Error::from));
    if !problems.is_empty() {
        return Err(Error::Multiple(problems));
    }
    let endpoint = Endpoint::new(access, options.timeout, endpoint::PAUSE)?;
    let (mut descriptions, lines, truncated) = DescriptionFile::open(file)?;
    if truncated > 0 {
        listener.note(&format!("`{}`: removed {truncated} bytes of a truncated last line", file.display()));
    }
    request_all(&endpoint, requests, lines, &mut descriptions, options, listener).await
}

fn requests(classes: &[&str], names: &CommonNames, options: &Options) -> Vec<Request> {
    let Options { count, min_words, .. } = options;
    let request = |class: &&str| Request {
        class_name: (*class).to_owned(),
        subject: names.of(class).to_owned(),
        count: *count,
        min_words: *min_words,
    };
    classes.iter().map(request).collect()
}

/// No model can describe the class `3`.
fn check_subjects(requests: &[Request]) -> Result<(), PromptsError> {
    match requests.iter().find(|request| request.subject.parse::<i64>().is_ok()) {
        Some(request) => Err(PromptsError::NumberedClass(request.class_name.clone())),
        None => Ok(()),
    }
}

/// Whether a line is a response to a request by this model, or was written by a person.
fn responds(line: &Line, request: &Request, model: &str) -> bool {
    match (&line.model, &line.request) {
        (Some(by), Some(digest)) => by == model && *digest == request.digest(),
        _ => true,
    }
}

async fn request_all(
    endpoint: &Endpoint,
    requests: Vec<Request>,
    mut lines: BTreeMap<String, Line>,
    file: &mut DescriptionFile,
    options: &Options,
    listener: &dyn Listener,
) -> Result<Outcome> {
    let named: BTreeSet<String> = requests.iter().map(|request| request.class_name.clone()).collect();
    lines.retain(|class, _| named.contains(class));
    let classes = requests.len();
    let is_present =
        |request: &Request| lines.get(&request.class_name).is_some_and(|line| responds(line, request, &options.model));
    let missing: Vec<Request> = requests.into_iter().filter(|request| !is_present(request)).collect();
    let total = missing.len();
    let mut outcome = Outcome { classes, present: classes - total, added: 0, failed: Vec::new(), descriptions: 0 };
    let send = |request: Request| async move {
        let descriptions = descriptions(endpoint, &request, &options.model, listener).await;
        (request, descriptions)
    };
    let mut responses = stream::iter(missing.into_iter().map(send)).buffer_unordered(options.in_flight);
    let mut without_response = 0;
    while let Some((request, response)) = responses.next().await {
        let failed = match response {
            Ok(Ok(descriptions)) => {
                let line = line(&request, descriptions, &options.model);
                file.append(&line)?;
                lines.insert(request.class_name.clone(), line);
                (outcome.added, without_response) = (outcome.added + 1, 0);
                None
            }
            Ok(Err(unusable)) => {
                without_response = 0;
                Some(unusable)
            }
            Err(Failure::Refused(message)) => return Err(PromptsError::Refused(message).into()),
            Err(Failure::NoResponse(message)) => {
                without_response += 1;
                if without_response == MAX_WITHOUT_RESPONSE {
                    return Err(PromptsError::NoResponse { classes: MAX_WITHOUT_RESPONSE, last: message }.into());
                }
                Some(message)
            }
        };
        outcome.failed.extend(failed.map(|reason| Failed { class_name: request.class_name, reason }));
        listener.advanced(outcome.added + outcome.failed.len(), total);
    }
    outcome.failed.sort_by(|a, b| a.class_name.cmp(&b.class_name));
    outcome.descriptions = lines.values().map(|line| line.texts.len()).sum();
    Ok(outcome)
}

fn line(request: &Request, descriptions: Vec<String>, model: &str) -> Line {
    Line {
        class_name: request.class_name.clone(),
        texts: descriptions,
        model: Some(model.to_owned()),
        date: Some(clock::today()),
        request: Some(request.digest()),
    }
}

/// Returns a model's descriptions of a class, or why its responses have too few.
async fn descriptions(
    endpoint: &Endpoint,
    request: &Request,
    model: &str,
    listener: &dyn Listener,
) -> Result<Result<Vec<String>, String>, Failure> {
    let mut gathered = Gathered::new(request);
    let mut messages = vec![Message::user(request.text())];
    let mut last = String::new();
    for _ in 0..MAX_RESPONSES {
        let completion = endpoint.chat(model, &messages, &request.class_name, listener).await?;
        let response = request::without_reasoning(&completion.text);
        let Some(complaint) = gathered.add(response, completion.truncated) else {
            return Ok(Ok(gathered.into_descriptions()));
        };
        // Servers expect user and assistant to alternate, and no empty message.
        let repeated: String = response.chars().take(MAX_REPEATED_CHARS).collect();
        messages.push(Message::assistant(if repeated.trim().is_empty() { "…".to_owned() } else { repeated }));
        messages.push(Message::user(gathered.again(&complaint)));
        last = complaint;
    }
    Ok(Err(format!("after {MAX_RESPONSES} responses, {last}")))
}
