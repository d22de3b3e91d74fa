//! Error answers: `application/problem+json` (RFC 9457).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

/// The media type of every error answer.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// One error answer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable machine word; `type` is `/problems/<kind>`.
    pub kind: &'static str,
    /// A sentence for people.
    pub detail: String,
    /// The saga concerned.
    pub saga_id: Option<String>,
    /// `Location` header.
    pub location: Option<String>,
    /// `Retry-After` header, seconds.
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem with status, kind and detail.
    pub fn new(status: u16, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), saga_id: None, location: None, retry_after_s: None }
    }

    /// The same, with the saga concerned.
    #[must_use]
    pub fn with_saga(mut self, saga_id: impl Into<String>) -> Self {
        self.saga_id = Some(saga_id.into());
        self
    }

    /// The same, with a `Location` header.
    #[must_use]
    pub fn with_location(mut self, location: impl Into<String>) -> Self {
        self.location = Some(location.into());
        self
    }

    /// The same, with a `Retry-After` header.
    #[must_use]
    pub fn with_retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The body as JSON: `type`, `title`, `status`, `detail` and, where there is one, `saga_id`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut body = serde_json::json!({
            "type": format!("/problems/{}", self.kind),
            "title": self.kind.replace('-', " "),
            "status": self.status,
            "detail": self.detail,
        });
        if let Some(saga_id) = &self.saga_id {
            body["saga_id"] = serde_json::Value::from(saga_id.as_str());
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        // A location with bytes that no header may carry is left out: the answer itself matters more.
        if let Some(location) = self.location.and_then(|location| HeaderValue::try_from(location).ok()) {
            headers.insert(LOCATION, location);
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_type_title_saga_and_headers() {
        let problem = Problem::new(504, "undecided", "the checkout goes on")
            .with_saga("0198b1a2-7a3c-7c4e-8d5f-1a2b3c4d5e6f")
            .with_location("/orders/find/7")
            .with_retry_after_s(2);
        let body = problem.to_json();
        assert_eq!(body["type"], "/problems/undecided");
        assert_eq!(body["title"], "undecided");
        assert_eq!(body["status"], 504);
        assert_eq!(body["saga_id"], "0198b1a2-7a3c-7c4e-8d5f-1a2b3c4d5e6f");
        let response = problem.into_response();
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()[CONTENT_TYPE], CONTENT_TYPE_PROBLEM);
        assert_eq!(response.headers()[LOCATION], "/orders/find/7");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }

    #[test]
    fn nonsense_in_a_location_does_not_break_the_answer() {
        let response = Problem::new(404, "order-not-found", "no").with_location("/a\r\nSet-Cookie: x").into_response();
        assert_eq!(response.status(), 404);
        assert!(!response.headers().contains_key(LOCATION));
    }
}
