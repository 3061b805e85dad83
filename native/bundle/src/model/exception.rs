//! Standing permissions of legacy callers.

use std::collections::BTreeSet;

use authz_base::principal::Principal;
use authz_base::record::task::Selector;
use authz_base::spelling::fold;
use authz_base::spiffe::covers;
use authz_base::tier::Tier;
use authz_base::time::Time;

use super::{OperationGlob, Spelling};
use crate::location::Location;

/// Name that no bundle declares: the exception that administrators open at run time.
pub const BREAKGLASS: &str = "breakglass";
/// Highest tier of a call that break-glass covers: static and effective.
pub const BREAKGLASS_TIER: Tier = Tier::High;
/// Cedar type of the names of exceptions.
pub const EXCEPTION_TYPE: &str = "Exception";

/// A standing exception: a fact that policies may accept until it expires. It permits nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingException {
    /// Caller that it is for.
    pub holder: ExceptionHolder,
    /// Operations that it covers; each glob has a literal system.
    pub operations: Vec<OperationGlob>,
    /// Resources that it covers.
    pub resources: ExceptionResources,
    /// Highest effective tier of a call that it covers.
    pub tier_cap: Tier,
    /// Team or person who answers for it.
    pub owner: String,
    /// Reason for which it exists.
    pub reason: String,
    /// Ticket in which it was granted.
    pub ticket: String,
    /// Time from which it no longer applies.
    pub expires: Time,
    /// Obligations of a permit that depends on it.
    pub obligations: BTreeSet<String>,
    /// Place in the bundle.
    pub at: Location,
}

/// Caller that an exception is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExceptionHolder {
    /// A role that the caller holds.
    Role(String),
    /// SPIFFE id of the caller, or a pattern of ids.
    Agent(String),
}

/// Resources that an exception covers. Default: all resources of its operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExceptionResources {
    exact: Selector,
    /// The same with ids as collections compare them that ignore case.
    folded: Selector,
}

impl ExceptionResources {
    /// Resources for which all conditions of a selector hold.
    #[must_use]
    pub fn new(exact: Selector) -> Self {
        let fold = |id: &String| fold(id).into_owned();
        let folded = Selector {
            ids: exact.ids.as_ref().map(|ids| ids.iter().map(fold).collect()),
            path_prefix: exact.path_prefix.as_ref().map(fold),
            ..exact.clone()
        };
        Self { exact, folded }
    }

    /// The selector for collections that compare ids in this way.
    #[must_use]
    pub const fn of(&self, spelling: Spelling) -> &Selector {
        match spelling {
            Spelling::Exact => &self.exact,
            Spelling::Fold => &self.folded,
        }
    }
}

impl ExceptionHolder {
    /// Whether a caller with these roles is the holder.
    pub fn is_held_by<'r>(
        &self,
        caller: &Principal,
        mut roles: impl Iterator<Item = &'r str>,
    ) -> bool {
        match (self, caller) {
            (Self::Role(name), _) => roles.any(|role| role == name),
            (Self::Agent(pattern), Principal::Agent { spiffe_id, .. }) => {
                covers(pattern, spiffe_id)
            }
            (Self::Agent(_), Principal::User(_) | Principal::Service(_)) => false,
        }
    }

    /// The word of the bundle.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Role(text) | Self::Agent(text) => text,
        }
    }
}
