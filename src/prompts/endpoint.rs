//! A client of OpenAI's protocol: chat completions, tried again while that may help, without a secret in any message.

use std::time::Duration;

use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
    redirect,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::Listener;
use crate::{
    error::{self, Error, Result},
    identity::Digest,
};

/// Where requests go, where the environment does not say it.
const PUBLIC: &str = "https://api.openai.com/v1";
/// How often a request is sent.
const TRIES: u32 = 5;
/// The first pause before it is sent again; each further one is twice as long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that an answer may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(20);
/// Largest answer, in bytes.
const LARGEST: usize = 4 << 20;
/// Characters of an endpoint's own message that are shown.
const SHOWN: usize = 300;
/// Characters of the shortest key that is hidden in answers too. Local servers take any word for a key, such as
/// `ollama` or `none`, and texts may have it.
const SECRET: usize = 16;

/// Where the endpoint is, and what it is opened with.
#[derive(Clone)]
pub struct Access {
    /// Of the chat completions, with user name and password where it has them.
    url: Url,
    key: Option<String>,
}

/// An endpoint.
pub(super) struct Endpoint {
    client: Client,
    access: Access,
    pause: Duration,
}

/// A part of a conversation.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Message {
    role: &'static str,
    content: String,
}

/// What a model answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Empty where it has no text.
    pub(super) text: String,
    /// Whether it was cut off, as too long.
    pub(super) cut_off: bool,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// To this request.
    Unanswered(String),
    /// To none: nothing that follows will be answered.
    Refused(String),
}

/// Why one try failed.
#[derive(Debug)]
enum Trouble {
    /// It may pass; after the time that the endpoint asks for, where it does.
    Passing(String, Option<Duration>),
    Lasting(Failure),
}

impl Message {
    pub(super) fn user(content: String) -> Self {
        Self { role: "user", content }
    }

    pub(super) fn assistant(content: String) -> Self {
        Self { role: "assistant", content }
    }
}

impl Access {
    /// What `OPENAI_BASE_URL` and `OPENAI_API_KEY` say; empty ones say nothing.
    ///
    /// # Errors
    /// Where one of them cannot be what it should; neither is repeated.
    pub fn of(base: Option<&str>, key: Option<&str>) -> Result<Self> {
        let filled = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let expected = "allowed are http and https URLs such as `http://localhost:8000/v1`";
        // what is there may have a password in it
        let wrong = || Error::Data(format!("`OPENAI_BASE_URL` is no URL of an endpoint; {expected}"));
        let mut url = Url::parse(filled(base).as_deref().unwrap_or(PUBLIC)).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong());
        }
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(["chat", "completions"]);
        let key = filled(key);
        if key.as_ref().is_some_and(|key| !key.chars().all(|c| c.is_ascii_graphic())) {
            return Err(Error::Data("`OPENAI_API_KEY` is no key: it has characters that no key has".into()));
        }
        if key.is_some() && !url.username().is_empty() {
            let message = "`OPENAI_BASE_URL` has a user name and `OPENAI_API_KEY` is set: an endpoint takes only one";
            return Err(Error::Data(message.into()));
        }
        Ok(Self { url, key })
    }

    /// The address without user name, password and query.
    pub fn shown(&self) -> String {
        let mut url = self.url.clone();
        // neither fails for a URL with a host
        let _ = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }

    /// A text of the endpoint's, without the key.
    fn hide(&self, text: String, shortest: usize) -> String {
        let password = self.url.password().filter(|password| !password.is_empty());
        let secrets = self.key.as_deref().into_iter().chain(password).filter(|secret| secret.len() >= shortest);
        secrets.fold(text, |text, secret| text.replace(secret, "[key]"))
    }

    /// Words of the endpoint's on one line, cut to what a reader takes in.
    fn said(&self, text: &str) -> String {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = self.hide(words.replace(char::is_control, ""), 1);
        let mut shown: String = words.chars().take(SHOWN).collect();
        if shown.len() < words.len() {
            shown.push('…');
        }
        shown
    }
}

