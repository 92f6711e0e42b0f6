//! Counters of one family, told apart by their last label, whose values are known beforehand.

use prometheus::{IntCounter, IntCounterVec};

/// A counter for each known value of the label, each shown at zero from the start, so that the
/// first event is an increase and not a new series. A value that is not known gets a series of its
/// own when it comes.
#[derive(Debug)]
pub(super) struct Counts {
    family: IntCounterVec,
    owner: String,
    known: Vec<(&'static str, IntCounter)>,
}

impl Counts {
    /// The counters of `family` whose first label is `owner`, for these `values` of the second.
    pub(super) fn new(family: &IntCounterVec, owner: &str, values: &[&'static str]) -> Counts {
        let known = values
            .iter()
            .map(|value| (*value, family.with_label_values(&[owner, *value])))
            .collect();
        Counts {
            family: family.clone(),
            owner: owner.to_owned(),
            known,
        }
    }

    pub(super) fn count(&self, value: &'static str) {
        match self.known.iter().find(|(known, _)| *known == value) {
            Some((_, counter)) => counter.inc(),
            None => self
                .family
                .with_label_values(&[self.owner.as_str(), value])
                .inc(),
        }
    }
}
