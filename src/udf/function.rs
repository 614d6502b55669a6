//! The two shapes of our functions, and how their arguments are read.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, StringArray, StructArray},
    compute::cast,
    datatypes::{DataType, Field, Fields, Int64Type},
};
use async_trait::async_trait;
use datafusion::{
    common::exec_err,
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};

use crate::schema;

/// What a function does to whole columns of `rows` values.
pub(super) trait Kernel: Send + Sync {
    fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef>;
}

/// The same for a function that awaits: a model's turn, or the source.
#[async_trait]
pub(super) trait AsyncKernel: Send + Sync {
    async fn call(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef>;
}

/// What the planner sees of a function. Two functions are equal where name and `fingerprint` are: the
/// optimizer must not merge the calls of two models.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) arguments: Arguments,
    pub(super) returns: DataType,
    pub(super) fingerprint: String,
}

/// How many arguments a function takes; their types are looked at when it is called.
#[derive(Debug, Clone, Copy)]
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
        let columns = ColumnarValue::values_to_arrays_of(&args.args, rows)?;
        self.kernel.call(&columns, rows).map(ColumnarValue::Array)
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
        exec_err!("`{}` awaits a model and cannot be called here; move it into a subquery", self.shape.name)
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Function<dyn AsyncKernel> {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = ColumnarValue::values_to_arrays_of(&args.args, rows)?;
        self.kernel.call(&columns, rows).await.map(ColumnarValue::Array)
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
        exec_err!("`{}` needs the models and the source of the pipeline, which this command does not open", self.0)
    }
}

/// Columns of exactly `rows` values, also where a constant was given.
trait ToArrays {
    fn values_to_arrays_of(values: &[ColumnarValue], rows: usize) -> Result<Vec<ArrayRef>>;
}

impl ToArrays for ColumnarValue {
    fn values_to_arrays_of(values: &[ColumnarValue], rows: usize) -> Result<Vec<ArrayRef>> {
        values.iter().map(|value| value.to_array(rows)).collect()
    }
}

/// The argument at `index`.
pub(super) fn argument<'a>(name: &str, arguments: &'a [ArrayRef], index: usize) -> Result<&'a ArrayRef> {
    arguments.get(index).ok_or_else(|| DataFusionError::Plan(format!("`{name}` lacks its argument {}", index + 1)))
}

/// Integers of any width.
pub(super) fn integers(name: &str, array: &ArrayRef) -> Result<Int64Array> {
    if !array.data_type().is_integer() && !array.data_type().is_null() {
        return exec_err!("`{name}`: found {}, an integer is expected", array.data_type());
    }
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Texts in any of Arrow's encodings.
pub(super) fn texts(name: &str, array: &ArrayRef) -> Result<StringArray> {
    if !array.data_type().is_string() && !array.data_type().is_null() {
        return exec_err!("`{name}`: found {}, a text is expected", array.data_type());
    }
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// The encoded bytes of images: a `struct<bytes, path>`, or the bytes alone.
pub(super) fn images(name: &str, array: &ArrayRef) -> Result<BinaryArray> {
    match schema::image_bytes(array) {
        Some(bytes) => Ok(bytes),
        None => {
            exec_err!("`{name}`: found {}, an image is expected (struct<bytes, path>, or binary)", array.data_type())
        }
    }
}

/// The fields of a struct whose rows may have failed one by one.
pub(super) fn fallible(fields: &Fields) -> Fields {
    let error = Arc::new(Field::new(schema::ERROR_FIELD, DataType::Utf8, true));
    fields.iter().cloned().chain([error]).collect()
}

/// A column of images, each with its bytes or its error.
pub(super) fn image_column<B: AsRef<[u8]>>(rows: Vec<Result<Option<B>, String>>) -> Result<ArrayRef> {
    let bytes: BinaryArray =
        rows.iter().map(|row| row.as_ref().ok().and_then(|b| b.as_ref()).map(AsRef::as_ref)).collect();
    let paths = StringArray::new_null(rows.len());
    let errors: StringArray = rows.iter().map(|row| row.as_ref().err()).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(paths), Arc::new(errors)];
    Ok(Arc::new(StructArray::try_new(fallible(&schema::image_fields()), columns, None)?))
}
