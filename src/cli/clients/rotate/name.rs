//! The successor's name: the old name with the time of registration.

use std::time::SystemTime;

use jiff::civil::DateTime;

/// The appended time, like ` (2027-01-15 08:00:00)`.
const TIME: &str = " (%Y-%m-%d %H:%M:%S)";

/// Returns the name of a successor of `old`, registered at `now`.
pub(super) fn successor(old: &str, now: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{}{}", base(old), at.strftime(TIME))
}

/// Removes the time that a rotation appended to a name.
pub(super) fn base(name: &str) -> &str {
    match name.rfind(" (").map(|start| name.split_at(start)) {
        Some((base, time)) if DateTime::strptime(TIME, time).is_ok() => base,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_do_not_grow() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let first = successor("nightly", at(1_800_000_000));
        assert_eq!(first, "nightly (2027-01-15 08:00:00)");
        assert_eq!(
            successor(&first, at(1_800_000_001)),
            "nightly (2027-01-15 08:00:01)"
        );
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for name in [
            "",
            "x",
            "nightly (2027)",
            "é (2027-01-15 08:00:0x)",
            "ééééééééééééé",
        ] {
            assert_eq!(base(name), name);
        }
    }
}
