//! The two kinds of functions, plain and asynchronous, and how they read their arguments.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Instant,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, StringArray, StructArray},
    compute::cast,
    datatypes::{DataType, Field, Fields, Int64Type},
};
use async_trait::async_trait;
use datafusion::{
    error::Result,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};

use super::error::FunctionError;
use crate::schema;

/// A function of columns with `rows` values each.
pub(super) trait Kernel: Send + Sync {
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef>;
}

/// A function that awaits a model or the source.
#[async_trait]
pub(super) trait AsyncKernel: Send + Sync {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef>;
}

/// What the planner sees of a function. Functions are equal if name and `fingerprint` are: the optimizer must not merge
/// calls of different models.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) arguments: Arguments,
    pub(super) returns: DataType,
    pub(super) fingerprint: String,
}

/// How many arguments a function takes; their types are checked when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    Exactly(usize),
    Any,
}

struct Function<K: ?Sized> {
    shape: Shape,
    signature: Signature,
    kernel: Arc<K>,
}

impl<K: ?Sized> Function<K> {
    fn new(shape: Shape, kernel: Arc<K>) -> Self {
        let signature = match shape.arguments {
            Arguments::Exactly(count) => Signature::any(count, Volatility::Immutable),
            Arguments::Any => Signature::variadic_any(Volatility::Immutable),
        };
        Self { shape, signature, kernel }
    }
}

impl<K: ?Sized> std::fmt::Debug for Function<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shape.fmt(f)
    }
}

impl<K: ?Sized> PartialEq for Function<K> {
    fn eq(&self, other: &Self) -> bool {
        (self.shape.name, &self.shape.fingerprint) == (other.shape.name, &other.shape.fingerprint)
    }
}

impl<K: ?Sized> Eq for Function<K> {}

impl<K: ?Sized> Hash for Function<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.shape.name, &self.shape.fingerprint).hash(state);
    }
}

pub(super) fn plain(shape: Shape, kernel: impl Kernel + 'static) -> ScalarUDF {
    let kernel: Arc<dyn Kernel> = Arc::new(kernel);
    ScalarUDF::from(Function::new(shape, kernel))
}

pub(super) fn awaiting(shape: Shape, kernel: impl AsyncKernel + 'static) -> ScalarUDF {
    let kernel: Arc<dyn AsyncKernel> = Arc::new(kernel);
    AsyncScalarUDF::new(Arc::new(Function::new(shape, kernel))).into_scalar_udf()
}

impl ScalarUDFImpl for Function<dyn Kernel> {
    fn name(&self) -> &str {
        self.shape.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.shape.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arguments = columns(&args.args, rows)?;
        self.kernel.call(&arguments, rows).map(ColumnarValue::Array)
    }
}

impl ScalarUDFImpl for Function<dyn AsyncKernel> {
    fn name(&self) -> &str {
        self.shape.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.shape.returns.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(FunctionError::NotAwaitable { function: self.shape.name }.into())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Function<dyn AsyncKernel> {
    #[tracing::instrument(name = "call", skip_all, fields(function = self.shape.name, rows = args.number_rows))]
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let started = Instant::now();
        let rows = args.number_rows;
        let arguments = columns(&args.args, rows)?;
        let result = self.kernel.call(&arguments, rows).await.map(ColumnarValue::Array);
        tracing::info!(seconds = started.elapsed().as_secs_f64(), sound = result.is_ok(), "call ended");
        result
    }
}

/// A function that can be planned, and fails when it is called: neither the models nor the source were opened.
pub(super) fn unavailable(shape: Shape) -> ScalarUDF {
    let name = shape.name;
    awaiting(shape, Unavailable(name))
}

struct Unavailable(&'static str);

#[async_trait]
impl AsyncKernel for Unavailable {
    async fn call(&self, _: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        Err(FunctionError::Unavailable { function: self.0 }.into())
    }
}

/// Expands constants to columns of `rows` values.
fn columns(values: &[ColumnarValue], rows: usize) -> Result<Vec<ArrayRef>> {
    values.iter().map(|value| value.to_array(rows)).collect()
}

/// Returns the argument at `index` of `function`.
pub(super) fn argument<'a>(function: &'static str, arguments: &'a [ArrayRef], index: usize) -> Result<&'a ArrayRef> {
    let missing = FunctionError::MissingArgument { function, position: index + 1 };
    arguments.get(index).ok_or_else(|| missing.into())
}

fn wrong_type(function: &'static str, expected: &'static str, array: &ArrayRef) -> FunctionError {
    FunctionError::ArgumentType { function, expected, found: array.data_type().clone() }
}

/// Reads integers of any width.
pub(super) fn integers(function: &'static str, array: &ArrayRef) -> Result<Int64Array> {
    if !array.data_type().is_integer() && !array.data_type().is_null() {
        return Err(wrong_type(function, "an integer", array).into());
    }
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Reads strings in any of Arrow's encodings.
pub(super) fn strings(function: &'static str, array: &ArrayRef) -> Result<StringArray> {
    if !array.data_type().is_string() && !array.data_type().is_null() {
        return Err(wrong_type(function, "a string", array).into());
    }
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Reads the encoded bytes of images: of a `struct<bytes, path>`, or the bytes alone.
pub(super) fn images(function: &'static str, array: &ArrayRef) -> Result<BinaryArray> {
    let expected = "an image (struct<bytes, path>, or binary)";
    schema::image_bytes(array).ok_or_else(|| wrong_type(function, expected, array).into())
}

/// Adds the field that has the reason of a row that failed.
pub(super) fn fallible(fields: &Fields) -> Fields {
    let error = Arc::new(Field::new(schema::ERROR_FIELD, DataType::Utf8, true));
    fields.iter().cloned().chain([error]).collect()
}

/// Builds a column of images, each with its bytes or its error.
pub(super) fn image_column<B: AsRef<[u8]>>(rows: Vec<Result<Option<B>, String>>) -> Result<ArrayRef> {
    let bytes: BinaryArray =
        rows.iter().map(|row| row.as_ref().ok().and_then(|b| b.as_ref()).map(AsRef::as_ref)).collect();
    let paths = StringArray::new_null(rows.len());
    let errors: StringArray = rows.iter().map(|row| row.as_ref().err()).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(paths), Arc::new(errors)];
    Ok(Arc::new(StructArray::try_new(fallible(&schema::image_fields()), columns, None)?))
}
