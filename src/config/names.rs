//! The names of all tables of one kind, for checking references.

use std::collections::HashSet;
use std::sync::Arc;

use super::context::LoadContext;
use super::declare::Head;
use super::fault::Field;
use super::nearest::{listed, nearest};

/// Names in the order of the file. A lookup uses a hash: 10,000 apps may each name one of 1,000
/// clients.
#[derive(Debug)]
pub(super) struct Names {
    kind: &'static str,
    in_order: Vec<Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl Names {
    /// All of them, in the order of the file.
    pub(super) fn all(&self) -> &[Arc<str>] {
        &self.in_order
    }

    /// Resolves `field` to one of the names; if it is absent, to the only one there is. `owner` is
    /// the referring table.
    pub(super) fn find(
        &self,
        field: &Field<String>,
        owner: &Head,
        context: &LoadContext<'_>,
    ) -> Option<Arc<str>> {
        let kind = self.kind;
        let all = || self.in_order.iter().map(AsRef::as_ref);
        let Some(spanned) = field else {
            return match &self.in_order[..] {
                [only] => Some(only.clone()),
                // a missing table is reported once, not by each reference
                [] => None,
                _ => {
                    let several =
                        format!("there are several of [{kind}.NAME], and this does not say which");
                    let remedy = format!("write one of {}", listed(all()));
                    owner.demand(kind, field, &several, remedy, context);
                    None
                }
            };
        };
        if let Some(name) = self.known.get(&*spanned.value) {
            return Some(name.clone());
        }
        let remedy = match (nearest(&spanned.value, all()), self.all()) {
            (Some(meant), _) => format!("write {meant:?}"),
            (None, []) => format!("add [{kind}.NAME] with this name"),
            (None, _) => format!("write one of {}", listed(all())),
        };
        let problem = format!("there is no [{kind}.NAME] of this name");
        context.fault(spanned.location.fault(problem, remedy));
        None
    }

    /// The names of the tables `[kind.NAME]`.
    pub(super) fn of<'a>(
        kind: &'static str,
        names: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> Names {
        let in_order: Vec<Arc<str>> = names.into_iter().cloned().collect();
        Names {
            kind,
            known: in_order.iter().cloned().collect(),
            in_order,
        }
    }
}
