//! docs/results.md against the rows that it reports, docs/results/*.csv: every table, and every figure of the prose.
//!
//! A section with `<!-- rows: FILE -->` has its figures from that file, which `discl-pipe experiment --rows FILE` wrote.
//! Its tables stand between markers, and each figure of its prose is followed by a comment that says what it is, such as
//! `81.2<!-- few: text_only -->`. The arithmetic here is a second one, not that of the program.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::PathBuf,
};

use crate::support::root;

/// What the tables set in italics, and never in bold: it trains on what the diffusion model was trained on.
const REFERENCE: &str = "pretraining_images";

/// Student's 97.5 % points by degrees of freedom, from 1.
const QUANTILES: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/// The rows of an experiment.
struct Rows {
    /// In the order in which they were trained, the reference last.
    methods: Vec<String>,
    /// By method, metric, split and learner.
    values: BTreeMap<(String, String), BTreeMap<(i64, i64), f64>>,
    /// The level of each split, by method.
    fixed: BTreeMap<String, Vec<String>>,
    /// Gains, their standard errors and counts, by method, metric, epoch and level.
    stages: BTreeMap<(String, String, i64, i64), Vec<f64>>,
}

impl Rows {
    fn read(text: &str) -> Self {
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().unwrap().split(',').collect();
        let mut rows =
            Self { methods: Vec::new(), values: BTreeMap::new(), fixed: BTreeMap::new(), stages: BTreeMap::new() };
        for line in lines {
            let row: BTreeMap<&str, &str> = header.iter().copied().zip(line.split(',')).collect();
            assert_eq!(row["architecture"], "mlp", "the page has one network");
            let (method, metric) = (row["method"].to_owned(), row["metric"].to_owned());
            let number = |name: &str| row[name].parse::<i64>().unwrap();
            if metric == "level" {
                rows.fixed.entry(method).or_default().push(row["value"].to_owned());
            } else if !row["epoch"].is_empty() {
                let key = (method, metric, number("epoch"), number("image_guidance"));
                rows.stages.entry(key).or_default().push(row["value"].parse().unwrap());
            } else {
                if !rows.methods.contains(&method) {
                    rows.methods.push(method.clone());
                }
                let run = (number("split_seed"), number("learner_seed"));
                let old = rows.values.entry((method, metric)).or_default().insert(run, row["value"].parse().unwrap());
                assert_eq!(old, None, "two rows of one run: {line}");
            }
        }
        rows.methods.sort_by_key(|method| method == REFERENCE);
        rows
    }

    fn of(&self, method: &str, metric: &str) -> &BTreeMap<(i64, i64), f64> {
        let found = self.values.get(&(method.to_owned(), metric.to_owned()));
        found.unwrap_or_else(|| panic!("no rows of `{metric}: {method}`"))
    }

    fn mean(&self, method: &str, metric: &str) -> f64 {
        mean(self.of(method, metric).values().copied())
    }

    /// The mean difference, and how far its 95 % interval extends to each side.
    fn difference(&self, method: &str, other: &str, metric: &str) -> (f64, f64) {
        let (ours, theirs) = (self.of(method, metric), self.of(other, metric));
        assert!(ours.keys().eq(theirs.keys()), "{method} and {other} have different runs");
        let mut splits: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for (run, value) in ours {
            splits.entry(run.0).or_default().push(value - theirs[run]);
        }
        let means: Vec<f64> = splits.into_values().map(mean).collect();
        let error = deviation(&means) / (means.len() as f64).sqrt();
        (mean(means.iter().copied()), QUANTILES[means.len() - 2] * error)
    }

    /// Whether the interval against every other method excludes 0, on the better side.
    fn is_best(&self, method: &str, metric: &str) -> bool {
        let others = self.methods.iter().filter(|other| *other != method && *other != REFERENCE);
        let mut differences = others.map(|other| self.difference(method, other, metric));
        method != REFERENCE && differences.all(|(difference, half)| difference - half > 0.0)
    }

    fn name(&self, method: &str) -> String {
        match self.fixed.get(method) {
            Some(levels) => format!("{method} ({})", levels.join(", ")),
            None => method.to_owned(),
        }
    }
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values.iter().copied());
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

fn with_interval((difference, half): (f64, f64)) -> String {
    format!("{difference:+.1} [{:+.1}, {:+.1}]", difference - half, difference + half)
}

