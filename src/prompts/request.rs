//! What a model is asked for, and what of its answer can be used.

use std::collections::BTreeSet;

use crate::identity::Digest;

/// Longest text, in characters: what follows is beyond every text encoder.
const LONGEST: usize = 2000;

/// Texts of one class.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The class, as in `images`.
    pub(super) class_name: String,
    /// What it is called in prompts.
    pub(super) subject: String,
    /// How many texts.
    pub(super) texts: usize,
    /// Words that a text has at least.
    pub(super) least_words: usize,
}

impl Request {
    /// The message to the model: the only place where the request is worded.
    pub(super) fn text(&self) -> String {
        let Self { subject, texts, least_words, .. } = self;
        format!(
            "I make photos with Stable Diffusion and need prompts. The subject is: {subject}.\n\
             Describe {texts} scenes, each of which one realistic photo could show. The {subject} is the only subject \
             of every scene: no other animal, person or thing competes with it. No two scenes are alike: they differ \
             in place, light, weather, distance, angle and in what the subject does or how it lies there.\n\
             Every description is one line, names the {subject}, says only what can be seen, and has at least \
             {least_words} words. Answer with these {texts} lines alone: no numbers, no headings, no remarks."
        )
    }

    /// Names what is asked, with whatever may change the answer but the model.
    pub(super) fn digest(&self) -> String {
        Digest::new("prompts").text(&self.text()).id()
    }
}

/// The usable texts of the answers so far.
#[derive(Debug)]
pub(super) struct Gathered<'a> {
    request: &'a Request,
    texts: Vec<String>,
    /// The same, as they are compared.
    seen: BTreeSet<String>,
}

/// Lines of an answer that cannot be used.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unusable {
    short: usize,
    long: usize,
    twice: usize,
    control: usize,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(request: &'a Request) -> Self {
        Self { request, texts: Vec::new(), seen: BTreeSet::new() }
    }

    /// Takes the lines of an answer that can be used, and no more than are asked for; the last line is left out where
    /// the answer was cut off. Gives what is wrong with the others where texts are still lacking.
    pub(super) fn take(&mut self, answer: &str, cut_off: bool) -> Option<String> {
        let mut lines: Vec<&str> = answer.lines().collect();
        if cut_off {
            lines.pop();
        }
        let mut unusable = Unusable::default();
        for text in lines.into_iter().map(bare).filter(|text| !text.is_empty() && !text.ends_with(':')) {
            if self.texts.len() < self.request.texts {
                self.judge(text, &mut unusable);
            }
        }
        (self.texts.len() < self.request.texts).then(|| self.complaint(&unusable))
    }

    fn judge(&mut self, text: String, unusable: &mut Unusable) {
        if text.contains(char::is_control) {
            unusable.control += 1;
        } else if text.chars().count() > LONGEST {
            unusable.long += 1;
        } else if text.split(' ').count() < self.request.least_words {
            unusable.short += 1;
        } else if self.seen.insert(text.to_lowercase().replace(' ', "")) {
            self.texts.push(text);
        } else {
            unusable.twice += 1;
        }
    }

    fn complaint(&self, unusable: &Unusable) -> String {
        let Unusable { short, long, twice, control } = unusable;
        let (words, texts) = (self.request.least_words, self.request.texts);
        let said = [
            (*short, format!("with fewer than {words} words")),
            (*long, format!("with more than {LONGEST} characters")),
            (*twice, "that repeat an earlier one".to_owned()),
            (*control, "with control characters".to_owned()),
        ];
        let said: Vec<String> =
            said.into_iter().filter(|(lines, _)| *lines > 0).map(|(lines, why)| format!("{lines} {why}")).collect();
        let said = if said.is_empty() { String::new() } else { format!("; left out are lines {}", said.join(", ")) };
        format!("{} of {texts} descriptions can be used{said}", self.texts.len())
    }

    /// The message that asks for the rest.
    pub(super) fn again(&self, complaint: &str) -> String {
        let lacking = self.request.texts - self.texts.len();
        format!(
            "Of your answers {complaint}. Write {lacking} more by the same rules, each a single line of at least {} \
             words and different from all earlier ones, and nothing else.",
            self.request.least_words
        )
    }

    pub(super) fn into_texts(self) -> Vec<String> {
        self.texts
    }
}

