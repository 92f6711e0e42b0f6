//! Labels with a fixed set of values.

/// The values of a metric's label, declared next to the events that they name. Every value has a
/// series at zero from the start, so that the first event appears as an increase.
pub trait Label: Copy + Sized + 'static {
    /// All values.
    const ALL: &'static [Self];

    /// The label's value.
    fn label(self) -> &'static str;
}

/// Declares an enum whose variants are the values of a label.
macro_rules! labels {
    (
        $(#[$about:meta])*
        $visibility:vis enum $name:ident { $($(#[$meaning:meta])* $variant:ident = $label:literal,)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visibility enum $name { $($(#[$meaning])* $variant,)* }

        impl $crate::telemetry::Label for $name {
            const ALL: &'static [$name] = &[$($name::$variant),*];

            fn label(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)*
                }
            }
        }
    };
}
pub(crate) use labels;
