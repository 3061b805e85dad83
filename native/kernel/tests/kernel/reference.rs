//! Pages of the documentation that are written from the code. `make reference` writes them anew.

use std::path::Path;
use std::{env, fs};

use authz_kernel::schema::context_reference;

#[test]
fn the_page_of_the_context_is_that_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = root.join("docs/reference/context.md");
    if env::var_os("AUTHZ_WRITE_REFERENCE").is_some() {
        fs::write(&page, context_reference()).unwrap();
    }
    let committed = fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(context_reference(), committed, "run `make reference` and commit the result");
}
