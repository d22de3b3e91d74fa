//! The OpenAPI document, made from the contract's tables.

mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use http::Method;
use serde_json::{Map, Value, json};
use service_kit::params::{MAX_ID_CHARACTERS, MAX_IDEMPOTENCY_KEY_CHARACTERS};
use service_kit::problem::CONTENT_TYPE_PROBLEM;

use crate::contract::{
    OWN_ROUTES, Operation, Parameter, ParameterKind, ROUTES, Refusal, Repeat, Route, Service, Shape, Success,
};

const INTRODUCTION: &str = "Orders, stock and payment of one shop. A checkout is a saga: either the stock is taken and the \
    customer charged and the order paid, or nothing of it stays.\n\n2xx is committed. 4xx will never happen. 429 says that \
    this request changed nothing. 503 `outcome-unknown` and 504 say that nobody knows yet: look before you try again.\n\n\
    Every error is `application/problem+json` (RFC 9457) with a stable `type`. An unknown path is 404 `no-such-route`, a \
    known one with another verb 405 `wrong-verb` with `Allow`. Requests need no body; one that is sent is ignored.\n\n\
    A POST may carry an `Idempotency-Key`. The same key on the same path then has one effect and the same answer, marked \
    `Idempotent-Replayed: true`, for at least 24 hours; with another query or body it is refused. What may change (408, 429, \
    5xx) is not kept: there the same key is a new try.";

/// What every route of a service may answer besides its own refusals, and the gateway is who says it.
const EVERYWHERE: [Refusal; 5] = [
    Refusal { status: 400, kinds: &["bad-body"], when: "A request body broke off." },
    Refusal { status: 408, kinds: &["body-too-slow"], when: "A request body did not arrive in time." },
    Refusal { status: 413, kinds: &["body-too-large"], when: "A request body is too large." },
    Refusal {
        status: 429,
        kinds: &["overloaded", "busy"],
        when: "Too much is under way. This request changed nothing; come again after `Retry-After` seconds.",
    },
    Refusal { status: 500, kinds: &["internal-error"], when: "A mistake of ours; the outcome is unknown." },
];

/// What a POST may answer because of its idempotency key.
const KEYED: [Refusal; 3] = [
    Refusal { status: 400, kinds: &["idempotency-key-invalid"], when: "The idempotency key is none." },
    Refusal {
        status: 422,
        kinds: &["idempotency-key-reused"],
        when: "The idempotency key was used on this path with another query or body.",
    },
    Refusal {
        status: 429,
        kinds: &["too-many-idempotency-keys"],
        when: "Too many idempotency keys are kept; without one the request is taken.",
    },
];

/// A checkout is asked of replica after replica until one answers, so it alone has none of these.
const UNLESS_JOINED: [Refusal; 2] = [
    Refusal { status: 500, kinds: &["internal"], when: "The request failed and changed nothing." },
    Refusal {
        status: 503,
        kinds: &["unavailable", "store-unavailable", "outcome-unknown"],
        when: "A service or its store is away; `outcome-unknown` if it went away in the middle.",
    },
];

/// The document as it is served.
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(make);
    &DOCUMENT
}

fn make() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        paths.insert(
            route.pattern.to_owned(),
            json!({ method: operation(&route.doc, tag(route.service), Keys::of(route), refusals(route)) }),
        );
    }
    for route in &OWN_ROUTES {
        let refusals = route.doc.refusals.to_vec();
        paths
            .insert(route.path.to_owned(), json!({ "get": operation(&route.doc, "gateway", Keys::Ignored, refusals) }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Shop",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": "orders", "description": "Orders and their checkout." },
            { "name": "stock", "description": "Items." },
            { "name": "payment", "description": "Users and their credit." },
            { "name": "gateway", "description": "This document." },
        ],
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

fn tag(service: Service) -> &'static str {
    match service {
        Service::Orders => "orders",
        Service::Stock => "stock",
        Service::Payment => "payment",
    }
}

/// Whether a route takes idempotency keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Taken,
    Ignored,
}

impl Keys {
    fn of(route: &Route) -> Self {
        if route.method == Method::POST { Self::Taken } else { Self::Ignored }
    }
}

fn refusals(route: &Route) -> Vec<Refusal> {
    let common: &[Refusal] = match route.repeat {
        Repeat::Joins => &[],
        Repeat::Reads | Repeat::IfNeverSent => &UNLESS_JOINED,
    };
    let keyed: &[Refusal] = match Keys::of(route) {
        Keys::Taken => &KEYED,
        Keys::Ignored => &[],
    };
    route.doc.refusals.iter().chain(&EVERYWHERE).chain(common).chain(keyed).copied().collect()
}

