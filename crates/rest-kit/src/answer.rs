//! An answer that can be stored and given again.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use service_kit::problem::{CONTENT_TYPE_PROBLEM, Problem};

/// Status, media type and body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body's media type.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// 200 with a text for people.
    pub fn text(text: impl Into<String>) -> Self {
        Self::ok("text/plain; charset=utf-8", text.into())
    }

    /// 200 with JSON.
    pub fn json(value: &Value) -> Self {
        Self::ok("application/json", value.to_string())
    }

    fn ok(content_type: &str, body: String) -> Self {
        Self { status: 200, content_type: content_type.to_owned(), body: body.into() }
    }

    /// Whether the answer stays true: done, or refused for good. "Busy", "away" and "unknown" may change.
    pub fn is_final(&self) -> bool {
        is_final_status(self.status)
    }
}

/// The same for a status alone.
pub(crate) fn is_final_status(status: u16) -> bool {
    matches!(status, 200..=499) && !matches!(status, 408 | 425 | 429)
}

impl From<&Problem> for Answer {
    fn from(problem: &Problem) -> Self {
        let body = problem.to_json().to_string().into();
        Self { status: problem.status, content_type: CONTENT_TYPE_PROBLEM.to_owned(), body }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Ok(content_type) = HeaderValue::try_from(self.content_type) {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
    }
}
