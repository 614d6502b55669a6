//! The catalogue of `sql/**`: the queries that make every decision. They are embedded in the binary, and a pipeline
//! replaces one with a file at the same relative path.
//!
//! A query is one `SELECT`. Its parameters are `$name` placeholders, which are replaced in the parsed tree and never in
//! the text. The tables, functions and parameters of a query come from the tree too, so that a step's inputs and its
//! fingerprint follow from its SQL.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    ops::ControlFlow,
    path::Path,
};

use datafusion::sql::sqlparser::{
    ast::{
        Array, Expr, Ident, ObjectName, Query as Ast, SetExpr, Statement, UnaryOperator, Value, ValueWithSpan, Visit,
        Visitor, visit_expressions, visit_expressions_mut, visit_relations,
    },
    dialect::GenericDialect,
    parser::Parser,
    tokenizer::{Span, Token, Tokenizer},
};

pub(crate) use crate::config::Parameter;

use crate::{
    error::{Error, Result, text},
    identity::Digest,
    limited_read,
};

/// The built-in files, by their path under `sql/`.
const BUILT_IN: &[(&str, &str)] = &[
    ("pixels/embed.sql", include_str!("../../../sql/pixels/embed.sql")),
    ("pixels/reference.sql", include_str!("../../../sql/pixels/reference.sql")),
    ("images/all.sql", include_str!("../../../sql/images/all.sql")),
    ("classes/all.sql", include_str!("../../../sql/classes/all.sql")),
    ("hard_samples/few_shot.sql", include_str!("../../../sql/hard_samples/few_shot.sql")),
    ("hard_samples/classifier.sql", include_str!("../../../sql/hard_samples/classifier.sql")),
    ("hard_samples/low_confidence.sql", include_str!("../../../sql/hard_samples/low_confidence.sql")),
    ("candidates/spectrum.sql", include_str!("../../../sql/candidates/spectrum.sql")),
    ("spectrum/img2img.sql", include_str!("../../../sql/spectrum/img2img.sql")),
    ("scores/clip.sql", include_str!("../../../sql/scores/clip.sql")),
    ("kept/text_similarity.sql", include_str!("../../../sql/kept/text_similarity.sql")),
    ("validation/spectrum.sql", include_str!("../../../sql/validation/spectrum.sql")),
    ("probe/real.sql", include_str!("../../../sql/probe/real.sql")),
    ("progress/gain.sql", include_str!("../../../sql/progress/gain.sql")),
    ("feedback/incoming.sql", include_str!("../../../sql/feedback/incoming.sql")),
    ("feedback/problems.sql", include_str!("../../../sql/feedback/problems.sql")),
    ("schedule/adaptive.sql", include_str!("../../../sql/schedule/adaptive.sql")),
    ("schedule/adaptive_by_class.sql", include_str!("../../../sql/schedule/adaptive_by_class.sql")),
    ("schedule/all_levels.sql", include_str!("../../../sql/schedule/all_levels.sql")),
    ("schedule/diverse_to_specific.sql", include_str!("../../../sql/schedule/diverse_to_specific.sql")),
    ("schedule/fixed.sql", include_str!("../../../sql/schedule/fixed.sql")),
    ("schedule/least_gain.sql", include_str!("../../../sql/schedule/least_gain.sql")),
    ("schedule/random.sql", include_str!("../../../sql/schedule/random.sql")),
    ("schedule/random_choice.sql", include_str!("../../../sql/schedule/random_choice.sql")),
    ("schedule/real_only.sql", include_str!("../../../sql/schedule/real_only.sql")),
    ("schedule/recursive.sql", include_str!("../../../sql/schedule/recursive.sql")),
    ("schedule/shrink.sql", include_str!("../../../sql/schedule/shrink.sql")),
    ("schedule/specific_to_diverse.sql", include_str!("../../../sql/schedule/specific_to_diverse.sql")),
    ("schedule/text_only.sql", include_str!("../../../sql/schedule/text_only.sql")),
    ("manifest/low_quality.sql", include_str!("../../../sql/manifest/low_quality.sql")),
    ("manifest/mixed.sql", include_str!("../../../sql/manifest/mixed.sql")),
    ("experiment/images.sql", include_str!("../../../sql/experiment/images.sql")),
    ("experiment/samples.sql", include_str!("../../../sql/experiment/samples.sql")),
    ("experiment/validation.sql", include_str!("../../../sql/experiment/validation.sql")),
    ("expect/epochs.sql", include_str!("../../../sql/expect/epochs.sql")),
    ("expect/validation.sql", include_str!("../../../sql/expect/validation.sql")),
    ("export/classes.sql", include_str!("../../../sql/export/classes.sql")),
    ("export/epochs.sql", include_str!("../../../sql/export/epochs.sql")),
    ("export/manifest.sql", include_str!("../../../sql/export/manifest.sql")),
    ("export/images.sql", include_str!("../../../sql/export/images.sql")),
    ("export/problems.sql", include_str!("../../../sql/export/problems.sql")),
    ("report/levels.sql", include_str!("../../../sql/report/levels.sql")),
    ("feedback/awaited.sql", include_str!("../../../sql/feedback/awaited.sql")),
    ("report/rate.sql", include_str!("../../../sql/report/rate.sql")),
    ("report/census.sql", include_str!("../../../sql/report/census.sql")),
    ("report/shares.sql", include_str!("../../../sql/report/shares.sql")),
    ("report/slots.sql", include_str!("../../../sql/report/slots.sql")),
    ("report/repeats.sql", include_str!("../../../sql/report/repeats.sql")),
    ("report/forecast.sql", include_str!("../../../sql/report/forecast.sql")),
    ("verify/deep.sql", include_str!("../../../sql/verify/deep.sql")),
    ("verify/rows.sql", include_str!("../../../sql/verify/rows.sql")),
    ("report/contact_sheet.sql", include_str!("../../../sql/report/contact_sheet.sql")),
];

