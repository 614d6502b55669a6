//! Prompt templates: text with `{class}` and, where there are any, `{description}`.

use super::document::{Node, Value};
use super::strings::FILLED_LINE;
use super::values::Kind;
use crate::error::diagnostics::Problems;
use crate::error::text;

/// A prompt template with these placeholders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Template {
    pub(super) placeholders: &'static [&'static str],
}

impl Kind for Template {
    type Out = String;

    fn expected(&self) -> String {
        "a string with a prompt".to_owned()
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<String> {
        let Value::String(_) = &node.value else {
            let message = format!("found {}, expected {}", node.value.describe(), self.expected());
            problems.add(Some(node.place), key, message);
            return None;
        };
        let template = FILLED_LINE.read(key, node, problems)?;
        let before = problems.count();
        for placeholder in placeholders(&template) {
            match placeholder {
                Ok(name) if self.placeholders.contains(&format!("{{{name}}}").as_str()) => {}
                Ok(name) => self.unknown(name, key, node, problems),
                Err(at) => {
                    let message = format!("found {at}, expected braces in pairs, as in `{{class}}`");
                    problems.add(Some(node.place), key, message);
                }
            }
        }
        (problems.count() == before).then_some(template)
    }
}

impl Template {
    fn unknown(&self, name: &str, key: &str, node: &Node, problems: &mut Problems) {
        let are = if self.placeholders.len() == 1 { "allowed is" } else { "allowed are" };
        let allowed = text::choices(self.placeholders);
        let found = text::shorten(name);
        let message = format!("found the placeholder `{{{found}}}`, {are} {allowed}");
        let help = match self.placeholders {
            [_] => None,
            several => text::similar(&format!("{{{name}}}"), several),
        };
        let help = help.map(|meant| format!("did you mean `{meant}`?"));
        problems.add_with_help(Some(node.place), key, message, help);
    }
}

/// Whether the template asks for this placeholder.
pub(super) fn asks_for(template: &str, name: &str) -> bool {
    placeholders(template).contains(&Ok(name))
}

/// The names between braces in their order; the last may be a brace without its partner.
fn placeholders(template: &str) -> Vec<Result<&str, &'static str>> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (_, braced) = rest.split_at(at);
        let Some(inner) = braced.strip_prefix('{') else {
            found.push(Err("a `}` without a `{`"));
            return found;
        };
        let Some((name, after)) = inner.split_once('}').filter(|(name, _)| !name.contains('{')) else {
            found.push(Err("a `{` without a `}`"));
            return found;
        };
        found.push(Ok(name));
        rest = after;
    }
    found
}
