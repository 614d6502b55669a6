//! The queries that do not fill a table but that the program reads itself, and the columns that it expects of them. Like
//! all queries they can be replaced, and a replacement with other columns is an error before any work.

use arrow::datatypes::DataType;

use super::catalogue::Parameter;
use crate::schema;

/// A query whose rows the program reads.
#[derive(Debug)]
pub(crate) struct View {
    /// Its path under `sql/`.
    pub(crate) name: &'static str,
    /// The columns that are read, with their types.
    pub(crate) columns: Vec<(&'static str, DataType)>,
    /// Tables that exist only while the query runs, each with the table or the query whose columns it has.
    pub(crate) reads: Vec<(&'static str, Columns)>,
    /// Parameters that the program sets in addition to the pipeline's, with values for planning.
    pub(crate) parameters: Vec<(&'static str, Parameter)>,
}

/// Where the columns of a temporary table come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Columns {
    /// Those of a built-in table.
    Of(&'static str),
    /// Those that the query at this path returns.
    OfQuery(&'static str),
}

const TEXT: DataType = DataType::Utf8;
const INTEGER: DataType = DataType::Int64;
const NUMBER: DataType = DataType::Float64;

/// Returns every query that the program reads.
pub(crate) fn views() -> Vec<View> {
    let findings = || vec![("table_name", TEXT), ("problem", TEXT), ("rows", INTEGER)];
    let export_rows = || vec![("export_rows", Columns::OfQuery("export/manifest.sql"))];
    let image = schema::image_type;
    let view = |name, columns| View { name, columns, reads: Vec::new(), parameters: Vec::new() };
    vec![
        view("verify/rows.sql", findings()),
        view("verify/deep.sql", findings()),
        View { reads: vec![("file", Columns::Of(schema::FEEDBACK))], ..view("feedback/incoming.sql", feedback()) },
        View {
            reads: vec![("incoming", Columns::Of(schema::FEEDBACK))],
            ..view("feedback/problems.sql", vec![("problem", TEXT), ("rows", INTEGER)])
        },
        view(
            "feedback/awaited.sql",
            vec![
                ("trial", TEXT),
                ("epoch", INTEGER),
                ("before", DataType::Boolean),
                ("after", DataType::Boolean),
                ("stale", DataType::Boolean),
            ],
        ),
        view("expect/epochs.sql", vec![("epoch", INTEGER), ("image_guidance", INTEGER)]),
        view("expect/validation.sql", Vec::new()),
        view(
            "report/levels.sql",
            vec![
                ("class_name", TEXT),
                ("image_guidance", INTEGER),
                ("kept", DataType::Boolean),
                ("text_similarity", NUMBER),
                ("image_similarity", NUMBER),
            ],
        ),
        view("report/contact_sheet.sql", vec![("source_id", TEXT), ("image_guidance", INTEGER), ("image", image())]),
        view("report/rate.sql", vec![("unet_evaluations", NUMBER), ("seconds", NUMBER)]),
        view(
            "report/census.sql",
            vec![("split", TEXT), ("label", INTEGER), ("class_name", TEXT), ("images", INTEGER), ("rejects", INTEGER)],
        ),
        view("report/shares.sql", vec![("hard", INTEGER), ("non_hard", INTEGER)]),
        view("report/repeats.sql", vec![("epoch", INTEGER), ("repeats", INTEGER)]),
        view(
            "report/slots.sql",
            vec![
                ("class_name", TEXT),
                ("image_guidance", INTEGER),
                ("slots", INTEGER),
                ("kept", INTEGER),
                ("text_similarity", NUMBER),
            ],
        ),
        view(
            "report/forecast.sql",
            vec![
                ("step", TEXT),
                ("rows", INTEGER),
                ("rows_at_most", INTEGER),
                ("unet_evaluations", INTEGER),
                ("unet_evaluations_at_most", INTEGER),
            ],
        ),
        View { parameters: export_parameters(), ..view("export/manifest.sql", manifest()) },
        View {
            reads: export_rows(),
            parameters: export_parameters(),
            ..view(
                "export/epochs.sql",
                vec![("curriculum", TEXT), ("trial", TEXT), ("epoch", INTEGER), ("rows", INTEGER)],
            )
        },
        View {
            reads: export_rows(),
            parameters: export_parameters(),
            ..view(
                "export/problems.sql",
                vec![
                    ("epoch", INTEGER),
                    ("position", INTEGER),
                    ("sample_id", TEXT),
                    ("images", INTEGER),
                    ("total", INTEGER),
                ],
            )
        },
        view("export/classes.sql", vec![("label", INTEGER), ("class_name", TEXT)]),
        view("export/images.sql", vec![("image_id", TEXT), ("image", image())]),
        view("experiment/images.sql", vec![("image_id", TEXT), ("image", image())]),
        view(
            "experiment/samples.sql",
            vec![
                ("sample_id", TEXT),
                ("image_id", TEXT),
                ("label", INTEGER),
                ("split", TEXT),
                ("image_guidance", INTEGER),
                ("trained", DataType::Boolean),
            ],
        ),
        view("experiment/validation.sql", vec![("sample_id", TEXT)]),
    ]
}

/// Returns the columns of a trainer's feedback, with an id for each row.
fn feedback() -> Vec<(&'static str, DataType)> {
    vec![
        ("feedback_id", TEXT),
        ("curriculum", TEXT),
        ("trial", TEXT),
        ("epoch", INTEGER),
        ("phase", TEXT),
        ("sample_id", TEXT),
        ("probability", NUMBER),
    ]
}

/// Returns the columns of an exported row.
fn manifest() -> Vec<(&'static str, DataType)> {
    let texts = ["curriculum", "trial", "sample_id", "source_id", "class_name", "origin", "image_id", "path"];
    let integers = ["epoch", "position", "label", "image_guidance", "seed", "attempt", "images"];
    let more = ["prompt", "filter_prompt", "common_name"];
    let columns = texts.iter().chain(&more).map(|name| (*name, TEXT)).chain(integers.map(|name| (name, INTEGER)));
    columns.chain([("captions", schema::texts())]).collect()
}

fn export_parameters() -> Vec<(&'static str, Parameter)> {
    vec![
        ("first_epoch", Parameter::Integer(0)),
        ("last_epoch", Parameter::Integer(0)),
        ("curriculum", Parameter::Text(String::new())),
        ("trial", Parameter::Text(String::new())),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::catalogue::Catalogue;

    #[test]
    fn every_query_outside_of_steps_has_its_columns_declared() {
        let catalogue = Catalogue::load(None, &[]).unwrap();
        let declared: BTreeSet<&str> = views().iter().map(|view| view.name).collect();
        let fills_a_table = |name: &str| {
            let folder = name.split('/').next().unwrap();
            schema::step_tables().any(|table| table.name == folder)
        };
        let undeclared: Vec<&str> =
            catalogue.names().filter(|name| !fills_a_table(name) && !declared.contains(name)).collect();
        assert!(undeclared.is_empty(), "{undeclared:?}");
    }
}