/// The lowest and the highest of some figures.
fn range(values: impl IntoIterator<Item = f64>, write: fn(f64) -> String) -> String {
    let values: Vec<f64> = values.into_iter().collect();
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &value| (low.min(value), high.max(value)));
    format!("{} to {}", write(low), write(high))
}

fn plain(value: f64) -> String {
    format!("{value:.1}")
}

fn signed(value: f64) -> String {
    format!("{value:+.1}")
}

/// A metric as the heads of tables name it.
fn title(metric: &str) -> String {
    let (shifted, metric) = metric.strip_prefix("shifted_").map_or(("", metric), |metric| ("shifted ", metric));
    let metric = match metric {
        "worst_k" => "worst 3",
        "macro_f1" => "macro-F1",
        other => other,
    };
    format!("{shifted}{metric}")
}

fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}

/// The table that a marker asks for.
fn table_of(rows: &Rows, marker: &str) -> Option<String> {
    let (kind, rest) = marker.split_once(": ")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let head = |first: &str, metrics: &[&str]| -> Vec<String> {
        std::iter::once(first.to_owned()).chain(metrics.iter().map(|metric| title(metric))).collect()
    };
    let styled = |method: &str, cells: Vec<String>| -> Vec<String> {
        cells.into_iter().map(|cell| if method == REFERENCE { format!("*{cell}*") } else { cell }).collect()
    };
    match kind {
        "means" => {
            let cell = |method: &String, metric: &&str| {
                let values: Vec<f64> = rows.of(method, metric).values().copied().collect();
                let text = format!("{:.1} ± {:.1}", mean(values.iter().copied()), deviation(&values));
                if rows.is_best(method, metric) { format!("**{text}**") } else { text }
            };
            let row = |method: &String| {
                let cells = std::iter::once(rows.name(method)).chain(words.iter().map(|metric| cell(method, metric)));
                styled(method, cells.collect())
            };
            Some(table(&head("method", &words), &rows.methods.iter().map(row).collect::<Vec<_>>()))
        }
        "differences" => {
            let (ours, metrics) = words.split_first()?;
            let row = |method: &String| {
                let cell = |metric: &&str| with_interval(rows.difference(ours, method, metric));
                let cells = std::iter::once(method.clone()).chain(metrics.iter().map(cell));
                styled(method, cells.collect())
            };
            let others = rows.methods.iter().filter(|method| method != ours);
            Some(table(&head(&format!("{ours} minus"), metrics), &others.map(row).collect::<Vec<_>>()))
        }
        "gains" => {
            let stages = rows.stages.iter().filter(|((method, metric, ..), _)| method == rest && metric == "gain");
            let places: BTreeSet<(i64, i64)> = stages.map(|((_, _, epoch, level), _)| (*epoch, *level)).collect();
            let [epochs, levels]: [BTreeSet<i64>; 2] =
                [places.iter().map(|place| place.0).collect(), places.iter().map(|place| place.1).collect()];
            let of =
                |metric: &str, epoch, level| rows.stages[&(rest.to_owned(), metric.to_owned(), epoch, level)].clone();
            let cell = |epoch: i64, level: i64| {
                let [gain, error] = ["gain", "standard_error"].map(|metric| mean(of(metric, epoch, level)));
                format!("{gain:+.4} ± {error:.4} ({})", of("chosen", epoch, level).iter().sum::<f64>())
            };
            let row = |epoch: &i64| {
                let cells = levels.iter().map(|level| cell(*epoch, *level));
                std::iter::once(epoch.to_string()).chain(cells).collect()
            };
            let head = std::iter::once("epoch".to_owned()).chain(levels.iter().map(i64::to_string)).collect::<Vec<_>>();
            Some(table(&head, &epochs.iter().map(row).collect::<Vec<_>>()))
        }
        _ => None,
    }
}

