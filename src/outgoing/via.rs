//! Loop detection: this process adds its mark to every request that it sends, and recognizes a
//! request that returns to it by that mark.
//!
//! The header is not `Via` (RFC 9110, section 7.6.3), because nginx does not compress responses to
//! requests that have it.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};

/// [`VIA`] as it is written on the wire.
pub const VIA_FIELD: &str = "X-Collibra-Auth-Proxy-Via";

/// The header: the marks of the processes that the request has passed, separated by commas.
pub const VIA: HeaderName = HeaderName::from_static("x-collibra-auth-proxy-via");

/// The most processes that a request may pass. Replicas behind one name have different marks, so a
/// loop may pass many of them before it returns to the first.
const MOST_HOPS: usize = 16;

/// This process's mark. Each process has its own, so proxies can be chained.
static OWN: LazyLock<HeaderValue> = LazyLock::new(|| {
    HeaderValue::try_from(format!("{:032x}", crate::random::unique()))
        .unwrap_or_else(|_| HeaderValue::from_static("0"))
});

/// This process's mark, for a request of its own.
#[must_use]
pub fn own() -> HeaderValue {
    OWN.clone()
}

/// Returns whether a request with these `headers` has passed this process before, or too many
/// others.
#[must_use]
pub fn is_loop(headers: &HeaderMap) -> bool {
    let mut hops = marks(headers).enumerate();
    hops.any(|(nth, mark)| nth >= MOST_HOPS || mark == OWN.as_bytes())
}

/// The header's value for a request to forward: its marks, followed by this process's.
#[must_use]
pub fn passed_on(headers: &HeaderMap) -> HeaderValue {
    if !headers.contains_key(VIA) {
        return own();
    }
    let mut value = Vec::new();
    for mark in marks(headers) {
        value.extend_from_slice(mark);
        value.extend_from_slice(b", ");
    }
    value.extend_from_slice(OWN.as_bytes());
    // it consists of valid values
    HeaderValue::from_bytes(&value).unwrap_or_else(|_| own())
}

fn marks(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(VIA).into_iter();
    values.flat_map(|value| {
        let marks = value.as_bytes().split(|byte| *byte == b',');
        marks.map(<[u8]>::trim_ascii)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let values = values.iter();
        let fields = values.map(|value| (VIA, HeaderValue::try_from(*value).unwrap()));
        fields.collect()
    }

    #[test]
    fn a_request_that_comes_back_is_known_by_its_mark() {
        let begun = HeaderMap::new();
        assert!(!is_loop(&begun));
        let own = passed_on(&begun);
        let own = own.to_str().unwrap();
        assert_eq!(own.len(), 32);
        assert!(is_loop(&headers(&[own])));
        assert!(is_loop(&headers(&["a", &format!("b,{own} , c")])));
    }

    #[test]
    fn other_proxies_may_stand_before_it() {
        let passed = headers(&["a, b", "c"]);
        assert!(!is_loop(&passed));
        let own = own();
        let expected = format!("a, b, c, {}", own.to_str().unwrap());
        assert_eq!(passed_on(&passed), expected);
    }

    #[test]
    fn no_request_goes_round_for_ever_among_others() {
        assert!(!is_loop(&headers(&["x"; MOST_HOPS])));
        assert!(is_loop(&headers(&["x"; MOST_HOPS + 1])));
        assert!(is_loop(&headers(&[&"x,".repeat(MOST_HOPS + 1)])));
    }
}