fn operation(doc: &Operation, tag: &str, keys: Keys, refusals: Vec<Refusal>) -> Value {
    let key = (keys == Keys::Taken).then(idempotency_key);
    let parameters: Vec<Value> = doc.parameters.iter().map(parameter).chain(key).collect();
    let mut shown = json!({
        "operationId": doc.id,
        "summary": doc.summary,
        "tags": [tag],
        "responses": responses(doc.success, keys, &refusals),
    });
    if !doc.details.is_empty() {
        shown["description"] = Value::from(doc.details);
    }
    if !parameters.is_empty() {
        shown["parameters"] = parameters.into();
    }
    shown
}

fn idempotency_key() -> Value {
    let characters = format!("[!#-~]{{1,{MAX_IDEMPOTENCY_KEY_CHARACTERS}}}");
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "A name of the client's choice for this request, best a UUID: however often it is sent, it has one effect.",
        "schema": { "type": "string", "pattern": format!("^({characters}|\"{characters}\")$") },
    })
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": "path",
        "required": true,
        "description": parameter.meaning,
        "schema": match parameter.kind {
            ParameterKind::Id => json!({ "$ref": "#/components/schemas/Id" }),
            ParameterKind::Whole { min, max } => json!({
                "type": "integer", "format": "int64", "minimum": min, "maximum": max
            }),
        },
    })
}

fn responses(success: Success, keys: Keys, refusals: &[Refusal]) -> Value {
    let mut by_status: BTreeMap<u16, Vec<&Refusal>> = BTreeMap::new();
    for refusal in refusals {
        by_status.entry(refusal.status).or_default().push(refusal);
    }
    let refused = by_status.into_iter().map(|(status, refusals)| (status, refused(status, &refusals)));
    let with_headers = |(status, mut answer): (u16, Value)| {
        let headers = headers(status, keys);
        if !headers.is_empty() {
            answer["headers"] = headers.into();
        }
        (status.to_string(), answer)
    };
    std::iter::once((200, succeeded(success))).chain(refused).map(with_headers).collect::<Map<_, _>>().into()
}

fn succeeded(success: Success) -> Value {
    let (media_type, content) = match success {
        Success::Text(example) => ("text/plain", json!({ "schema": { "type": "string" }, "example": example })),
        Success::Json(shape) => ("application/json", json!({ "schema": schema_named(shape.name()) })),
        Success::Other(media_type) => (media_type, json!({ "schema": { "type": "string" } })),
    };
    json!({ "description": "It is done.", "content": { media_type: content } })
}

/// One status; what differs between its problems is their `type`.
fn refused(status: u16, refusals: &[&Refusal]) -> Value {
    let kinds: BTreeSet<String> =
        refusals.iter().flat_map(|refusal| refusal.kinds).map(|kind| format!("/problems/{kind}")).collect();
    let when: Vec<&str> = refusals.iter().map(|refusal| refusal.when).collect();
    let schema = json!({
        "allOf": [schema_named("Problem")],
        "properties": { "type": { "enum": kinds }, "status": { "const": status } },
    });
    json!({ "description": when.join(" "), "content": { CONTENT_TYPE_PROBLEM: { "schema": schema } } })
}

fn headers(status: u16, keys: Keys) -> Map<String, Value> {
    let mut headers = Map::new();
    if matches!(status, 429 | 503) {
        let retry_after = json!({
            "description": "Seconds to wait before the next try.",
            "required": status == 429,
            "schema": { "type": "integer", "minimum": 1 },
        });
        headers.insert("Retry-After".to_owned(), retry_after);
    }
    if status == 504 {
        let location = json!({
            "description": "Where the order shows how the checkout ended.",
            "required": true,
            "schema": { "type": "string", "pattern": "^/orders/find/" },
        });
        headers.insert("Location".to_owned(), location);
    }
    let is_kept = matches!(status, 200..=499) && !matches!(status, 408 | 413 | 429);
    if keys == Keys::Taken && is_kept {
        let replayed = json!({
            "description": "An earlier request with the same idempotency key led to this answer; nothing was done again.",
            "required": false,
            "schema": { "const": "true" },
        });
        headers.insert("Idempotent-Replayed".to_owned(), replayed);
    }
    headers
}

fn schemas() -> Value {
    let own = OWN_ROUTES.iter().map(|route| &route.doc);
    let used: BTreeSet<Shape> = ROUTES
        .iter()
        .map(|route| &route.doc)
        .chain(own)
        .filter_map(|doc| match doc.success {
            Success::Json(shape) => Some(shape),
            Success::Text(_) | Success::Other(_) => None,
        })
        .collect();
    let mut schemas: Map<String, Value> =
        used.into_iter().map(|shape| (shape.name().to_owned(), shape.schema())).collect();
    let id = json!({
        "type": "string",
        "description": "A UUID if it was made by a `create` route, a number if by `batch_init`.",
        "pattern": format!("^[A-Za-z0-9_-]{{1,{MAX_ID_CHARACTERS}}}$"),
    });
    schemas.insert("Id".to_owned(), id);
    schemas.insert("Problem".to_owned(), shapes::problem());
    schemas.into()
}

fn schema_named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