/// What a model says after it has thought, where its thoughts are in the answer.
pub(super) fn spoken(answer: &str) -> &str {
    answer.rsplit_once("</think>").map_or(answer, |(_, spoken)| spoken)
}

/// A line without list marks, emphasis and quotes, its words one space apart.
fn bare(line: &str) -> String {
    let line = line.replace("**", "").split_whitespace().collect::<Vec<_>>().join(" ");
    let text = unnumbered(line.trim_start_matches(['-', '*', '•', '–', '#', ' '])).trim_start();
    const QUOTES: [(char, char); 4] = [('"', '"'), ('\'', '\''), ('“', '”'), ('«', '»')];
    let unquoted = QUOTES.iter().find_map(|(open, close)| {
        // a list of JSON has a comma after the quote
        text.strip_prefix(*open)?.trim_end_matches(',').strip_suffix(*close)
    });
    unquoted.unwrap_or(text).trim().to_owned()
}

/// A line without `3. `, `3) `, `(3) ` or `3: ` before it; a line may begin with a number of its own.
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

    fn request(texts: usize) -> Request {
        Request { class_name: "panthera onca".into(), subject: "jaguar".into(), texts, least_words: 4 }
    }

    #[test]
    fn list_marks_and_quotes_are_no_part_of_a_text() {
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
        assert_eq!(spoken("<think>a\nb</think>\nc"), "\nc");
    }

    #[test]
    fn enough_good_lines_are_enough() {
        let request = request(2);
        let mut gathered = Gathered::new(&request);
        let answer = "Sure! Here are two scenes of a jaguar, as you asked:\n\n1. A jaguar at dawn\n\n2. A jaguar by night\n\
                      3. A jaguar nobody wants";
        assert_eq!(gathered.take(answer, false), None);
        assert_eq!(gathered.into_texts(), ["A jaguar at dawn", "A jaguar by night"]);
    }

    #[test]
    fn what_is_wrong_is_said_and_what_is_good_is_kept() {
        let request = request(3);
        let mut gathered = Gathered::new(&request);
        let long = format!("a jaguar and {}", "x ".repeat(LONGEST));
        let answer =
            format!("a jaguar\nA jaguar at dawn\na  JAGUAR at Dawn\na jaguar at\u{1b} night\n{long}\nA jaguar by");
        let said = gathered.take(&answer, false).unwrap();
        assert_eq!(
            said,
            "1 of 3 descriptions can be used; left out are lines 2 with fewer than 4 words, 1 with more than 2000 \
             characters, 1 that repeat an earlier one, 1 with control characters"
        );
        assert!(gathered.again(&said).contains("Write 2 more"));
        assert_eq!(gathered.take("", false).unwrap(), "1 of 3 descriptions can be used");
        // the last line of an answer that was cut off may lack its end
        assert!(gathered.take("a jaguar by night\na jaguar that drinks", true).is_some());
        assert_eq!(gathered.take("a jaguar that drinks there", false), None);
        assert_eq!(gathered.into_texts(), ["A jaguar at dawn", "a jaguar by night", "a jaguar that drinks there"]);
    }

    #[test]
    fn the_digest_names_what_is_asked() {
        let digest = request(2).digest();
        assert_eq!(digest, request(2).digest());
        assert_ne!(digest, request(3).digest());
        assert_ne!(digest, Request { subject: "puma".into(), ..request(2) }.digest());
        let text = request(2).text();
        assert!(text.contains("Describe 2 scenes") && text.contains("at least 4 words") && text.contains("jaguar"));
        assert!(!text.contains("  ") && !text.contains("panthera"), "{text}");
    }
}