/// The largest file of `sql_dir`, in bytes. The largest built-in query has a few KiB.
const MAX_SQL_BYTES: u64 = 1 << 20;

fn list(values: impl Iterator<Item = Parameter>) -> Expr {
    Expr::Array(Array { elem: values.map(|value| value.expression()).collect(), named: false })
}

impl Parameter {
    fn expression(&self) -> Expr {
        match self {
            Self::Integer(value) => number(&value.unsigned_abs().to_string(), *value < 0),
            // The exponent makes DataFusion parse 10.0 as a floating-point number.
            Self::Float(value) => number(&format!("{:e}", value.abs()), value.is_sign_negative()),
            Self::Text(value) => literal(Value::SingleQuotedString(value.clone())),
            Self::Null => literal(Value::Null),
            Self::Boolean(value) => literal(Value::Boolean(*value)),
            Self::Integers(values) => list(values.iter().map(|value| Self::Integer(*value))),
            Self::Texts(values) => list(values.iter().map(|value| Self::Text(value.clone()))),
        }
    }
}

fn literal(value: Value) -> Expr {
    Expr::Value(ValueWithSpan { value, span: Span::empty() })
}

fn number(digits: &str, negative: bool) -> Expr {
    let value = literal(Value::Number(digits.to_owned(), false));
    if negative {
        return Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(value) }));
    }
    value
}

/// One parsed `SELECT`, with the tables, parameters and functions that it uses.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// The path under `sql/`, or the name in messages.
    pub(crate) name: String,
    /// The tables that it reads, except its CTEs.
    pub(crate) tables: BTreeSet<String>,
    /// The names of its `$name` placeholders.
    pub(crate) parameters: BTreeSet<String>,
    /// The functions that it calls, in lower case.
    pub(crate) functions: BTreeSet<String>,
    /// The names of its CTEs.
    pub(crate) defined: BTreeSet<String>,
    ast: Box<Ast>,
}

