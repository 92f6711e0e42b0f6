//! Converts Prometheus' text format to OpenMetrics 1.0.0.

use std::collections::HashMap;
use std::fmt::Write as _;

/// Converts Prometheus' `text`: removes `_total` from the names of counter families, adds
/// `exemplars` to their series, and adds the end marker.
pub(super) fn from_text(text: &str, exemplars: &HashMap<String, String>) -> String {
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
        if let Some((series, _)) = line.rsplit_once(' ')
            && let Some(exemplar) = exemplars.get(series)
        {
            let _ = write!(out, " # {exemplar}");
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

/// The name of a bucket's series of `request_duration_seconds`, as the text format writes it;
/// `+Inf` without a `bound`.
pub(super) fn duration_bucket(app: &str, client: &str, bound: Option<f64>) -> String {
    let escape = |name: &str| name.replace('\\', "\\\\").replace('"', "\\\"");
    let (app, client) = (escape(app), escape(client));
    let bound = bound.map_or("+Inf".to_owned(), |bound| bound.to_string());
    format!(
        "collibra_auth_proxy_request_duration_seconds_bucket{{app=\"{app}\",client=\"{client}\",le=\"{bound}\"}}"
    )
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
        assert_eq!(from_text(text, &HashMap::new()), expected);
    }
}
