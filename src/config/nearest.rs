//! Suggests the known word for a misspelled one.

/// Returns the word of `known` that is nearest to `word`, if one is close: at most a third of the
/// letters differ, or one word contains the other.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .filter_map(|name| {
            let distance = strsim::damerau_levenshtein(&word, &name.to_ascii_lowercase());
            let near = distance <= word.len().max(name.len()) / 3;
            let part =
                word.len() >= 4 && name.len() >= 4 && (name.contains(&word) || word.contains(name));
            (near || part).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// Formats `names` for a sentence: `` `a`, `b` ``.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names
        .into_iter()
        .map(|name| format!("`{}`", name.escape_debug()))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_understood() {
        let known = ["client_id", "client_secret_file", "token_timeout", "url"];
        assert_eq!(nearest("clientid", known), Some("client_id"));
        assert_eq!(
            nearest("client-secret-file", known),
            Some("client_secret_file")
        );
        assert_eq!(nearest("secret_file", known), Some("client_secret_file"));
        assert_eq!(nearest("timeout", known), Some("token_timeout"));
        assert_eq!(nearest("uri", known), Some("url"));
        assert_eq!(nearest("policy", known), None);
        assert_eq!(nearest("", known), None);
    }
}
