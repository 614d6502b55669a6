//! A client for chat completions of OpenAI's protocol. It retries while that may help, and no message has a secret.

use std::time::Duration;

use reqwest::{
    Client, RequestBuilder, Response, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
    redirect,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::{Listener, error::PromptsError};
use crate::{error, identity::Digest};

/// The endpoint if the environment names none.
const PUBLIC: &str = "https://api.openai.com/v1";
/// How often a request is sent at most.
const MAX_TRIES: u32 = 5;
/// The pause before the first retry; each further one is twice as long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a response may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// Characters of an endpoint's message that are shown.
const SHOWN_CHARS: usize = 300;
/// The shortest key that is hidden in completions, too. Local servers accept any word as a key, such as `ollama` or
/// `none`, and a completion may contain it.
const MIN_SECRET_CHARS: usize = 16;

/// The address of an endpoint, with its credentials.
#[derive(Clone)]
pub(crate) struct Access {
    /// The URL of chat completions, with user name and password if it has them.
    url: Url,
    key: Option<String>,
}

#[derive(Debug)]
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

/// A response of a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Completion {
    /// Empty if the response has no text.
    pub(super) text: String,
    /// Whether it was too long and is truncated.
    pub(super) truncated: bool,
}

/// Why there is no response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// This request failed; others may succeed.
    NoResponse(String),
    /// Every further request would fail, too.
    Refused(String),
}

/// Why one try failed.
#[derive(Debug)]
enum TryError {
    /// A retry may succeed, after the pause that the endpoint asks for, if any.
    Transient(String, Option<Duration>),
    Permanent(Failure),
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
    /// Reads the values of `OPENAI_BASE_URL` and `OPENAI_API_KEY`; empty ones count as unset.
    ///
    /// # Errors
    /// Returns an error if one of them is invalid; the message has neither, since both may hold a secret.
    pub(crate) fn of(base: Option<&str>, key: Option<&str>) -> Result<Self, error::Error> {
        Ok(Self::parse(base, key)?)
    }

    fn parse(base: Option<&str>, key: Option<&str>) -> Result<Self, PromptsError> {
        let filled = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let mut url = Url::parse(filled(base).as_deref().unwrap_or(PUBLIC)).map_err(|_| PromptsError::BaseUrl)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(PromptsError::BaseUrl);
        }
        url.path_segments_mut().map_err(|()| PromptsError::BaseUrl)?.pop_if_empty().extend(["chat", "completions"]);
        let key = filled(key);
        if key.as_ref().is_some_and(|key| !key.chars().all(|c| c.is_ascii_graphic())) {
            return Err(PromptsError::ApiKey);
        }
        if key.is_some() && !url.username().is_empty() {
            return Err(PromptsError::TwoCredentials);
        }
        Ok(Self { url, key })
    }

    /// Returns the address without user name, password and query.
    pub(crate) fn shown(&self) -> String {
        let mut url = self.url.clone();
        // Neither fails for a URL with a host.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }

    /// Replaces the credentials in `text`, if they have at least `shortest` characters.
    fn hide(&self, text: String, shortest: usize) -> String {
        let password = self.url.password().filter(|password| !password.is_empty());
        let secrets = self.key.as_deref().into_iter().chain(password).filter(|secret| secret.len() >= shortest);
        secrets.fold(text, |text, secret| text.replace(secret, "[key]"))
    }

    /// Quotes the endpoint: on one line, shortened, without credentials.
    fn quote(&self, text: &str) -> String {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = self.hide(words.replace(char::is_control, ""), 1);
        let mut shown: String = words.chars().take(SHOWN_CHARS).collect();
        if shown.len() < words.len() {
            shown.push('…');
        }
        shown
    }
}

