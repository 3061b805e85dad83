//! A bundle that was read: its model, and the look-up tables compiled from the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_base::principal::Subject;
use authz_base::record::Declarations;

use crate::destinations::DestinationIndex;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{LabelKind, Model, PolicyFile};
use crate::recipient_lists::{RecipientListEntries, RecipientLists};
use crate::roles::RoleIndex;
use crate::routes::RouteTable;

/// Entries of the recipient lists that are files of a bundle, by name.
pub type RecipientListFiles = BTreeMap<String, Arc<RecipientListEntries>>;

/// A bundle that was read and checked.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    // INVARIANT (tables): `tables` is compiled from `model`. Afterwards only policies and warnings of the model change, which
    // take no part in the tables.
    model: Model,
    tables: Arc<Tables>,
}

/// Look-up tables of a bundle.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Roles by agent and subject.
    pub roles: RoleIndex,
    /// Destination classes by destination.
    pub destinations: DestinationIndex,
    /// Operations by HTTP request.
    pub routes: RouteTable,
    /// Entries of the recipient lists that are files of the bundle.
    pub recipient_lists: RecipientListFiles,
}

impl Tables {
    /// Compiles the look-up tables of a model. Errors go to `found`; tables with errors must not be used.
    fn compile(
        model: &Model,
        recipient_lists: RecipientListFiles,
        found: &mut Diagnostics,
    ) -> Self {
        Self {
            roles: RoleIndex::compile(model),
            destinations: DestinationIndex::compile(model),
            routes: RouteTable::compile(model, found),
            recipient_lists,
        }
    }
}

impl Bundle {
    /// Compiles a model that was not read from files. Its recipient lists have no entries.
    ///
    /// # Errors
    /// Routes that could not work or that overlap.
    pub fn of(model: Model) -> Result<Self, Diagnostics> {
        let mut found = Diagnostics::new();
        let bundle = Self::compile(model, RecipientListFiles::new(), &mut found);
        found.finish(bundle)
    }

    /// Compiles a model. Errors go to `found`; a bundle with errors must not be used.
    pub(crate) fn compile(
        model: Model,
        recipient_lists: RecipientListFiles,
        found: &mut Diagnostics,
    ) -> Self {
        let tables = Arc::new(Tables::compile(&model, recipient_lists, found));
        Self { model, tables }
    }

    /// The same bundle with other policies.
    ///
    /// * `digest`, `revision`: of the bundle with these policies.
    pub(crate) fn with_policies(
        &self,
        digest: [u8; 32],
        revision: String,
        policies: Vec<PolicyFile>,
    ) -> Self {
        let mut model = Model { digest, revision, policies, ..self.model.clone() };
        model.warnings.truncate(model.read_warnings);
        Self { model, tables: Arc::clone(&self.tables) }
    }

    /// Adds the warnings of the reader, which do not depend on the time of reading.
    pub(crate) fn set_read_warnings(&mut self, warnings: &Diagnostics) {
        self.model.warnings = warnings.iter().cloned().collect();
        self.model.read_warnings = self.model.warnings.len();
    }

    /// Adds warnings that depend on the time of reading.
    pub(crate) fn add_warnings(&mut self, warnings: impl IntoIterator<Item = Diagnostic>) {
        self.model.warnings.extend(warnings);
    }

    /// The bundle as plain values.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Its look-up tables.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Its recipient lists that are files, all of them fresh.
    #[must_use]
    pub fn fresh_recipient_lists(&self) -> RecipientLists {
        RecipientLists::of_files(&self.tables.recipient_lists)
    }

    /// Separates the model from the tables.
    #[must_use]
    pub fn into_parts(self) -> (Model, Arc<Tables>) {
        (self.model, self.tables)
    }
}

impl Declarations for Bundle {
    fn is_trust_label(&self, label: &str) -> Option<bool> {
        self.model.labels.get(label).map(|label| label.value == LabelKind::Trust)
    }

    fn roles_of_subject(&self, subject: &Subject) -> Vec<&str> {
        self.tables.roles.subject_roles(subject).into_vec()
    }
}
