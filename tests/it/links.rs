//! Every link of the documentation within the repository leads to a file, and to a heading if it names one.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{support::root, tidy::files};

/// Targets of the Markdown links in a text.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchors of a page's headings, as GitHub names them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let mut in_code = false;
    let headings = text.lines().filter(|line| {
        in_code ^= line.starts_with("```");
        !in_code && line.starts_with('#')
    });
    let anchor = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let folders = ["docs", "benches", "examples", "fuzz", "tests", "models", "data"];
    let pages = folders.iter().flat_map(|folder| files(folder, "md"));
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root().join(page));
    let (mut broken, mut seen) = (Vec::new(), 0);
    for page in pages.chain(top) {
        let text = fs::read_to_string(&page).unwrap();
        for target in targets(&text).filter(|target| !target.contains("://") && !target.starts_with("mailto:")) {
            seen += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let linked = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let leads_there = linked.exists() && (anchor.is_empty() || anchors(&linked).contains(anchor));
            if !leads_there {
                broken.push(format!("{}: `{target}`", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} links were found: this test reads nothing");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}
