//! Places in the files of a bundle.

use std::fmt;

/// Where something stands in a bundle, for messages.
///
/// The alternate form `{:#?}` has no place, so that the texts of two values differ only where the values themselves do.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Path relative to the bundle folder.
    pub file: String,
    /// Line, from 1; 0 where unknown.
    pub line: u32,
    /// Column, from 1; 0 where unknown.
    pub column: u32,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f.write_str("Location");
        }
        let Self { file, line, column } = self;
        let mut fields = f.debug_struct("Location");
        fields.field("file", file).field("line", line).field("column", column).finish()
    }
}

/// A value with the place where it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: Location,
}