/// Neither shows a secret.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("url", &self.shown()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// A client that waits for an answer as long as `timeout`.
    ///
    /// # Errors
    /// Where there are no certificates to trust.
    pub(super) fn new(access: Access, timeout: Duration, pause: Duration) -> Result<Self> {
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(CONNECT)
            // a redirected POST becomes a GET
            .redirect(redirect::Policy::none())
            .user_agent(concat!("discl-pipe/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Data(format!("no HTTP client can be made: {}", error::chain(&error))))?;
        Ok(Self { client, access, pause })
    }

    /// What `model` answers to `messages`. `class` names the request to `listener`.
    pub(super) async fn chat(
        &self,
        model: &str,
        messages: &[Message],
        class: &str,
        listener: &dyn Listener,
    ) -> std::result::Result<Answer, Failure> {
        let body = json!({ "model": model, "messages": messages });
        let mut tries = 0;
        loop {
            tries += 1;
            let (said, asked) = match self.once(model, &body).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Lasting(failure)) => return Err(failure),
                Err(Trouble::Passing(said, asked)) => (said, asked),
            };
            if tries == TRIES {
                return Err(Failure::Unanswered(format!("{said}; it was asked {TRIES} times")));
            }
            let pause = asked.unwrap_or_else(|| self.pause_before(tries, class));
            if pause > LONGEST_PAUSE {
                let hint = "give the same command again then";
                return Err(Failure::Refused(format!("{said}, to wait for {} s\nhint: {hint}", pause.as_secs())));
            }
            listener.note(&format!("{class}: {said}; again in {:.1} s", pause.as_secs_f64()));
            tokio::time::sleep(pause).await;
        }
    }

    /// Half to all of a pause that doubles: requests that failed together do not come again together.
    fn pause_before(&self, tries: u32, class: &str) -> Duration {
        let drawn = Digest::new("pause").text(class).part(&tries.to_le_bytes()).draw(1001) as f64;
        self.pause * (1 << (tries - 1)) / 2 + (self.pause * (1 << (tries - 1)) / 2).mul_f64(drawn / 1000.0)
    }

    async fn once(&self, model: &str, body: &Value) -> std::result::Result<Answer, Trouble> {
        let failed = |error: reqwest::Error| {
            let builder = error.is_builder();
            // the URL may have a password in it
            let said = self.access.said(&error::chain(&error.without_url()));
            let said = format!("`{}` cannot be asked: {said}", self.access.shown());
            match builder {
                true => Trouble::Lasting(Failure::Refused(said)),
                false => Trouble::Passing(said, None),
            }
        };
        let response = self.request().json(body).send().await.map_err(failed)?;
        let (status, pause) = (response.status(), retry_after(&response));
        let text = text(response).await.map_err(failed)?;
        match status {
            StatusCode::OK => self.answer(&text).map_err(|said| Trouble::Passing(said, None)),
            status => Err(self.trouble(model, status, pause, &text)),
        }
    }

    fn request(&self) -> RequestBuilder {
        let request = self.client.post(self.access.url.clone());
        match &self.access.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    fn trouble(&self, model: &str, status: StatusCode, pause: Option<Duration>, text: &str) -> Trouble {
        let words = self.access.said(&message(text));
        let words = if words.is_empty() { words } else { format!(": {words}") };
        let said = format!("`{}` answers {status}{words}", self.access.shown());
        let hint = match status.as_u16() {
            401 | 403 => "set `OPENAI_API_KEY` to a key of this endpoint".to_owned(),
            404 => format!(
                "does the endpoint have the model `{model}`, and has `OPENAI_BASE_URL` its whole path, often `/v1`?"
            ),
            408 | 425 | 429 | 500..=599 => return Trouble::Passing(said, pause),
            300..=399 => "set `OPENAI_BASE_URL` to where it redirects to".to_owned(),
            _ => return Trouble::Lasting(Failure::Unanswered(said)),
        };
        Trouble::Lasting(Failure::Refused(format!("{said}\nhint: {hint}")))
    }

    /// The first choice of a chat completion.
    fn answer(&self, text: &str) -> Result<Answer, String> {
        #[derive(Deserialize)]
        struct Completion {
            choices: Vec<Choice>,
        }
        #[derive(Deserialize)]
        struct Choice {
            message: Said,
            finish_reason: Option<String>,
        }
        #[derive(Deserialize)]
        struct Said {
            content: Option<String>,
        }
        let none = |why: &str| {
            let (at, said) = (self.access.shown(), self.access.said(text));
            format!("`{at}` answers what is no chat completion ({why}): {said}")
        };
        let completion: Completion = serde_json::from_str(text).map_err(|error| none(&error.to_string()))?;
        let choice = completion.choices.into_iter().next().ok_or_else(|| none("it has no choice"))?;
        let text = self.access.hide(choice.message.content.unwrap_or_default(), SECRET);
        Ok(Answer { text, cut_off: choice.finish_reason.as_deref() == Some("length") })
    }
}

