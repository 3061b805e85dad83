//! Values of a result, as an enforcer reports them.

use authz_kernel::values::ReportedValue;

use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::proto::authz::v1::reported_value::Value;
use crate::refusal::CallRefusal;
use crate::request::{check_id, check_length};

/// One reported value, as text. It is fingerprinted and dropped: no record, log or answer holds it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ResultValue {
    /// Pointer into the result, as the permit asked for it.
    pub(crate) pointer: String,
    /// Running number of the array element that holds it.
    pub(crate) item: u32,
    /// The value. Numbers and booleans stand as JSON writes them.
    pub(crate) text: String,
}

impl ResultValue {
    pub(crate) fn reported(&self) -> ReportedValue<'_> {
        ReportedValue { pointer: &self.pointer, item: self.item, text: &self.text }
    }
}

/// INVARIANT (no record and no log holds a reported value): the value is left out here, too.
impl std::fmt::Debug for ResultValue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pointer, item, text: _ } = self;
        formatter.debug_struct("ResultValue").field("pointer", pointer).field("item", item).finish()
    }
}

/// Reads the values of a report.
///
/// # Errors
/// More than one report may carry, an empty value, or values of an operation that was not done.
pub(crate) fn read_values(message: &wire::ReportRequest) -> Result<Vec<ResultValue>, CallRefusal> {
    let values = &message.values;
    if values.is_empty() {
        return Ok(Vec::new());
    }
    if message.result() != wire::ReportResult::Ok {
        let message = "`values` may stand only beside a `result` of OK";
        return Err(CallRefusal::input(message));
    }
    if values.len() > limits::VALUES {
        let most = limits::VALUES;
        return Err(CallRefusal::input(format!("`values` has more than {most} items")));
    }
    if values.iter().map(length).sum::<usize>() > limits::VALUE_BYTES {
        let most = limits::VALUE_BYTES;
        let message = format!("the pointers and texts of `values` are longer than {most} bytes");
        return Err(CallRefusal::input(message));
    }
    values.iter().map(read_value).collect()
}

fn length(value: &wire::ReportedValue) -> usize {
    let text = match &value.value {
        Some(Value::Text(text) | Value::Number(text)) => text.len(),
        Some(Value::Integer(_) | Value::Flag(_)) | None => 0,
    };
    value.pointer.len().saturating_add(text)
}

fn read_value(reported: &wire::ReportedValue) -> Result<ResultValue, CallRefusal> {
    check_id("values.pointer", &reported.pointer)?;
    let text = match &reported.value {
        Some(Value::Text(text)) => {
            check_length("values.text", text, limits::VALUE)?;
            text.clone()
        }
        Some(Value::Number(text)) => {
            check_length("values.number", text, limits::VALUE)?;
            text.clone()
        }
        Some(Value::Integer(number)) => number.to_string(),
        Some(Value::Flag(flag)) => flag.to_string(),
        None => {
            let message = "an item of `values` has no value; leave out null, objects and arrays";
            return Err(CallRefusal::input(message));
        }
    };
    Ok(ResultValue { pointer: reported.pointer.clone(), item: reported.item, text })
}
