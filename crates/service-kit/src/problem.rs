//! Error answers: `application/problem+json` (RFC 9457).

use axum::response::{IntoResponse, Response};

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
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        unimplemented!()
    }
}
