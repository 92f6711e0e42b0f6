//! The names of all tables of one kind, for checking references.

use std::collections::HashSet;
use std::sync::Arc;

/// Names in the order of the file. A lookup uses a hash: 10,000 apps may each name one of 1,000
/// clients.
#[derive(Debug, Default)]
pub(super) struct Names {
    in_order: Vec<Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl Names {
    /// All of them, in the order of the file.
    pub(super) fn all(&self) -> &[Arc<str>] {
        &self.in_order
    }

    /// The name that equals `name`.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<str>> {
        self.known.get(name)
    }
}

impl FromIterator<Arc<str>> for Names {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(names: I) -> Names {
        let in_order: Vec<Arc<str>> = names.into_iter().collect();
        Names {
            known: in_order.iter().cloned().collect(),
            in_order,
        }
    }
}
