//! The request to a model, and the usable descriptions of its responses.

use std::collections::BTreeSet;

use crate::identity::Digest;

/// No text encoder reads more.
const MAX_CHARS: usize = 2000;

/// A request for the descriptions of one class.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The class, as in `images`.
    pub(super) class_name: String,
    /// What it is called in prompts.
    pub(super) subject: String,
    /// The number of descriptions.
    pub(super) count: usize,
    /// The minimum number of words of a description.
    pub(super) min_words: usize,
}

impl Request {
    /// The message to the model. Other wording is another request, and every model is asked again.
    pub(super) fn text(&self) -> String {
        let Self { subject, count, min_words, .. } = self;
        format!(
            "I make photos with Stable Diffusion and need prompts. The subject is: {subject}.\n\
             Describe {count} scenes, each of which one realistic photo could show. The {subject} is the only subject \
             of every scene: no other animal, person or thing competes with it. No two scenes are alike: they differ \
             in place, light, weather, distance, angle and in what the subject does or how it lies there.\n\
             Every description is one line, names the {subject}, says only what can be seen, and has at least \
             {min_words} words. Answer with these {count} lines alone: no numbers, no headings, no remarks."
        )
    }

    /// Identifies the request, whatever the model.
    pub(super) fn digest(&self) -> String {
        Digest::new("prompts").text(&self.text()).id()
    }
}

/// The usable descriptions of the responses so far.
#[derive(Debug)]
pub(super) struct Gathered<'a> {
    request: &'a Request,
    descriptions: Vec<String>,
    /// The same in the form in which they are compared.
    seen: BTreeSet<String>,
}

/// Counts of the unusable lines of a response.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unusable {
    short: usize,
    long: usize,
    repeated: usize,
    control: usize,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(request: &'a Request) -> Self {
        Self { request, descriptions: Vec::new(), seen: BTreeSet::new() }
    }

    /// Adds the usable lines of a response, up to the number requested. The last line of a truncated response does not
    /// count. If descriptions are still missing, returns what is wrong with the other lines.
    pub(super) fn add(&mut self, response: &str, truncated: bool) -> Option<String> {
        let mut lines: Vec<&str> = response.lines().collect();
        if truncated {
            lines.pop();
        }
        let mut unusable = Unusable::default();
        for text in lines.into_iter().map(bare).filter(|text| !text.is_empty() && !text.ends_with(':')) {
            if self.descriptions.len() < self.request.count {
                self.judge(text, &mut unusable);
            }
        }
        (self.descriptions.len() < self.request.count).then(|| self.complaint(&unusable))
    }

    fn judge(&mut self, text: String, unusable: &mut Unusable) {
        if text.contains(char::is_control) {
            unusable.control += 1;
        } else if text.chars().count() > MAX_CHARS {
            unusable.long += 1;
        } else if text.split(' ').count() < self.request.min_words {
            unusable.short += 1;
        } else if self.seen.insert(text.to_lowercase().replace(' ', "")) {
            self.descriptions.push(text);
        } else {
            unusable.repeated += 1;
        }
    }

    fn complaint(&self, unusable: &Unusable) -> String {
        let Unusable { short, long, repeated, control } = unusable;
        let Request { min_words, count, .. } = self.request;
        let reasons = [
            (*short, format!("with fewer than {min_words} words")),
            (*long, format!("with more than {MAX_CHARS} characters")),
            (*repeated, "repeating an earlier one".to_owned()),
            (*control, "with control characters".to_owned()),
        ];
        let reasons = reasons.into_iter().filter(|(lines, _)| *lines > 0);
        let reasons: Vec<String> = reasons.map(|(lines, reason)| format!("{lines} {reason}")).collect();
        let unusable = match reasons.is_empty() {
            true => String::new(),
            false => format!("; unusable lines: {}", reasons.join(", ")),
        };
        format!("{} of {count} descriptions are usable{unusable}", self.descriptions.len())
    }

    /// The message that requests the missing descriptions.
    pub(super) fn again(&self, complaint: &str) -> String {
        let missing = self.request.count - self.descriptions.len();
        format!(
            "Of your answers, {complaint}. Write {missing} more by the same rules, each a single line of at least {} \
             words and different from all earlier ones, and nothing else.",
            self.request.min_words
        )
    }

    pub(super) fn into_descriptions(self) -> Vec<String> {
        self.descriptions
    }
}

/// Returns a response without the reasoning that some models put before it.
pub(super) fn without_reasoning(response: &str) -> &str {
    response.rsplit_once("</think>").map_or(response, |(_, rest)| rest)
}

