//! Class descriptions from an endpoint of OpenAI's protocol: a request for each class, a line of a file for each answer.
//!
//! The file is what `prompts.descriptions` takes. A class whose line there answers the same request to the same model is
//! not asked again, so that the same command goes on after whatever has stopped it.

mod endpoint;
mod journal;
mod request;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use futures::{StreamExt, stream};
use serde::Serialize;

pub use endpoint::Access;

use crate::{
    clock,
    config::Config,
    error::{Error, Result},
    source::{self, CommonNames, Line, Source},
};
use endpoint::{Endpoint, Failure, Message};
use journal::Journal;
use request::{Gathered, Request};

/// How often a model is asked for the texts of a class, as long as its answers are good for too few.
const ASKS: usize = 3;
/// Classes in a row that the endpoint does not answer: after these the rest is not asked.
const UNANSWERED: usize = 3;
/// Characters of an answer that a model is reminded of.
const REMINDED: usize = 16_000;

/// What is asked, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model, by the endpoint's name for it.
    pub model: String,
    /// Texts for each class.
    pub texts: usize,
    /// Words that a text has at least.
    pub least_words: usize,
    /// Classes that are asked for at once.
    pub in_flight: usize,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// What has come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Classes of the source, but for excluded ones.
    pub classes: usize,
    /// Of these, those that were in the file already.
    pub there: usize,
    /// Those that were added.
    pub answered: usize,
    /// Those that got no line.
    pub failed: Vec<Failed>,
    /// Texts of all classes that are in the file now.
    pub texts: usize,
}

/// A class without texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Its name.
    pub class_name: String,
    /// Why it has none.
    pub reason: String,
}

/// Hears how far it is.
pub trait Listener: Send + Sync {
    /// So many classes of those that were asked for are through.
    fn answered(&self, classes: usize, of: usize);
    /// Something that is worth a line.
    fn note(&self, said: &str);
}

/// Asks for the texts of every class that `file` lacks, of the source of the pipeline at `pipeline` with the edits `set`,
/// and adds a line to `file` for each answer. Classes that fail are in the outcome; the others go on.
///
/// # Errors
/// Where the pipeline's file, its source, the endpoint's address or `file` are not as they should be, all of it said
/// before any request; or where the endpoint refuses, or answers nothing any more: what was answered is in `file`.
pub async fn prompts(
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
    let (mut problems, checked) = (Vec::new(), Journal::check(file));
    let (source, names, access) = match (source, names, access, checked) {
        (Ok(source), Ok(names), Ok(access), Ok(())) => (source, names, access),
        (source, names, access, checked) => {
            problems.extend([source.err(), names.err(), access.err(), checked.err()].into_iter().flatten());
            return Err(Error::Several(problems));
        }
    };
    let excluded = &config.hard_samples.exclude_classes;
    problems.extend(names.check(&source).err());
    problems.extend(source::check_excluded(&source, excluded).err());
    let classes: Vec<&str> =
        source.class_names().into_iter().filter(|name| !excluded.iter().any(|class| class == name)).collect();
    let requests = requests(&classes, &names, options);
    problems.extend(check_subjects(&requests).err());
    if !problems.is_empty() {
        return Err(Error::Several(problems));
    }
    let endpoint = Endpoint::new(access, options.timeout, endpoint::PAUSE)?;
    let (mut journal, lines, torn) = Journal::open(file)?;
    if torn > 0 {
        listener.note(&format!("`{}`: its last line was cut off; its {torn} bytes are left out", file.display()));
    }
    ask_all(&endpoint, requests, lines, &mut journal, options, listener).await
}

fn requests(classes: &[&str], names: &CommonNames, options: &Options) -> Vec<Request> {
    let Options { texts, least_words, .. } = options;
    let request = |class: &&str| Request {
        class_name: (*class).to_owned(),
        subject: names.of(class).to_owned(),
        texts: *texts,
        least_words: *least_words,
    };
    classes.iter().map(request).collect()
}

