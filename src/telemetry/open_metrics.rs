//! OpenMetrics 1.0.0, made from Prometheus's text format.

/// Prometheus's `text` as OpenMetrics: the family of a counter is named without `_total`, and the end
/// is marked.
pub(super) fn from_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let kind = lines.peek().copied().unwrap_or_default();
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let is_header = line.starts_with("# HELP ") && is_counter(kind) || is_counter(line);
        if is_header {
            out.push_str(&line.replacen("_total ", " ", 1));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_family_has_no_suffix_and_its_samples_have() {
        let text = "# HELP a_total The _total of a.\n# TYPE a_total counter\na_total{x=\"_total \"} 1\n\
                    # HELP b Not a counter.\n# TYPE b gauge\nb 2\n";
        let expected = "# HELP a The _total of a.\n# TYPE a counter\na_total{x=\"_total \"} 1\n\
                        # HELP b Not a counter.\n# TYPE b gauge\nb 2\n# EOF\n";
        assert_eq!(from_text(text), expected);
    }
}