/// Returns a line without list marks, emphasis and quotes, its words one space apart.
fn bare(line: &str) -> String {
    let line = line.replace("**", "").split_whitespace().collect::<Vec<_>>().join(" ");
    let text = unnumbered(line.trim_start_matches(['-', '*', '•', '–', '#', ' '])).trim_start();
    const QUOTES: [(char, char); 4] = [('"', '"'), ('\'', '\''), ('“', '”'), ('«', '»')];
    let unquoted = QUOTES.iter().find_map(|(open, close)| {
        // A JSON list has a comma after the quote.
        text.strip_prefix(*open)?.trim_end_matches(',').strip_suffix(*close)
    });
    unquoted.unwrap_or(text).trim().to_owned()
}

/// Returns a line without a `3. `, `3) `, `(3) ` or `3: ` before it. A description may itself begin with a number.
fn unnumbered(line: &str) -> &str {
    let open = line.strip_prefix('(').unwrap_or(line);
    let rest = open.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = open.len() - rest.len();
    let marked = rest.strip_prefix(['.', ')', ':']).filter(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    if (1..=3).contains(&digits) { marked.unwrap_or(line) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(count: usize) -> Request {
        Request { class_name: "panthera onca".into(), subject: "jaguar".into(), count, min_words: 4 }
    }

    #[test]
    fn list_marks_and_quotes_are_removed() {
        let marked = [
            "1. a jaguar at dawn",
            " 10) a jaguar at dawn ",
            "(3) a jaguar at dawn",
            "2: a  jaguar\tat dawn",
            "- a jaguar at dawn",
            "* **a jaguar** at dawn",
            "• “a jaguar at dawn”",
            "\"a jaguar at dawn\",",
            "4. 'a jaguar at dawn'",
            "5.a jaguar at dawn",
        ];
        for line in marked {
            assert_eq!(bare(line), "a jaguar at dawn", "{line}");
        }
        for line in
            ["3 jaguars at dawn", "2.5 metres of jaguar", "1984: a jaguar", "the jaguar's \"den\"", "(a) jaguar"]
        {
            assert_eq!(bare(line), line);
        }
        assert_eq!(bare("```json"), "```json");
        assert_eq!(without_reasoning("<think>a\nb</think>\nc"), "\nc");
    }

    #[test]
    fn enough_good_lines_are_enough() {
        let request = request(2);
        let mut gathered = Gathered::new(&request);
        let answer = "Sure! Here are two scenes of a jaguar, as you asked:\n\n1. A jaguar at dawn\n\n2. A jaguar by night\n\
                      3. A jaguar nobody wants";
        assert_eq!(gathered.add(answer, false), None);
        assert_eq!(gathered.into_descriptions(), ["A jaguar at dawn", "A jaguar by night"]);
    }

    #[test]
    fn unusable_lines_are_reported_and_good_ones_are_kept() {
        let request = request(3);
        let mut gathered = Gathered::new(&request);
        let long = format!("a jaguar and {}", "x ".repeat(MAX_CHARS));
        let answer =
            format!("a jaguar\nA jaguar at dawn\na  JAGUAR at Dawn\na jaguar at\u{1b} night\n{long}\nA jaguar by");
        let said = gathered.add(&answer, false).unwrap();
        assert_eq!(
            said,
            "1 of 3 descriptions are usable; unusable lines: 2 with fewer than 4 words, 1 with more than 2000 \
             characters, 1 repeating an earlier one, 1 with control characters"
        );
        assert!(gathered.again(&said).contains("Write 2 more"));
        assert_eq!(gathered.add("", false).unwrap(), "1 of 3 descriptions are usable");
        // The last line of a truncated response may lack its end.
        assert!(gathered.add("a jaguar by night\na jaguar that drinks", true).is_some());
        assert_eq!(gathered.add("a jaguar that drinks there", false), None);
        assert_eq!(
            gathered.into_descriptions(),
            ["A jaguar at dawn", "a jaguar by night", "a jaguar that drinks there"]
        );
    }

    #[test]
    fn the_digest_identifies_the_request() {
        let digest = request(2).digest();
        assert_eq!(digest, request(2).digest());
        assert_ne!(digest, request(3).digest());
        assert_ne!(digest, Request { subject: "puma".into(), ..request(2) }.digest());
        let text = request(2).text();
        assert!(text.contains("Describe 2 scenes") && text.contains("at least 4 words") && text.contains("jaguar"));
        assert!(!text.contains("  ") && !text.contains("panthera"), "{text}");
    }
}