/// Nobody can describe the class `3`.
fn check_subjects(requests: &[Request]) -> Result<()> {
    let Some(request) = requests.iter().find(|request| request.subject.parse::<i64>().is_ok()) else { return Ok(()) };
    Err(Error::Data(format!(
        "class `{}` has only a number for a name, which no model can describe; `source.classes` names the classes of a \
         source, and `prompts.common_names` what prompts call them",
        request.class_name
    )))
}

/// Whether a line answers a request: it does where model and request are the same, or a person has written it.
fn answers(line: &Line, request: &Request, model: &str) -> bool {
    match (&line.model, &line.request) {
        (Some(by), Some(asked)) => by == model && *asked == request.digest(),
        _ => true,
    }
}

async fn ask_all(
    endpoint: &Endpoint,
    requests: Vec<Request>,
    mut lines: BTreeMap<String, Line>,
    journal: &mut Journal,
    options: &Options,
    listener: &dyn Listener,
) -> Result<Outcome> {
    let named: BTreeSet<String> = requests.iter().map(|request| request.class_name.clone()).collect();
    lines.retain(|class, _| named.contains(class));
    let classes = requests.len();
    let there =
        |request: &Request| lines.get(&request.class_name).is_some_and(|line| answers(line, request, &options.model));
    let wanted: Vec<Request> = requests.into_iter().filter(|request| !there(request)).collect();
    let asked = wanted.len();
    let mut outcome = Outcome { classes, there: classes - asked, answered: 0, failed: Vec::new(), texts: 0 };
    let ask = |request: Request| async move {
        let texts = ask(endpoint, &request, &options.model, listener).await;
        (request, texts)
    };
    let mut answers = stream::iter(wanted.into_iter().map(ask)).buffer_unordered(options.in_flight);
    let mut unanswered = 0;
    while let Some((request, texts)) = answers.next().await {
        let failed = match texts {
            Ok(Ok(texts)) => {
                let line = line(&request, texts, &options.model);
                journal.add(&line)?;
                lines.insert(request.class_name.clone(), line);
                (outcome.answered, unanswered) = (outcome.answered + 1, 0);
                None
            }
            Ok(Err(unusable)) => {
                unanswered = 0;
                Some(unusable)
            }
            Err(Failure::Refused(said)) => return Err(Error::Data(said)),
            Err(Failure::Unanswered(said)) => {
                unanswered += 1;
                if unanswered == UNANSWERED {
                    let stays = "what was answered is in the file, and the same command goes on from there";
                    return Err(Error::Data(format!("{UNANSWERED} classes in a row: {said}\nhint: {stays}")));
                }
                Some(said)
            }
        };
        outcome.failed.extend(failed.map(|reason| Failed { class_name: request.class_name, reason }));
        listener.answered(outcome.answered + outcome.failed.len(), asked);
    }
    outcome.failed.sort_by(|a, b| a.class_name.cmp(&b.class_name));
    outcome.texts = lines.values().map(|line| line.texts.len()).sum();
    Ok(outcome)
}

fn line(request: &Request, texts: Vec<String>, model: &str) -> Line {
    Line {
        class_name: request.class_name.clone(),
        texts,
        model: Some(model.to_owned()),
        date: Some(clock::today()),
        request: Some(request.digest()),
    }
}

/// The texts that a model gives for a class, or why its answers are good for too few.
async fn ask(
    endpoint: &Endpoint,
    request: &Request,
    model: &str,
    listener: &dyn Listener,
) -> Result<Result<Vec<String>, String>, Failure> {
    let mut gathered = Gathered::new(request);
    let mut messages = vec![Message::user(request.text())];
    let mut said = String::new();
    for _ in 0..ASKS {
        let answer = endpoint.chat(model, &messages, &request.class_name, listener).await?;
        let spoken = request::spoken(&answer.text);
        let Some(complaint) = gathered.take(spoken, answer.cut_off) else {
            return Ok(Ok(gathered.into_texts()));
        };
        // servers want a text from everybody in turn
        let reminder: String = spoken.chars().take(REMINDED).collect();
        messages.push(Message::assistant(if reminder.trim().is_empty() { "…".to_owned() } else { reminder }));
        messages.push(Message::user(gathered.again(&complaint)));
        said = complaint;
    }
    Ok(Err(format!("after {ASKS} answers {said}")))
}
