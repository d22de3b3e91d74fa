//! Which headers pass: few, so that nothing that belongs to one connection or one hop gets through.

use http::HeaderMap;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, LOCATION, RETRY_AFTER,
};

const REQUEST: [HeaderName; 5] =
    [ACCEPT, AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH, HeaderName::from_static("idempotency-key")];

const ANSWER: [HeaderName; 6] =
    [CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER, HeaderName::from_static("idempotent-replayed")];

/// What a service gets of a client's headers; the trace context is added later.
pub(super) fn of_request(headers: &HeaderMap) -> HeaderMap {
    pick(headers, &REQUEST)
}

/// Takes a client's trace context away: a new trace begins here.
pub(super) fn forget_trace(headers: &mut HeaderMap) {
    headers.remove("traceparent");
    headers.remove("tracestate");
}

/// What a client gets of a service's headers.
pub(super) fn of_answer(headers: &HeaderMap) -> HeaderMap {
    pick(headers, &ANSWER)
}

fn pick(headers: &HeaderMap, wanted: &[HeaderName]) -> HeaderMap {
    let mut picked = HeaderMap::new();
    for (name, value) in headers {
        if wanted.contains(name) || name.as_str().starts_with("x-") {
            picked.append(name, value.clone());
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_what_is_meant_for_the_other_side_passes() {
        let all =
            ["content-type", "x-request-id", "connection", "transfer-encoding", "host", "server", "cookie", "upgrade"];
        let headers: HeaderMap =
            all.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v"))).collect();
        for picked in [of_request(&headers), of_answer(&headers)] {
            let names: Vec<_> = picked.keys().map(HeaderName::as_str).collect();
            assert!(
                names.len() == 2 && names.contains(&"content-type") && names.contains(&"x-request-id"),
                "{names:?}"
            );
        }
    }
}
