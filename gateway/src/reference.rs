//! What the gateway answers itself: the OpenAPI document, and the page that renders it.

mod html;

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use crate::contract::Page;
use crate::openapi::document;

/// The page loads its own style sheet and script, sends requests to its own origin, and nothing else: no inline script,
/// no other host, no frame around it.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is no page may do nothing at all.
const FILE_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// The answer to a request for a page.
pub(crate) fn answer(page: Page) -> Response {
    let (media_type, policy, body) = match page {
        Page::Document => ("application/json", FILE_POLICY, document_bytes()),
        Page::Reference => ("text/html; charset=utf-8", PAGE_POLICY, html_bytes()),
        Page::Style => ("text/css; charset=utf-8", FILE_POLICY, Bytes::from_static(STYLE)),
        Page::Script => ("text/javascript; charset=utf-8", FILE_POLICY, Bytes::from_static(SCRIPT)),
    };
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // It changes with the program only, but nobody shall read yesterday's.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from(body)).into_response()
}

const STYLE: &[u8] = include_bytes!("reference/style.css");
const SCRIPT: &[u8] = include_bytes!("reference/script.js");

fn document_bytes() -> Bytes {
    static BYTES: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));
    BYTES.clone()
}

fn html_bytes() -> Bytes {
    static BYTES: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(html::page(document())));
    BYTES.clone()
}