impl Query {
    /// Parses `text`, which must be exactly one statement that only reads.
    ///
    /// # Errors
    /// Returns an error if the text is not SQL, has several statements, or is not a `SELECT`.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self> {
        let fail = |message: String| Error::Query { query: name.into(), message };
        limit_chains(name, text)?;
        let mut statements = Parser::new(&GenericDialect {})
            .with_recursion_limit(64)
            .try_with_sql(text)
            .and_then(|mut parser| parser.parse_statements())
            .map_err(|error| {
                let text = error.to_string();
                fail(format!("not valid SQL: {}", text.strip_prefix("sql parser error: ").unwrap_or(&text)))
            })?;
        let ast = match (statements.pop(), statements.is_empty()) {
            (Some(Statement::Query(ast)), true) if ast.visit(&mut Writes).is_continue() => ast,
            (None, _) => return Err(fail("expected one SELECT, found nothing".into())),
            _ => return Err(fail("expected one SELECT that only reads".into())),
        };
        let mut query = Self {
            name: name.into(),
            tables: BTreeSet::new(),
            parameters: BTreeSet::new(),
            functions: BTreeSet::new(),
            defined: BTreeSet::new(),
            ast,
        };
        query.collect_tables();
        query.collect_expressions();
        Ok(query)
    }

    /// Ignores scopes: a CTE hides a table of the same name in the whole query. This is exact, because a step's query may
    /// not give a CTE the name of a table.
    fn collect_tables(&mut self) {
        let mut defined = Defined(BTreeSet::new());
        let _ = self.ast.visit(&mut defined);
        self.defined = defined.0;
        let mut tables = BTreeSet::new();
        let _ = visit_relations(&*self.ast, |name: &ObjectName| {
            tables.insert(last_name(name));
            ControlFlow::<()>::Continue(())
        });
        tables.retain(|name| !self.defined.contains(name) && !TABLE_FUNCTIONS.contains(&name.as_str()));
        self.tables = tables;
    }

    fn collect_expressions(&mut self) {
        let (mut parameters, mut functions) = (BTreeSet::new(), BTreeSet::new());
        let _ = visit_expressions(&*self.ast, |expression| {
            match expression {
                Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => {
                    parameters.insert(name.trim_start_matches('$').to_owned());
                }
                Expr::Function(function) => {
                    functions.insert(last_name(&function.name));
                }
                _ => {}
            }
            ControlFlow::<()>::Continue(())
        });
        (self.parameters, self.functions) = (parameters, functions);
    }

    /// Returns the statement with every placeholder replaced by its value.
    ///
    /// # Errors
    /// Returns an error that lists the known names if a placeholder has no value.
    pub(crate) fn bind(&self, values: &BTreeMap<String, Parameter>) -> Result<Statement> {
        let unknown: Vec<_> = self.parameters.iter().filter(|name| !values.contains_key(*name)).collect();
        if let Some(name) = unknown.first() {
            let known: Vec<_> = values.keys().map(|name| format!("`${name}`")).collect();
            return Err(Error::Query {
                query: self.name.clone(),
                message: format!("unknown parameter `${name}`; the parameters are {}", text::join(&known, "and")),
            });
        }
        let mut ast = self.ast.clone();
        let _ = visit_expressions_mut(&mut *ast, |expression| {
            if let Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) = expression
                && let Some(value) = values.get(name.trim_start_matches('$'))
            {
                *expression = value.expression();
            }
            ControlFlow::<()>::Continue(())
        });
        Ok(Statement::Query(ast))
    }

    /// Whether the query means what the one of this name that comes with the program does.
    pub(crate) fn is_built_in(&self) -> bool {
        let built_in = BUILT_IN.iter().find(|(name, _)| *name == self.name);
        built_in.and_then(|(name, text)| Self::parse(name, text).ok()).is_some_and(|query| query.ast == self.ast)
    }

    /// Returns a digest of the meaning of the query: comments, white space and the case of keywords do not change it.
    pub(crate) fn digest(&self) -> String {
        Digest::new("query").text(&self.ast.to_string()).id()
    }
}

/// Table functions, which the parser reports as tables.
const TABLE_FUNCTIONS: &[&str] = &["unnest", "generate_series", "range"];

/// The longest chain of operators without a comma, at one level of parentheses. In an unoptimized build each operator
/// takes 10 to 20 KiB of a thread's stack of 2 MiB.
const MAX_CHAIN: usize = 200;

/// Operators that are words, including those between queries.
const OPERATORS: &[&str] =
    &["AND", "OR", "UNION", "EXCEPT", "INTERSECT", "MINUS", "IS", "IN", "LIKE", "ILIKE", "BETWEEN", "COLLATE", "AT"];

/// Rejects long chains such as `1 + 1 + 1 …`. The parser turns a chain of thousands into a tree of that depth, and
/// whatever walks or drops the tree overflows the stack. The parser's own limit covers parentheses alone.
///
/// # Errors
/// Returns an error if a chain has more than [`MAX_CHAIN`] operators. Text that is not SQL is left to the parser.
pub(crate) fn limit_chains(name: &str, text: &str) -> Result<()> {
    let mut levels = vec![0];
    for token in Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default() {
        let deeper = match &token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                levels.push(0);
                continue;
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                // The parser rejects one that closes nothing. A closed group may itself be part of a chain.
                if levels.len() > 1 {
                    levels.pop();
                }
                true
            }
            Token::Word(word) => OPERATORS.iter().any(|known| word.value.eq_ignore_ascii_case(known)),
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => false,
            _ => true,
        };
        let Some(length) = levels.last_mut() else { continue };
        *length = if matches!(token, Token::Comma | Token::SemiColon) { 0 } else { *length + usize::from(deeper) };
        if *length > MAX_CHAIN {
            let message = format!(
                "an expression chains more than {MAX_CHAIN} operators without a comma\n\
                 hint: replace a chain of `OR` with a list such as `x IN (1, 2, 3)`, or with a table of values"
            );
            return Err(Error::Query { query: name.into(), message });
        }
    }
    Ok(())
}

