//! Prompt templates: strings with the placeholders `{class}` and `{description}`.

use super::{
    document::{Node, Value},
    strings::FILLED_LINE,
    value_types::{ValueType, refuse},
};
use crate::error::{diagnostics::Problems, text};

/// A prompt template that may have these placeholders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Template(pub(super) &'static [&'static str]);

impl ValueType for Template {
    type Value = String;

    fn expected(&self) -> String {
        match self.0 {
            [only] => format!("a prompt (a string that may contain `{only}`)"),
            several => format!("a prompt (a string that may contain {})", text::list(several, "and")),
        }
    }

    fn read(&self, key: &str, node: &Node, problems: &mut Problems) -> Option<String> {
        let Value::String(_) = &node.value else {
            refuse(&self.expected(), key, node, problems);
            return None;
        };
        let template = FILLED_LINE.read(key, node, problems)?;
        let before = problems.count();
        for placeholder in placeholders(&template) {
            match placeholder {
                Ok(name) if self.0.contains(&format!("{{{name}}}").as_str()) => {}
                Ok(name) => self.refuse_unknown(name, key, node, problems),
                Err(found) => {
                    let message = format!("found {found}, expected braces in pairs, as in `{{class}}`");
                    problems.add(Some(node.place), key, message);
                }
            }
        }
        (problems.count() == before).then_some(template)
    }

    fn literal(&self, value: &String) -> String {
        FILLED_LINE.literal(value)
    }
}

impl Template {
    fn refuse_unknown(&self, name: &str, key: &str, node: &Node, problems: &mut Problems) {
        let found = text::shorten(name);
        let message = format!("found the placeholder `{{{found}}}`, expected {}", text::one_of(self.0));
        let help = match self.0 {
            [_] => None,
            several => text::similar(&format!("{{{name}}}"), several),
        };
        let help = help.map(|meant| format!("did you mean `{meant}`?"));
        problems.add_with_help(Some(node.place), key, message, help);
    }
}

/// Whether the template has this placeholder.
pub(super) fn has_placeholder(template: &str, name: &str) -> bool {
    placeholders(template).contains(&Ok(name))
}

/// The names between braces in their order. The last may be an error: a brace without its partner.
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
