//! Cedar text in one layout, comments kept.

use cedar_policy_formatter::{Config, policies_str_to_pretty};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::evaluate::syntax;
use crate::model::Location;
use crate::stack::on_large_stack;

/// Lays out Cedar text: 100 columns, two spaces.
///
/// Args:
/// * `file`: the path for messages; `text`: the policies.
///
/// # Errors
/// Diagnostics if the text is not valid Cedar, or if the result would have another meaning.
pub fn format_policy(file: &str, text: &str) -> Result<String, Diagnostics> {
    on_large_stack(file, || format_here(file, text))?
}

fn format_here(file: &str, text: &str) -> Result<String, Diagnostics> {
    syntax::parse(file, text)?;
    let config = Config { line_width: 100, indent_width: 2 };
    policies_str_to_pretty(text, &config).map_err(|error| {
        let at = Location { file: file.to_owned(), line: 0, column: 0 };
        Diagnostic::error(&at, format!("cannot be laid out: {error}"), "Leave the file as it is.")
            .into()
    })
}