/// Breaks at a query that writes: with `SELECT ... INTO`, or with a statement in place of a SELECT.
struct Writes;

impl Visitor for Writes {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Ast) -> ControlFlow<()> {
        // The operands of UNION and the like. A query in parentheses gets its own visit.
        let mut pending = vec![&*query.body];
        while let Some(body) = pending.pop() {
            match body {
                SetExpr::Select(select) if select.into.is_none() => {}
                SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => {}
                SetExpr::SetOperation { left, right, .. } => pending.extend([&**left, &**right]),
                _ => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }
}

/// Collects the names of CTEs, including those in subqueries.
struct Defined(BTreeSet<String>);

impl Visitor for Defined {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Ast) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0.extend(ctes.map(|cte| normalize(&cte.alias.name)));
        ControlFlow::Continue(())
    }
}

/// Returns the last part of a name as DataFusion looks it up.
fn last_name(name: &ObjectName) -> String {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.map_or_else(|| name.to_string(), normalize)
}

/// Returns the name in lower case, unless it is quoted.
fn normalize(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// The built-in queries, with the pipeline's replacements and additions.
#[derive(Debug, Clone)]
pub(crate) struct Catalogue(BTreeMap<String, Query>);

impl Catalogue {
    /// Loads the built-in files and those of `folder`. Each file of the folder must replace a built-in one or be in
    /// `named`, the paths that the pipeline names.
    ///
    /// # Errors
    /// Returns an error if a file is unreadable, is not a query, or is neither a replacement nor named by the pipeline.
    pub(crate) fn load(folder: Option<&Path>, named: &[&str]) -> Result<Self> {
        let mut queries = BTreeMap::new();
        for (name, text) in BUILT_IN {
            queries.insert((*name).to_owned(), Query::parse(name, text)?);
        }
        for (name, text) in folder.map(read_folder).transpose()?.unwrap_or_default() {
            if !queries.contains_key(&name) && !named.contains(&name.as_str()) {
                let known: Vec<&str> = queries.keys().map(String::as_str).collect();
                let hint = text::similar(&name, &known).map_or_else(
                    || format!("the built-in queries are {}", text::list(&known, "and")),
                    |similar| format!("did you mean `{similar}`?"),
                );
                let message =
                    format!("does not replace a built-in query, and the pipeline does not name it\nhint: {hint}");
                return Err(Error::Query { query: name, message });
            }
            queries.insert(name.clone(), Query::parse(&name, &text)?);
        }
        Ok(Self(queries))
    }

    /// Returns the paths of all queries.
    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the query at `name`.
    ///
    /// # Errors
    /// Returns an error if it does not exist. The message suggests a similar path and lists those of the same folder.
    pub(crate) fn get(&self, name: &str) -> Result<&Query> {
        self.0.get(name).ok_or_else(|| {
            let folder = name.split_once('/').map_or("", |(folder, _)| folder);
            let known: Vec<&str> =
                self.0.keys().map(String::as_str).filter(|key| key.starts_with(&format!("{folder}/"))).collect();
            let mut message = "this file does not exist".to_owned();
            if !known.is_empty() {
                message.push_str(&format!("; the files of `{folder}` are {}", text::list(&known, "and")));
            }
            message.push_str("\nhint: ");
            if let Some(similar) = text::similar(name, &known) {
                message.push_str(&format!("did you mean `{similar}`? "));
            }
            message.push_str("A new query belongs in the folder `sql_dir`");
            Error::Query { query: name.into(), message }
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{folder}`: cannot read the folder `sql_dir`")]
struct FolderError {
    folder: String,
    source: io::Error,
}

/// Reads every `*.sql` file below `folder`. Returns their relative paths, with `/` as separator, and their contents.
fn read_folder(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut pending = vec![(folder.to_path_buf(), String::new())];
    while let Some((directory, prefix)) = pending.pop() {
        let fail = |source: io::Error| Error::input(FolderError { folder: directory.display().to_string(), source });
        for entry in fs::read_dir(&directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.metadata().map_err(fail)?;
            if kind.is_dir() {
                pending.push((entry.path(), format!("{name}/")));
            } else if name.ends_with(".sql") {
                files.push((name.clone(), read_query(&entry.path(), &name)?));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read_query(path: &Path, name: &str) -> Result<String> {
    let fail =
        |error: io::Error| Error::Query { query: name.into(), message: format!("the file cannot be read: {error}") };
    limited_read::read_text(path, MAX_SQL_BYTES).map_err(fail)
}