/// The pause that an answer asks for in seconds; as a date it is not read.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: f64 = response.headers().get(RETRY_AFTER).map(HeaderValue::to_str)?.ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The body, up to what an answer may have.
async fn text(mut response: Response) -> reqwest::Result<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST {
            bytes.truncate(LARGEST);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What an endpoint says of an error: its message, by any of the keys in use, or all that it sent.
fn message(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let found = ["/error/message", "/error", "/message", "/detail"].iter().find_map(|at| value.pointer(at)?.as_str());
    found.unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    const KEY: &str = "sk-0123456789abcdef";

    struct Silent;

    impl Listener for Silent {
        fn answered(&self, _: usize, _: usize) {}
        fn note(&self, _: &str) {}
    }

    /// What comes of one request after another to an endpoint that gives these answers, as they go over the wire, and
    /// then accepts no more.
    async fn asked(answers: Vec<String>) -> std::result::Result<Answer, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 8192]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let access = Access::of(Some(&base), Some(KEY)).unwrap();
        let endpoint = Endpoint::new(access, Duration::from_secs(5), Duration::from_millis(4)).unwrap();
        let answer = endpoint.chat("m", &[Message::user("hello".into())], "cat", &Silent).await;
        server.join().unwrap();
        answer
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn completion(content: &str, reason: &str) -> String {
        let choice = json!({ "message": { "role": "assistant", "content": content }, "finish_reason": reason });
        http("200 OK", &json!({ "choices": [choice] }).to_string())
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again() {
        let answers = vec![
            http("500 Internal Server Error", ""),
            http("429 Too Many Requests\r\nRetry-After: 0.01", "{}"),
            "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"cho".to_owned(),
            http("200 OK", "<html>wait</html>"),
            completion("a\nb", "length"),
        ];
        assert_eq!(asked(answers).await, Ok(Answer { text: "a\nb".into(), cut_off: true }));
    }

    #[tokio::test]
    async fn after_five_tries_it_is_given_up() {
        let Err(Failure::Unanswered(said)) = asked(vec![http("503 Service Unavailable", "busy"); 5]).await else {
            panic!("it was answered");
        };
        assert!(said.ends_with("/v1/chat/completions` answers 503 Service Unavailable: busy; it was asked 5 times"));
        // nobody listens
        let Err(Failure::Unanswered(said)) = asked(Vec::new()).await else { panic!("it was answered") };
        assert!(said.contains("cannot be asked: ") && said.contains("refused"), "{said}");
    }

    #[tokio::test]
    async fn what_does_not_pass_is_said_without_the_key() {
        let body = json!({ "error": { "message": format!("Incorrect key\n{KEY}") } }).to_string();
        for (status, hint) in [
            ("401 Unauthorized", "OPENAI_API_KEY"),
            ("404 Not Found", "the model `m`"),
            ("302 Found", "OPENAI_BASE_URL"),
        ] {
            let Err(Failure::Refused(said)) = asked(vec![http(status, &body)]).await else { panic!("{status}") };
            assert!(said.contains(&format!("answers {status}: Incorrect key [key]\nhint: ")), "{said}");
            assert!(said.contains(hint), "{said}");
        }
        let Err(Failure::Unanswered(said)) = asked(vec![http("400 Bad Request", "no")]).await else { panic!() };
        assert!(said.ends_with("answers 400 Bad Request: no"), "{said}");
        let later = http("429 Too Many Requests\r\nRetry-After: 3600", "");
        let Err(Failure::Refused(said)) = asked(vec![later]).await else { panic!() };
        assert!(said.contains("to wait for 3600 s"), "{said}");
        let answer = asked(vec![completion(&format!("a {KEY}"), "stop")]).await.unwrap();
        assert_eq!(answer.text, "a [key]");
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        let shown = |base| Access::of(base, None).unwrap().shown();
        assert_eq!(shown(None), "https://api.openai.com/v1/chat/completions");
        assert_eq!(shown(Some(" ")), "https://api.openai.com/v1/chat/completions");
        assert_eq!(shown(Some("http://a:b@localhost:8000/v1/?k=v")), "http://localhost:8000/v1/chat/completions");
        let access = Access::of(Some("http://a:hunter2@localhost"), None).unwrap();
        assert!(!format!("{access:?}").contains("hunter2"));
        assert_eq!(access.said("no\u{7} hunter2\nhere"), "no [key] here");
        for (base, key) in [
            ("ftp://hunter2", None),
            ("hunter2", None),
            ("http://hunter2 x", None),
            ("http://u:hunter2@h/v1", Some("k")),
            ("http://h", Some("hunter2 x")),
        ] {
            let said = Access::of(Some(base), key).unwrap_err().to_string();
            assert!(!said.contains("hunter2") && said.starts_with("`OPENAI_"), "{said}");
        }
    }

    #[test]
    fn pauses_double_and_differ_between_classes() {
        let access = Access::of(None, None).unwrap();
        let endpoint = Endpoint::new(access, PAUSE, PAUSE).unwrap();
        for tries in 1..TRIES {
            let (cat, dog) = (endpoint.pause_before(tries, "cat"), endpoint.pause_before(tries, "dog"));
            let whole = PAUSE * (1 << (tries - 1));
            assert!(whole / 2 <= cat && cat <= whole && cat != dog, "{tries}: {cat:?} {dog:?}");
            assert_eq!(cat, endpoint.pause_before(tries, "cat"));
        }
    }
}
