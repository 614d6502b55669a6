//! The function `generate(id)`, in place of a model.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringArray, StructArray},
    datatypes::{DataType, Field, Fields},
};
use async_trait::async_trait;
use datafusion::{
    error::Result,
    execution::FunctionRegistry,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};

use super::model;
use crate::{
    identity::Digest,
    models::Models,
    schema::ERROR_FIELD,
    udf::{Functions, Meter, Unopened},
};

/// How long a call takes at most.
const MAX_CALL_MS: u64 = 3;
/// How many of 100 rows fail for one run and not for another, where the model is unreliable.
const FLAWS: u64 = 35;

/// The functions of one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Engine {
    pub(super) seed: u64,
    /// Whether some rows fail in this run that another run can generate; which ones follows from this name of it.
    pub(super) flaws_of: Option<String>,
}

impl Functions for Engine {
    fn register(&self, registry: &mut dyn FunctionRegistry, meter: &Arc<Meter>) -> crate::error::Result<()> {
        Unopened.register(registry, meter)?;
        let function = Generate { engine: self.clone(), signature: Signature::any(1, Volatility::Immutable) };
        let function = AsyncScalarUDF::new(Arc::new(function)).into_scalar_udf();
        registry
            .register_udf(Arc::new(function))
            .map(drop)
            .map_err(|error| crate::error::Error::query("generate", error))
    }

    fn models(&self) -> Option<&Models> {
        None
    }
}

impl Engine {
    fn draw(&self, what: &str, id: &str, n: u64) -> u64 {
        Digest::new(what).part(&self.seed.to_le_bytes()).text(id).draw(n)
    }

    fn generate(&self, id: &str) -> Result<i64, &'static str> {
        let flaws = self.flaws_of.as_deref();
        if flaws.is_some_and(|run| self.draw(run, id, 100) < FLAWS) {
            return Err("it failed this time");
        }
        model::generate(id).ok_or("it fails each time")
    }
}

#[derive(Debug)]
struct Generate {
    engine: Engine,
    signature: Signature,
}

impl PartialEq for Generate {
    fn eq(&self, other: &Self) -> bool {
        self.engine == other.engine
    }
}

impl Eq for Generate {}

impl Hash for Generate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.engine.hash(state);
    }
}

impl ScalarUDFImpl for Generate {
    fn name(&self) -> &str {
        "generate"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        unreachable!("asynchronous functions are awaited")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Generate {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ids = arrow::compute::cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8)?;
        let ids = ids.as_string::<i32>();
        // The time is virtual. It decides which units are ready at the same moment, and share a commit.
        let first = ids.iter().flatten().next().unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(1 + self.engine.draw("time", first, MAX_CALL_MS))).await;
        let made: Vec<_> = ids.iter().map(|id| self.engine.generate(id.unwrap())).collect();
        let values: ArrayRef = Arc::new(made.iter().map(|made| made.ok()).collect::<Int64Array>());
        let errors: ArrayRef = Arc::new(made.iter().map(|made| made.err()).collect::<StringArray>());
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new(fields(), vec![values, errors], None)?)))
    }
}

fn fields() -> Fields {
    let error = Arc::new(Field::new(ERROR_FIELD, DataType::Utf8, true));
    model::made().iter().cloned().chain([error]).collect()
}
