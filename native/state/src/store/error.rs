//! Errors of stores.
//!
//! A [`StoreOpenError`] or a [`StoreError`] keeps the error of the disk, the database or the record that caused it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use thiserror::Error as ThisError;

/// A store cannot be opened.
#[derive(Debug, ThisError)]
#[error("{place}: {cause}")]
pub struct StoreOpenError {
    /// Name of the folder, file or database.
    place: String,
    #[source]
    cause: Box<dyn Error + Send + Sync>,
}

impl StoreOpenError {
    pub(crate) fn new(
        place: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { place: place.into(), cause: cause.into() }
    }
}

/// A store did not do its work.
#[derive(Clone, Debug, Eq, PartialEq, ThisError)]
pub enum StoreError {
    /// The store cannot be reached, is closed, or its disk refuses. No record changed.
    #[error("the store is out of reach: {0}")]
    Unavailable(#[source] StoreFault),
    /// The deadline passed. The records may have changed: a caller that repeats the call must tolerate that.
    #[error("the store did not answer in time")]
    Slow,
    /// The connection broke during the commit. The records may have changed, as after [`StoreError::Slow`].
    #[error("the store did not answer in time")]
    Unknown(#[source] StoreFault),
    /// A bound is reached: too many records.
    #[error("the store is full: {0}")]
    Full(String),
}

impl StoreError {
    /// [`StoreError::Unavailable`] for a reason.
    pub fn unavailable(reason: impl Into<StoreFault>) -> Self {
        Self::Unavailable(reason.into())
    }
}

/// Reason for which a store is out of reach, with the error that caused it. Two are equal if their texts are.
#[derive(Clone, Debug)]
pub struct StoreFault {
    reason: String,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreFault {
    /// A reason, with the error that it states.
    pub(crate) fn caused_by(
        reason: impl Into<String>,
        cause: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { reason: reason.into(), cause: Some(Arc::new(cause)) }
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for StoreFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl PartialEq for StoreFault {
    fn eq(&self, other: &Self) -> bool {
        self.reason == other.reason
    }
}

impl Eq for StoreFault {}

impl From<&str> for StoreFault {
    fn from(reason: &str) -> Self {
        Self { reason: reason.to_owned(), cause: None }
    }
}

impl From<String> for StoreFault {
    fn from(reason: String) -> Self {
        Self { reason, cause: None }
    }
}

/// The text of an error with those of its causes.
pub(crate) fn text_with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn errors_keep_their_causes() {
        let fault = StoreFault::caused_by("no disk", io::Error::other("gone"));
        for error in [StoreError::Unavailable(fault.clone()), StoreError::Unknown(fault)] {
            let fault = error.source().unwrap();
            assert_eq!("no disk", fault.to_string());
            assert!(fault.source().unwrap().is::<io::Error>(), "{error}");
        }
        let closed = StoreOpenError::new("state database", StoreError::unavailable("closed"));
        assert_eq!("state database: the store is out of reach: closed", closed.to_string());
        assert!(closed.source().unwrap().is::<StoreError>());
    }
}
