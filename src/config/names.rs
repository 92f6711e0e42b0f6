//! The names of all tables of one kind, for checking references.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::context::LoadContext;
use super::declare::Head;
use super::fault::Field;
use super::nearest::{listed, nearest};

/// The names of the tables `[kind.NAME]`.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) kind: &'static str,
    pub(super) names: BTreeSet<Arc<str>>,
}

impl Names {
    /// Resolves `field` to one of the names; if it is absent, to the only one there is. `owner` is
    /// the referring table.
    pub(super) fn find(
        &self,
        field: &Field<String>,
        owner: &Head,
        context: &LoadContext<'_>,
    ) -> Option<Arc<str>> {
        let (kind, all) = (self.kind, || self.names.iter().map(AsRef::as_ref));
        let one_of = || format!("write one of {}", listed(all()));
        let Some(spanned) = field else {
            if self.names.len() > 1 {
                let problem =
                    format!("there are several of [{kind}.NAME], and this does not say which");
                owner.demand(kind, field, &problem, one_of(), context);
                return None;
            }
            // a missing table is reported once, not by each reference
            return self.names.first().cloned();
        };
        if let Some(name) = self.names.get(&*spanned.value) {
            return Some(name.clone());
        }
        let remedy = match nearest(&spanned.value, all()) {
            Some(meant) => format!("write {meant:?}"),
            None if self.names.is_empty() => format!("add [{kind}.NAME] with this name"),
            None => one_of(),
        };
        let problem = format!("there is no [{kind}.NAME] of this name");
        context.fault(spanned.location.fault(problem, remedy));
        None
    }
}