/// The figure that a comment describes:
///
/// - `few: A` is the mean of a method, `few: A minus B` a difference with its interval;
/// - `few: A, B, C` is the lowest and the highest of their means, `few: A minus B, C` of these differences, and
///   `few: halves of A minus B, C` of how far the intervals of these differences extend to each side;
/// - `chosen: 100 of A` is the share of a level in what an adaptive strategy trained on.
fn figure(rows: &Rows, marker: &str) -> Option<String> {
    let (metric, rest) = marker.split_once(": ")?;
    let list = |text: &str| -> Vec<String> { text.split(", ").map(str::to_owned).collect() };
    if metric == "chosen" {
        let (level, method) = rest.split_once(" of ")?;
        let chosen = rows.stages.iter().filter(|((of, metric, ..), _)| of == method && metric == "chosen");
        let (mut part, mut whole) = (0.0, 0.0);
        for ((_, _, _, of), counts) in chosen {
            let count: f64 = counts.iter().sum();
            whole += count;
            part += if of.to_string() == level { count } else { 0.0 };
        }
        return Some(format!("{:.0} %", 100.0 * part / whole));
    }
    if let Some((ours, others)) = rest.strip_prefix("halves of ").and_then(|rest| rest.split_once(" minus ")) {
        return Some(range(list(others).iter().map(|other| rows.difference(ours, other, metric).1), plain));
    }
    let Some((ours, others)) = rest.split_once(" minus ") else {
        return Some(match list(rest).as_slice() {
            [one] => plain(rows.mean(one, metric)),
            several => range(several.iter().map(|method| rows.mean(method, metric)), plain),
        });
    };
    Some(match list(others).as_slice() {
        [one] => with_interval(rows.difference(ours, one, metric)),
        several => range(several.iter().map(|other| rows.difference(ours, other, metric).0), signed),
    })
}

/// Where the figure at the end of `text` begins.
fn start_of_figure(text: &str) -> usize {
    let is_figure = |word: &str| word.chars().any(|c| c.is_ascii_digit() || c == '?' || c == '%');
    let mut start = text.len();
    loop {
        let before = text[..start].trim_end_matches([' ', '\n']);
        let word = before.rfind([' ', '\n', '(']).map_or(0, |place| place + 1);
        let between = &before[word..] == "to" && start < text.len();
        if before.is_empty() || before.ends_with('(') || !(between || is_figure(&before[word..])) {
            return start;
        }
        // A figure of the sentence before it, which has a separate comment.
        if before.ends_with("-->") {
            return start;
        }
        start = word;
    }
}

/// The prose with its figures as the rows give them, and what is left of it without these figures.
fn prose_of(rows: &Rows, prose: &str) -> (String, String) {
    let (mut out, mut left, mut rest) = (String::new(), String::new(), prose);
    while let Some((before, after)) = rest.split_once("<!-- ") {
        let (marker, after) = after.split_once(" -->").unwrap();
        let figure = figure(rows, marker).unwrap_or_else(|| panic!("`{marker}` is not a figure"));
        let before = &before[..start_of_figure(before)];
        let gap = if before.is_empty() || before.ends_with([' ', '\n', '(']) { "" } else { " " };
        write!(out, "{before}{gap}{figure}<!-- {marker} -->").unwrap();
        left += before;
        rest = after;
    }
    (out + rest, left + rest)
}

