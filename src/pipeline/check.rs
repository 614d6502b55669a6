//! Plans every query against empty tables: those of the steps, the expectations, and those that the program reads
//! itself. So a query that cannot be planned or has other columns is found before any work.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use crate::{
    error::{Error, Result},
    plan::{
        Plan,
        catalogue::Catalogue,
        views::{Columns, View, views},
    },
    schema::{self, Table, conform},
    session::{self, Session, Snapshot},
};

/// Plans the queries of `plan`, and those of `catalogue` that the program reads. Returns the plan with the columns of
/// its user-defined tables, and these tables.
///
/// # Errors
/// Returns every query that cannot be planned or has other columns than its reader expects.
pub(super) async fn queries(session: &Session, catalogue: &Catalogue, mut plan: Plan) -> Result<(Plan, Vec<Table>)> {
    let mut problems = Vec::new();
    let mut user_tables = Vec::new();
    let mut snapshot = session.empty()?;
    for step in &mut plan.steps {
        let context = session.context(&snapshot)?;
        let name = step.query.name.clone();
        match session::query(&context, &name, &step.statement).await {
            Err(error) => problems.push(error),
            Ok(rows) if step.table.schema.fields().is_empty() => {
                step.table.schema = Arc::new(stored(rows.schema().as_arrow()));
                snapshot.set(&step.table.name, Arc::clone(&step.table.schema), Vec::new())?;
                user_tables.push(step.table.clone());
            }
            Ok(rows) => {
                problems.extend(conform::check_schema(&name, rows.schema().as_arrow(), &step.table).err());
            }
        }
    }
    let context = session.context(&snapshot)?;
    for expectation in &plan.expectations {
        let name = format!("[[expect]] {}", expectation.name);
        problems.extend(session::query(&context, &name, &expectation.statement).await.err());
    }
    for view in views() {
        problems.extend(check_view(session, &snapshot, catalogue, &plan, &view).await.err());
    }
    if problems.is_empty() { Ok((plan, user_tables)) } else { Err(Error::Multiple(problems)) }
}

/// Plans a query that the program reads, and checks that it has the columns that are read.
async fn check_view(
    session: &Session,
    snapshot: &Snapshot,
    catalogue: &Catalogue,
    plan: &Plan,
    view: &View,
) -> Result<()> {
    let mut parameters = plan.parameters.clone();
    parameters.extend(view.parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let mut snapshot = snapshot.clone();
    for (name, columns) in &view.reads {
        let schema = match columns {
            Columns::Of(table) => {
                schema::find(table).map_or_else(|| Arc::new(Schema::empty()), |t| Arc::clone(&t.schema))
            }
            Columns::OfQuery(query) => {
                let statement = catalogue.get(query)?.bind(&parameters)?;
                let rows = session::query(&session.context(&snapshot)?, query, &statement).await?;
                Arc::new(rows.schema().as_arrow().clone())
            }
        };
        snapshot.set(name, schema, Vec::new())?;
    }
    let statement = catalogue.get(view.name)?.bind(&parameters)?;
    let rows = session::query(&session.context(&snapshot)?, view.name, &statement).await?;
    conform::check_columns(view.name, rows.schema().as_arrow(), &view.columns)
}

/// Returns the columns of a query as Delta stores them: signed integers, strings in one encoding, times in
/// microseconds.
fn stored(schema: &Schema) -> Schema {
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| Field::new(field.name(), stored_type(field.data_type()), true)).collect();
    Schema::new(fields)
}

fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        ty if ty.is_integer() => DataType::Int64,
        ty if ty.is_string() => DataType::Utf8,
        ty if ty.is_binary() => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Null => DataType::Utf8,
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => {
            DataType::List(Arc::new(Field::new("item", stored_type(item.data_type()), true)))
        }
        DataType::Struct(fields) => DataType::Struct(
            fields.iter().map(|field| Field::new(field.name(), stored_type(field.data_type()), true)).collect(),
        ),
        ty => ty.clone(),
    }
}
