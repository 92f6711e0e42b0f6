//! Labels whose values are known beforehand.

/// The values of a metric's label, declared where the thing happens that they name. Every value has
/// a series at zero from the start, so that the first event is an increase and not a new series.
pub trait Label: Copy + Sized + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// The value as it stands in a series.
    fn label(self) -> &'static str;
}
