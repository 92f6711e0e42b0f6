//! Labels with a fixed set of values.

/// The values of a metric's label, declared next to the events that they name. Every value has a
/// series at zero from the start, so that the first event appears as an increase.
pub trait Label: Copy + Sized + 'static {
    /// All values.
    const ALL: &'static [Self];

    /// The label's value.
    fn label(self) -> &'static str;
}
