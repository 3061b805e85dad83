//! Result of the function of an API call.

use authz_kernel::reason::ReasonCode;
use authz_state::store::StoreError;

use crate::judgement::{ApiDenial, ApiRecord};
use crate::keeper::ChangeError;
use crate::refusal::CallRefusal;
use crate::steps::record::KeptRecord;

/// Result of the function of an API call.
pub(crate) type ApiOutcome<T> = Result<ApiGrant<T>, ApiRefusal>;

/// An API call that did what its caller asked for.
#[derive(Debug)]
pub(crate) struct ApiGrant<T> {
    pub(crate) answer: T,
    /// Message of the audit record.
    pub(crate) message: String,
    pub(crate) record: ApiRecord,
    /// Audit record that was written with the change of the call. Default: the record is still to be written.
    pub(crate) kept: Option<KeptRecord>,
}

impl<T> ApiGrant<T> {
    /// A call that changed nothing.
    pub(crate) fn unchanged(answer: T, message: impl Into<String>) -> Self {
        Self { answer, message: message.into(), record: ApiRecord::default(), kept: None }
    }

    /// The same call with another answer.
    pub(crate) fn map<A>(self, answer: impl FnOnce(T) -> A) -> ApiGrant<A> {
        let Self { answer: before, message, record, kept } = self;
        ApiGrant { answer: answer(before), message, record, kept }
    }
}

/// An API call that is denied, and the members of its audit record that were known by then.
#[derive(Clone, Debug)]
pub(crate) struct ApiRefusal {
    pub(crate) denial: ApiDenial,
    pub(crate) record: Box<ApiRecord>,
}

impl ApiRefusal {
    /// Denial of a call about a credential that lacks a proof of possession.
    pub(crate) fn proof_required(message: &'static str) -> Self {
        Self { denial: ApiDenial::ProofRequired(message), record: Box::default() }
    }

    pub(crate) const fn reason(&self) -> ReasonCode {
        match &self.denial {
            ApiDenial::Refused(refused) => refused.reason,
            ApiDenial::ProofRequired(_) => ReasonCode::ProofRequired,
        }
    }
}

impl From<CallRefusal> for ApiRefusal {
    fn from(refused: CallRefusal) -> Self {
        Self { denial: ApiDenial::Refused(refused), record: Box::default() }
    }
}

/// Reason why the transaction of an API call writes nothing.
#[derive(Debug)]
pub(crate) struct ApiChangeError {
    pub(crate) error: ChangeError,
    pub(crate) record: Box<ApiRecord>,
}

impl From<ChangeError> for ApiChangeError {
    fn from(error: ChangeError) -> Self {
        Self { error, record: Box::default() }
    }
}

impl From<CallRefusal> for ApiChangeError {
    fn from(refused: CallRefusal) -> Self {
        ChangeError::Refused(refused).into()
    }
}

impl From<StoreError> for ApiChangeError {
    fn from(error: StoreError) -> Self {
        ChangeError::Store(error).into()
    }
}

/// Results that take over members of the audit record.
pub(crate) trait WithRecord {
    type Recorded;

    /// Adds the members of `record` that the result does not have, whether the result is good or an error.
    fn with_record(self, record: &ApiRecord) -> Self::Recorded;
}

impl<T> WithRecord for ApiGrant<T> {
    type Recorded = Self;

    fn with_record(self, record: &ApiRecord) -> Self {
        Self { record: self.record.or(record), ..self }
    }
}

impl<T> WithRecord for ApiOutcome<T> {
    type Recorded = Self;

    fn with_record(self, record: &ApiRecord) -> Self {
        match self {
            Ok(grant) => Ok(grant.with_record(record)),
            Err(refusal) => Err(refusal.with_record(record)),
        }
    }
}

impl WithRecord for ApiRefusal {
    type Recorded = Self;

    fn with_record(self, record: &ApiRecord) -> Self {
        Self { record: Box::new(self.record.or(record)), ..self }
    }
}

impl<T> WithRecord for Result<T, CallRefusal> {
    type Recorded = Result<T, ApiRefusal>;

    fn with_record(self, record: &ApiRecord) -> Result<T, ApiRefusal> {
        self.map_err(|refused| ApiRefusal::from(refused).with_record(record))
    }
}

impl<T> WithRecord for Result<T, ChangeError> {
    type Recorded = Result<T, ApiChangeError>;

    fn with_record(self, record: &ApiRecord) -> Result<T, ApiChangeError> {
        self.map_err(|error| ApiChangeError { error, record: Box::new(record.clone()) })
    }
}