/// Figures that nothing checks.
fn unchecked(prose: &str) -> Vec<&str> {
    let is_figure = |word: &&str| {
        let number = word.trim_matches(|c: char| !c.is_ascii_digit());
        number.contains('.') && number.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    prose.split_whitespace().filter(is_figure).collect()
}

/// The page as its rows give it.
fn updated(page: &str) -> String {
    let mut out = String::new();
    for section in page.split_inclusive("\n## ") {
        let Some((before, after)) = section.split_once("<!-- rows: ") else {
            out += section;
            continue;
        };
        let (file, mut rest) = after.split_once(" -->").unwrap();
        let rows = Rows::read(&std::fs::read_to_string(folder().join(file)).unwrap());
        write!(out, "{before}<!-- rows: {file} -->").unwrap();
        let mut left = String::new();
        while let Some((place, marker)) = first_table(rest) {
            let (prose, after) = rest.split_at(place);
            let (prose, unread) = prose_of(&rows, prose);
            left += &unread;
            let table = table_of(&rows, marker).unwrap();
            write!(out, "{prose}<!-- {marker} -->\n\n{table}\n<!-- end -->").unwrap();
            rest = after.split_once("<!-- end -->").unwrap().1;
        }
        let (prose, unread) = prose_of(&rows, rest);
        left += &unread;
        assert_eq!(unchecked(&left), Vec::<&str>::new(), "figures of {file} that no comment checks");
        out += &prose;
    }
    out
}

/// Where the next table begins, and what it is to hold.
fn first_table(text: &str) -> Option<(usize, &str)> {
    let places = ["<!-- means: ", "<!-- differences: ", "<!-- gains: "].into_iter().filter_map(|kind| text.find(kind));
    let place = places.min()?;
    Some((place, text[place..].strip_prefix("<!-- ")?.split_once(" -->")?.0))
}

fn folder() -> PathBuf {
    root().join("docs/results")
}

#[test]
fn the_page_says_what_its_rows_say() {
    let path = root().join("docs/results.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let updated = updated(&page);
    for file in std::fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(page.contains(&format!("<!-- rows: {name} -->")), "docs/results.md does not report {name}");
    }
    if page != updated && std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, updated).unwrap();
        return;
    }
    let (old, new) = (page.lines().collect::<BTreeSet<_>>(), updated.lines().collect::<BTreeSet<_>>());
    let right: Vec<&str> = updated.lines().filter(|line| !old.contains(line)).collect();
    let wrong: Vec<&str> = page.lines().filter(|line| !new.contains(line)).collect();
    assert!(
        page == updated,
        "run `INSTA_UPDATE=always cargo test --test it results::`; wrong lines:\n{}\nright ones:\n{}",
        wrong.join("\n"),
        right.join("\n")
    );
}

/// Two splits of two learners each, in which `b` is better than `a` by 1 and 3, and `c` as good as `a`.
const ROWS: &str = "architecture,method,loss,sampling,split_seed,learner_seed,metric,epoch,image_guidance,value
mlp,a,x,plain,0,0,few,,,10
mlp,a,x,plain,0,1,few,,,20
mlp,a,x,plain,1,0,few,,,30
mlp,a,x,plain,1,1,few,,,40
mlp,b,x,plain,0,0,few,,,11
mlp,b,x,plain,0,1,few,,,21
mlp,b,x,plain,1,0,few,,,33
mlp,b,x,plain,1,1,few,,,43
mlp,c,x,plain,0,0,few,,,20
mlp,c,x,plain,0,1,few,,,10
mlp,c,x,plain,1,0,few,,,40
mlp,c,x,plain,1,1,few,,,30
mlp,b,,,0,,chosen,0,50,3
mlp,b,,,0,,chosen,0,100,1
";

#[test]
fn figures_of_the_prose_are_computed() {
    let rows = Rows::read(ROWS);
    let prose = "First ?<!-- few: a -->, then (?<!-- few: b minus a -->), 1 to 2<!-- few: a, b --> and\n\
                 9.9 to 9.9<!-- few: b minus a, c -->, ?<!-- few: halves of b minus a, c --> in 0 %<!-- chosen: 100 of b -->.";
    let expected = "First 25.0<!-- few: a -->, then (+2.0 [-10.7, +14.7]<!-- few: b minus a -->), 25.0 to \
                    27.0<!-- few: a, b --> and\n+2.0 to +2.0<!-- few: b minus a, c -->, 12.7 to 12.7<!-- few: halves of b \
                    minus a, c --> in 25 %<!-- chosen: 100 of b -->.";
    let (out, left) = prose_of(&rows, prose);
    assert_eq!(out, expected);
    assert_eq!(prose_of(&rows, &out).0, expected, "what is right stays");
    assert_eq!(unchecked(&left), Vec::<&str>::new());
    assert_eq!(unchecked("a gain of 3.5 points in 2 of 5 splits"), ["3.5"]);
}

#[test]
fn bold_is_what_is_better_than_every_other_method() {
    let rows = Rows::read(ROWS);
    assert!(!rows.is_best("b", "few"), "its interval has 0");
    let text = ROWS.replace(",33\n", ",31\n").replace(",43\n", ",41\n");
    let rows = Rows::read(&text);
    let table = table_of(&rows, "means: few").unwrap();
    assert!(table.contains("| b | **26.0 ± 12.9** |\n| c | 25.0 ± 12.9 |"), "{table}");
    let table = table_of(&rows, "differences: b few").unwrap();
    assert_eq!(table, "| b minus | few |\n|---|---|\n| a | +1.0 [+1.0, +1.0] |\n| c | +1.0 [+1.0, +1.0] |\n");
}