/// Shows no secret.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("url", &self.shown()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Creates a client that waits for a response as long as `timeout`.
    ///
    /// # Errors
    /// Returns an error if no trusted certificates are found.
    pub(super) fn new(access: Access, timeout: Duration, pause: Duration) -> Result<Self, PromptsError> {
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirected POST would become a GET.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("discl-pipe/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(PromptsError::Client)?;
        Ok(Self { client, access, pause })
    }

    /// Requests a completion of `messages` from `model`. `class` names the request to `listener`.
    pub(super) async fn chat(
        &self,
        model: &str,
        messages: &[Message],
        class: &str,
        listener: &dyn Listener,
    ) -> Result<Completion, Failure> {
        let body = json!({ "model": model, "messages": messages });
        let mut tries = 0;
        loop {
            tries += 1;
            let (message, requested) = match self.once(model, &body).await {
                Ok(completion) => return Ok(completion),
                Err(TryError::Permanent(failure)) => return Err(failure),
                Err(TryError::Transient(message, requested)) => (message, requested),
            };
            if tries == MAX_TRIES {
                return Err(Failure::NoResponse(format!("{message}; gave up after {MAX_TRIES} requests")));
            }
            let pause = requested.unwrap_or_else(|| self.pause_before(tries, class));
            if pause > MAX_PAUSE {
                let seconds = pause.as_secs();
                let hint = format!("run the same command again in {seconds} s");
                return Err(Failure::Refused(format!("{message}; it accepts requests in {seconds} s\nhint: {hint}")));
            }
            listener.note(&format!("{class}: {message}; retrying in {:.1} s", pause.as_secs_f64()));
            tokio::time::sleep(pause).await;
        }
    }

    /// Draws between half and all of a pause that doubles, so that requests that failed together are not retried
    /// together.
    fn pause_before(&self, tries: u32, class: &str) -> Duration {
        let drawn = Digest::new("pause").text(class).part(&tries.to_le_bytes()).draw(1001) as f64;
        self.pause * (1 << (tries - 1)) / 2 + (self.pause * (1 << (tries - 1)) / 2).mul_f64(drawn / 1000.0)
    }

    async fn once(&self, model: &str, body: &Value) -> Result<Completion, TryError> {
        let failed = |error: reqwest::Error| {
            let builder = error.is_builder();
            // The URL may have a password in it.
            let cause = self.access.quote(&error::chain(&error.without_url()));
            let message = format!("cannot reach `{}`: {cause}", self.access.shown());
            match builder {
                true => TryError::Permanent(Failure::Refused(message)),
                false => TryError::Transient(message, None),
            }
        };
        let response = self.request().json(body).send().await.map_err(failed)?;
        let (status, pause) = (response.status(), retry_after(&response));
        let text = text(response).await.map_err(failed)?;
        match status {
            StatusCode::OK => self.completion(&text).map_err(|message| TryError::Transient(message, None)),
            status => Err(self.status_error(model, status, pause, &text)),
        }
    }

    fn request(&self) -> RequestBuilder {
        let request = self.client.post(self.access.url.clone());
        match &self.access.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    fn status_error(&self, model: &str, status: StatusCode, pause: Option<Duration>, text: &str) -> TryError {
        let cause = self.access.quote(&message(text));
        let cause = if cause.is_empty() { cause } else { format!(": {cause}") };
        let message = format!("`{}` returned {status}{cause}", self.access.shown());
        let hint = match status.as_u16() {
            401 | 403 => "set `OPENAI_API_KEY` to a key of this endpoint".to_owned(),
            404 => format!(
                "check that the endpoint has the model `{model}`, and that `OPENAI_BASE_URL` has the full path, often \
                 `/v1`"
            ),
            408 | 425 | 429 | 500..=599 => return TryError::Transient(message, pause),
            300..=399 => "set `OPENAI_BASE_URL` to the address that it redirects to".to_owned(),
            _ => return TryError::Permanent(Failure::NoResponse(message)),
        };
        TryError::Permanent(Failure::Refused(format!("{message}\nhint: {hint}")))
    }

    /// Reads the first choice of a response.
    fn completion(&self, text: &str) -> Result<Completion, String> {
        #[derive(Deserialize)]
        struct Response {
            choices: Vec<Choice>,
        }
        #[derive(Deserialize)]
        struct Choice {
            message: Content,
            finish_reason: Option<String>,
        }
        #[derive(Deserialize)]
        struct Content {
            content: Option<String>,
        }
        let invalid = |why: &str| {
            let (address, response) = (self.access.shown(), self.access.quote(text));
            format!("the response of `{address}` is not a chat completion ({why}): {response}")
        };
        let response: Response = serde_json::from_str(text).map_err(|error| invalid(&error.to_string()))?;
        let choice = response.choices.into_iter().next().ok_or_else(|| invalid("it has no choice"))?;
        let text = self.access.hide(choice.message.content.unwrap_or_default(), MIN_SECRET_CHARS);
        Ok(Completion { text, truncated: choice.finish_reason.as_deref() == Some("length") })
    }
}

/// The pause that a response asks for in seconds; a date is ignored.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: f64 = response.headers().get(RETRY_AFTER).map(HeaderValue::to_str)?.ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Reads the body of a response, up to the allowed size.
async fn text(mut response: Response) -> reqwest::Result<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_RESPONSE_BYTES {
            bytes.truncate(MAX_RESPONSE_BYTES);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The message of an error response, under any of the keys in use, or else the whole response.
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
        fn advanced(&self, _: usize, _: usize) {}
        fn note(&self, _: &str) {}
    }

    /// The outcome of a request to an endpoint that gives these responses in turn, as they go over the wire, and then
    /// accepts no more.
    async fn request(responses: Vec<String>) -> Result<Completion, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for response in responses {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 8192]).unwrap() > 0);
                stream.write_all(response.as_bytes()).unwrap();
            }
        });
        let access = Access::of(Some(&base), Some(KEY)).unwrap();
        let endpoint = Endpoint::new(access, Duration::from_secs(5), Duration::from_millis(4)).unwrap();
        let outcome = endpoint.chat("m", &[Message::user("hello".into())], "cat", &Silent).await;
        server.join().unwrap();
        outcome
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn completion(content: &str, reason: &str) -> String {
        let choice = json!({ "message": { "role": "assistant", "content": content }, "finish_reason": reason });
        http("200 OK", &json!({ "choices": [choice] }).to_string())
    }

    #[tokio::test]
    async fn transient_errors_are_retried() {
        let responses = vec![
            http("500 Internal Server Error", ""),
            http("429 Too Many Requests\r\nRetry-After: 0.01", "{}"),
            "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"cho".to_owned(),
            http("200 OK", "<html>wait</html>"),
            completion("a\nb", "length"),
        ];
        assert_eq!(request(responses).await, Ok(Completion { text: "a\nb".into(), truncated: true }));
    }

    #[tokio::test]
    async fn retries_end_after_five_requests() {
        let Err(Failure::NoResponse(said)) = request(vec![http("503 Service Unavailable", "busy"); 5]).await else {
            panic!("there was a response");
        };
        let expected = "/v1/chat/completions` returned 503 Service Unavailable: busy; gave up after 5 requests";
        assert!(said.ends_with(expected), "{said}");
        // Nothing listens.
        let Err(Failure::NoResponse(said)) = request(Vec::new()).await else { panic!("there was a response") };
        assert!(said.starts_with("cannot reach ") && said.contains("refused"), "{said}");
    }

    #[tokio::test]
    async fn permanent_errors_are_reported_without_the_key() {
        let body = json!({ "error": { "message": format!("Incorrect key\n{KEY}") } }).to_string();
        for (status, hint) in [
            ("401 Unauthorized", "OPENAI_API_KEY"),
            ("404 Not Found", "the model `m`"),
            ("302 Found", "OPENAI_BASE_URL"),
        ] {
            let Err(Failure::Refused(said)) = request(vec![http(status, &body)]).await else { panic!("{status}") };
            assert!(said.contains(&format!("returned {status}: Incorrect key [key]\nhint: ")), "{said}");
            assert!(said.contains(hint), "{said}");
        }
        let Err(Failure::NoResponse(said)) = request(vec![http("400 Bad Request", "no")]).await else { panic!() };
        assert!(said.ends_with("returned 400 Bad Request: no"), "{said}");
        let later = http("429 Too Many Requests\r\nRetry-After: 3600", "");
        let Err(Failure::Refused(said)) = request(vec![later]).await else { panic!() };
        assert!(said.contains("run the same command again in 3600 s"), "{said}");
        let response = request(vec![completion(&format!("a {KEY}"), "stop")]).await.unwrap();
        assert_eq!(response.text, "a [key]");
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        let shown = |base| Access::of(base, None).unwrap().shown();
        assert_eq!(shown(None), "https://api.openai.com/v1/chat/completions");
        assert_eq!(shown(Some(" ")), "https://api.openai.com/v1/chat/completions");
        assert_eq!(shown(Some("http://a:b@localhost:8000/v1/?k=v")), "http://localhost:8000/v1/chat/completions");
        let access = Access::of(Some("http://a:hunter2@localhost"), None).unwrap();
        assert!(!format!("{access:?}").contains("hunter2"));
        assert_eq!(access.quote("no\u{7} hunter2\nhere"), "no [key] here");
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
        for tries in 1..MAX_TRIES {
            let (cat, dog) = (endpoint.pause_before(tries, "cat"), endpoint.pause_before(tries, "dog"));
            let full = PAUSE * (1 << (tries - 1));
            assert!(full / 2 <= cat && cat <= full && cat != dog, "{tries}: {cat:?} {dog:?}");
            assert_eq!(cat, endpoint.pause_before(tries, "cat"));
        }
    }
}
