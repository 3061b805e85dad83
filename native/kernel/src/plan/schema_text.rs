//! The Cedar schema of a bundle in Cedar's JSON form, for tools that read no other.

use std::str::FromStr as _;

use cedar_policy::SchemaFragment;

use super::Plan;

impl Plan {
    /// [`Plan::cedar_schema`] in Cedar's JSON form.
    ///
    /// # Errors
    /// Cedar cannot write the schema as JSON.
    pub fn cedar_schema_json(&self) -> Result<String, String> {
        let fragment =
            SchemaFragment::from_str(&self.cedar_schema()).map_err(|error| error.to_string())?;
        fragment.to_json_string().map_err(|error| error.to_string())
    }
}
