//! The methods that a server may read in a request: its own, and those of override headers or the
//! query.

use http::{HeaderMap, Method};

/// Headers that override the request's method on some servers.
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// Every method that a server may read in a request: its own, and those of override headers or the
/// query. `None` if one of them is not a method.
pub(crate) fn methods(
    method: &Method,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Option<Vec<Method>> {
    let mut methods = vec![method.clone()];
    for name in OVERRIDES {
        for value in headers.get_all(name) {
            methods.push(read_method(value.as_bytes())?);
        }
    }
    // most queries do not contain the parameter
    let may_have = |query: &&str| {
        let mut words = query.as_bytes().windows(6);
        query.contains('%') || words.any(|word| word.eq_ignore_ascii_case(b"method"))
    };
    // old servers take a semicolon for an ampersand
    let pairs = query.filter(may_have).into_iter();
    for pair in pairs.flat_map(|query| query.split(['&', ';'])) {
        for (name, value) in url::form_urlencoded::parse(pair.as_bytes()) {
            if is_method_parameter(&name) {
                methods.push(read_method(value.as_bytes())?);
            }
        }
    }
    Some(methods)
}

/// Returns whether a parameter of this name is a method: `_method`, case-insensitively, and as PHP
/// reads names (leading spaces are cut; a dot, a space or a bracket is an underscore).
pub(crate) fn is_method_parameter(name: &str) -> bool {
    let name = name.trim_start().split('\0').next().unwrap_or_default();
    let Some((first, rest)) = name.as_bytes().split_first() else {
        return false;
    };
    b"_. [".contains(first) && rest.eq_ignore_ascii_case(b"method")
}

/// The method that `text` names, whatever its case.
pub(crate) fn read_method(text: &[u8]) -> Option<Method> {
    let text = text.trim_ascii().to_ascii_uppercase();
    Method::from_bytes(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_method_in_a_header_or_the_query_counts_as_well() {
        let found = |header: Option<(&'static str, &'static str)>, query| {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, HeaderValue::from_static(value));
            }
            methods(&Method::POST, &headers, query)
        };
        for query in [
            "a=b&x_y=z",
            "a=_method",
            "x_method=PUT",
            "_methods=PUT",
            "a=1;b=method",
        ] {
            assert_eq!(
                found(None, Some(query)),
                Some(vec![Method::POST]),
                "{query}"
            );
        }
        for header in OVERRIDES {
            let expected = Some(vec![Method::POST, Method::DELETE]);
            assert_eq!(found(Some((header, " delete")), None), expected, "{header}");
        }
        for query in [
            "_method=PUT",
            "a=1&_Method=put",
            "%5Fmethod=PUT",
            "a=1;_method=PUT",
            ";_METHOD=PUT;",
            "+_method=PUT",
            ".method=PUT",
            "%5Bmethod=PUT",
            "_method%00x=PUT",
        ] {
            let expected = Some(vec![Method::POST, Method::PUT]);
            assert_eq!(found(None, Some(query)), expected, "{query}");
        }
        assert_eq!(found(Some((OVERRIDES[0], "a b")), None), None);
    }
}
